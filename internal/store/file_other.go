//go:build !unix || solaris || aix

package store

import (
	"os"
	"time"
)

// locksFirst reports whether lockFile takes the lock.
const locksFirst = false

// openFlags are the extra flags for opening files that may not be regular; none here.
const openFlags = 0

// CanReplace reports whether an open file can be replaced, together with its lock.
const CanReplace = false

// lockFile leaves the lock to bbolt, which on these systems cannot take it a second time on one handle.
func lockFile(*os.File, bool, time.Duration) error { return nil }

// unlockFile does nothing: closing the file releases the lock.
func unlockFile(*os.File) error { return nil }
