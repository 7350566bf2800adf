//go:build linux || darwin

package keepcache

import "syscall"

// diskRoom returns how many bytes are free for us on the file system of dir, or -1 if that is not known.
func diskRoom(dir string) int64 {
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) != nil {
		return -1
	}
	return int64(uint64(st.Bavail) * uint64(st.Bsize))
}
