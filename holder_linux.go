package keepcache

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// lockHolder returns the id of a process that holds a lock on the file at path, or 0. The kernel lists
// locks in /proc/locks by device and inode (proc_locks(5)).
func lockHolder(path string) int {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer f.Close()

	inode := fmt.Sprintf(":%d", st.Ino)
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF
		field := strings.Fields(sc.Text())
		if len(field) < 6 || field[1] != "FLOCK" || !strings.HasSuffix(field[5], inode) {
			continue
		}
		var major, minor, pid int
		if n, _ := fmt.Sscanf(field[5], "%x:%x:", &major, &minor); n != 2 {
			continue
		}
		dev := uint64(st.Dev)
		if uint64(major) != (dev>>8)&0xfff|(dev>>32)&^0xfff || uint64(minor) != dev&0xff|(dev>>12)&^0xff {
			continue
		}
		if n, _ := fmt.Sscan(field[4], &pid); n == 1 && pid > 0 {
			return pid
		}
	}
	return 0
}
