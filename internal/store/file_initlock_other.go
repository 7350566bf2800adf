//go:build (!unix && !windows) || solaris || aix

package store

import (
	"errors"
	"fmt"
	"os"
)

// lockForInit fails: there is no lock that could be held before bbolt takes its own.
func lockForInit(*os.File) error {
	return fmt.Errorf("%w: an empty file cannot be made a cache on this system: %w",
		ErrNotInitialized, errors.ErrUnsupported)
}
