//go:build unix && !solaris && !aix

package store

import (
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/keepcache/keepcache/internal/errs"
)

// CanReplace reports whether an open file can be replaced.
const CanReplace = true

// locksFirst reports whether lockFile takes the lock.
const locksFirst = true

// openFlags make opening a link fail and opening a pipe return, in case one appears after CheckPath.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// lockPoll is how often to retry a lock that is held: flock(2) has no timeout.
const lockPoll = 10 * time.Millisecond

// lockFile takes the lock on f, shared or exclusive, within wait. bbolt then takes the same lock on the same
// descriptor, which succeeds at once. Taking it first lets us check the file before bbolt reads it. It returns
// errs.ErrLocked if another holder does not release it in time.
func lockFile(f *os.File, exclusive bool, wait time.Duration) error {
	how := syscall.LOCK_SH
	if exclusive {
		how = syscall.LOCK_EX
	}
	for deadline := time.Now().Add(wait); ; time.Sleep(lockPoll) {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		case !time.Now().Before(deadline):
			return errs.ErrLocked
		}
	}
}

// lockForInit does nothing: a writer has the lock already.
func lockForInit(*os.File) error { return nil }

// unlockFile releases the lock.
func unlockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }
