//go:build race

package cachetest

func init() { Raced = true }
