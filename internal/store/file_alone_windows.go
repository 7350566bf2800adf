package store

import (
	"errors"
	"os"

	"github.com/keepcache/keepcache/internal/errs"
	"golang.org/x/sys/windows"
)

// lockAlone takes the lock that bbolt takes, until f is closed: here nobody has it before bbolt. It returns
// errs.ErrLocked where another process has it.
func lockAlone(f *os.File) error {
	const last = 1<<32 - 1 // of the byte that bbolt locks
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{Offset: last, OffsetHigh: last})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errs.ErrLocked
	}
	return err
}
