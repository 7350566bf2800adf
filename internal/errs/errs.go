// Package errs has the errors that more than one package returns. Package keepcache documents and exports them.
package errs

import (
	"errors"
	"strconv"
)

// What they mean is said in errors.go of package keepcache.
var (
	ErrInvalidKey     = errors.New("invalid key")
	ErrInvalidName    = errors.New("invalid bucket name")
	ErrLocked         = errors.New("file is locked")
	ErrFormat         = errors.New("not a keepcache file that this version reads")
	ErrReadOnly       = errors.New("cache is open for reading only")
	ErrClosed         = errors.New("cache is closed")
	ErrTooLarge       = errors.New("value too large")
	ErrNoRoom         = errors.New("no room for writes")
	ErrContended      = errors.New("too many writers change this key at the same time")
	ErrUnknownOutcome = errors.New("the outcome is unknown")
	ErrUnavailable    = errors.New("the file is unavailable")
	ErrCorrupt        = errors.New("stored data is damaged")
)

// Quote quotes s, with its middle left out where it is long: a key may have 32,000 bytes.
func Quote(s string) string {
	const most = 64
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(s[:most/2]) + "..." + strconv.Quote(s[len(s)-most/4:])
}
