//go:build !unix || solaris || aix

package store

import (
	"os"
	"time"
)

// locksFirst says that lockFile takes the lock.
const locksFirst = false

// openFlags are what these systems have for the opening of files that may be no files.
const openFlags = 0

// CanReplace says that a file cannot be replaced while it is open, or not so that its lock goes with it.
const CanReplace = false

// lockFile leaves the lock to bbolt, which on these systems cannot take it a second time on one handle.
func lockFile(*os.File, bool, time.Duration) error { return nil }

// unlockFile leaves the lock to the closing of the file.
func unlockFile(*os.File) error { return nil }
