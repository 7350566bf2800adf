//go:build unix && !aix

package disk

import (
	"errors"
	"syscall"
)

// openFlags has the opening of a link fail and that of a pipe return.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

func isLink(err error) bool { return errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EMLINK) }
