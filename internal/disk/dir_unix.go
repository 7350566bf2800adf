//go:build unix

package disk

import (
	"io/fs"
	"syscall"
)

// canHold says that a directory that is held open can be renamed meanwhile, and that its files are found by the handle.
const canHold = true

// unlinked reports whether a directory has no name any more, where the file system tells.
func unlinked(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 0
}
