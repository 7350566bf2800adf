package store

import (
	"errors"
	"os"

	"github.com/keepcache/keepcache/internal/errs"
	"golang.org/x/sys/windows"
)

// lockForInit takes the lock that bbolt takes, until f is closed: on Windows no other lock is held before bbolt's. It
// returns errs.ErrLocked if another process has it.
func lockForInit(f *os.File) error {
	const last = 1<<32 - 1 // position of the byte that bbolt locks
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{Offset: last, OffsetHigh: last})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errs.ErrLocked
	}
	return err
}
