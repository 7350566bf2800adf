//go:build unix

package main

import (
	"io/fs"
	"syscall"
)

// allocated returns how many bytes a file has on disk. Peers that map their files make them far longer than
// what is in them.
func allocated(info fs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return info.Size()
}
