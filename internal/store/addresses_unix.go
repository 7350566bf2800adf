//go:build unix && !solaris && !aix

package store

import "golang.org/x/sys/unix"

// addressable reports whether the process can get so many more bytes of address space.
func addressable(bytes int64) bool {
	if bytes <= 0 {
		return true
	}
	if int64(int(bytes)) != bytes {
		return false
	}
	mem, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return false
	}
	return unix.Munmap(mem) == nil
}
