package store

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
)

// errMountPoint means that no other file can take the name of the cache file, because it is a bind mount, as in
// containers.
var errMountPoint = fmt.Errorf("another file cannot take its name, because it is a mount point: %w",
	errors.ErrUnsupported)

// isMountPoint reports whether a link or rename failed because the file is a mount point.
func isMountPoint(err error) bool {
	return errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EXDEV)
}

// Attributes returns owner, group, mode and labels of the file, as of now or as last seen. A file that replaces it gets
// them.
func (s *Store) Attributes() (disk.Attributes, error) {
	h := s.current.Load()
	if h == nil {
		return disk.Attributes{}, errs.ErrClosed
	}
	last := s.attributes.Load()
	if !h.users.TryRLock() { // it is being closed because a copy with the same attributes has replaced it
		if last == nil {
			return disk.Attributes{}, errs.ErrClosed
		}
		return *last, nil
	}
	defer h.users.RUnlock()
	now, err := disk.AttributesOf(h.file)
	if err == nil {
		s.attributes.Store(&now)
		return now, nil
	}
	if !h.closed && h.Err() == nil || last == nil {
		return disk.Attributes{}, err
	}
	return *last, nil // the descriptor of a poisoned handle may be closed
}

// checkReplaceable returns errMountPoint if no copy could take the file's name. It is called before a copy is made.
func (s *Store) checkReplaceable(h *Handle) error {
	if s.mountPoint.Load() != h && !s.Dir().Moved() && disk.Mounted(s.path) {
		s.mountPoint.Store(h)
	}
	if s.mountPoint.Load() == h {
		return errMountPoint
	}
	return nil
}
