//go:build linux || darwin

package store

import (
	"os"
	"syscall"
)

// diskRoom returns how many bytes are free for us on a file's file system, or -1 if unknown.
func diskRoom(f *os.File) int64 {
	var st syscall.Statfs_t
	if syscall.Fstatfs(int(f.Fd()), &st) != nil {
		return -1
	}
	return int64(uint64(st.Bavail) * uint64(st.Bsize))
}
