//go:build unix && !solaris && !aix

package store

import (
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/keepcache/keepcache/internal/errs"
)

// CanReplace says that a file can be replaced while it is open.
const CanReplace = true

// locksFirst says that lockFile takes the lock.
const locksFirst = true

// openFlags has the opening of a link fail and that of a pipe return, should one come between our look and the opening.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// lockPoll is how often a held lock is tried again: flock(2) has no timeout of its own.
const lockPoll = 10 * time.Millisecond

// lockFile takes the lock on f, shared or exclusive, within wait. bbolt then takes the same lock on the
// same descriptor, which succeeds at once; taking it first lets us look at the file before bbolt does.
// It returns errs.ErrLocked when another holder does not let go in time.
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

// lockAlone has nothing to do: who writes has the lock already.
func lockAlone(*os.File) error { return nil }

// unlockFile lets go of the lock.
func unlockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }
