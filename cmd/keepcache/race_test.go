//go:build race && linux

package main

func init() { raced = true }
