//go:build !linux

package main

// The disk's own limit is measured on Linux only.
var limitFlush, limitAppend func(*child) error
