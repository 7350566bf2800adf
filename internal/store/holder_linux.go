package store

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LockHolder returns the id of a process that holds a lock on the file at path, or 0. The kernel lists locks in
// /proc/locks by device and inode (proc_locks(5)).
func LockHolder(path string) int {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
		return 0
	}
	devices := []device{{st.Dev_major, st.Dev_minor}}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		// /proc/locks has the device of the file system. Some file systems, such as btrfs, give files another one.
		if d, ok := mountDevice(st.Mnt_id); ok {
			devices = append(devices, d)
		}
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF
		field := strings.Fields(sc.Text())
		if len(field) < 6 || field[1] != "FLOCK" {
			continue
		}
		var d device
		var inode uint64
		if n, _ := fmt.Sscanf(field[5], "%x:%x:%d", &d.major, &d.minor, &inode); n != 3 || inode != st.Ino {
			continue
		}
		pid, err := strconv.Atoi(field[4])
		if err != nil || pid <= 0 { // in another PID namespace
			continue
		}
		for _, known := range devices {
			if d == known {
				return pid
			}
		}
	}
	return 0
}

// device is a device number.
type device struct{ major, minor uint32 }

// mountDevice returns the device of the mounted file system with the given id, see proc_pid_mountinfo(5).
func mountDevice(id uint64) (d device, ok bool) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return d, false
	}
	defer f.Close()
	want := strconv.FormatUint(id, 10)
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// 42 26 0:38 / /mnt rw,relatime - btrfs /dev/loop0 rw
		field := strings.Fields(sc.Text())
		if len(field) < 3 || field[0] != want {
			continue
		}
		n, _ := fmt.Sscanf(field[2], "%d:%d", &d.major, &d.minor)
		return d, n == 2
	}
	return d, false
}
