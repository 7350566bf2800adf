package store

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
)

// errUnmoving says that no other file can take the name of the cache's: it is mounted by itself, as a container has it.
var errUnmoving = fmt.Errorf("another file cannot take its name, because it is a mount of its own: %w", errors.ErrUnsupported)

// unmoving reports whether a failed link or rename says so.
func unmoving(err error) bool { return errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EXDEV) }

// Attributes returns owner, group, mode and labels that the file has now, or had when it was last seen where nobody can say
// that any more. What takes its place gets them.
func (s *Store) Attributes() (disk.Attributes, error) {
	h := s.current.Load()
	if h == nil {
		return disk.Attributes{}, errs.ErrClosed
	}
	last := s.like.Load()
	if !h.users.TryRLock() { // it is being closed: a copy has taken its place, with the same attributes
		if last == nil {
			return disk.Attributes{}, errs.ErrClosed
		}
		return *last, nil
	}
	defer h.users.RUnlock()
	now, err := disk.AttributesOf(h.file)
	if err == nil {
		s.like.Store(&now)
		return now, nil
	}
	if !h.closed && h.Err() == nil || last == nil {
		return disk.Attributes{}, err
	}
	return *last, nil // the descriptor of a poisoned handle may be closed
}

// replaceable returns errUnmoving where no copy could take the file's name, before one is made.
func (s *Store) replaceable(h *Handle) error {
	if s.unmoving.Load() != h && !s.Dir().Moved() && disk.Mounted(s.path) {
		s.unmoving.Store(h)
	}
	if s.unmoving.Load() == h {
		return errUnmoving
	}
	return nil
}
