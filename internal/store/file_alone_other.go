//go:build (!unix && !windows) || solaris || aix

package store

import (
	"errors"
	"fmt"
	"os"
)

// lockAlone fails: a lock that bbolt takes later cannot be held before.
func lockAlone(*os.File) error {
	return fmt.Errorf("%w: an empty file cannot be made a cache on this system: %w", errUnmade, errors.ErrUnsupported)
}
