//go:build !unix || solaris || aix

package keepcache

import (
	"os"
	"time"
)

// canReplace says that a file cannot be replaced while it is open, or not so that its lock goes with it.
const canReplace = false

// lockFile leaves the lock to bbolt, which on these systems cannot take it a second time on one handle.
func lockFile(*os.File, bool, time.Duration) error { return nil }
