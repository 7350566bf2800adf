package beside

import "golang.org/x/sys/unix"

// longest returns how many bytes the name of a file in dir may have.
func longest(dir string) int {
	if dir == "" {
		dir = "."
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Namelen < surely || st.Namelen > unix.PathMax {
		return usual // there are file systems that do not say it
	}
	return int(st.Namelen)
}
