package store

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
)

// Failure returns why the handle is poisoned or frozen, or nil.
func (h *Handle) Failure() *Failure {
	if f := h.failure.Load(); f != nil {
		return f
	}
	return h.frozen.Load()
}

// Inspect checks that the file is still the one at its path and has not been truncated. It reports whether owner, group
// or mode have changed.
func (s *Store) Inspect() (changed bool) {
	s.renewing.Lock() // no successor takes the path meanwhile
	defer s.renewing.Unlock()
	h := s.current.Load()
	if h == nil || h.Failure() != nil {
		return false
	}
	h.users.RLock() // and the handle is not closed
	defer h.users.RUnlock()
	if h.closed || h.checkIntact() != nil || s.readOnly {
		return false // a reader loses nothing when its file loses its name
	}
	switch now, err := s.Dir().Lstat(s.path); {
	case errors.Is(err, fs.ErrNotExist):
		h.Freeze(ErrRemoved)
	case err == nil && !os.SameFile(now, h.info):
		h.Freeze(ErrMoved)
	case err == nil:
		if last := s.attributes.Load(); last != nil && !last.Same(disk.AttributesIn(now)) {
			_, _ = s.Attributes()
			return true
		}
	}
	return false
}

// Adopt replaces a poisoned handle by another one, of the file in the given directory.
func (s *Store) Adopt(h *Handle, in *disk.Dir) error {
	fresh, err := h.snapshot()
	if err != nil {
		return err
	}
	s.renewing.Lock()
	defer s.renewing.Unlock()
	if s.current.Load() == nil {
		fresh.end()
		return errs.ErrClosed
	}
	s.dirtyKeys.wake()
	s.dirtyKeys = nil // nobody tracks the keys of a poisoned handle
	s.lookups.Lock()
	last := s.shared
	s.shared = fresh
	s.lookups.Unlock()
	last.end()
	s.use(h)
	s.dir.Store(in)
	return nil
}

// TakeIntruder returns the quarantined file that had taken the path, or "" if there was none. It returns each file
// once.
func (s *Store) TakeIntruder() (quarantined string) {
	quarantined, s.intruder = s.intruder, ""
	return quarantined
}

// quarantineIntruder quarantines a cache that has taken the path. A file in use stays, and so does one that is no
// cache.
func (s *Store) quarantineIntruder(in *disk.Dir) error {
	f, info, err := openOwned(in, s.path, os.O_RDWR, healLockTimeout)
	if err != nil {
		return errors.Join(ErrMoved, err)
	}
	defer f.Close()
	identity, err := identityOf(f, info)
	if err != nil {
		return errors.Join(ErrMoved, err)
	}
	if in != s.Dir() && identity != s.identity {
		return ErrOtherCache // files make way only in the cache's own directory
	}
	if s.intruder, err = QuarantineFile(in, s.path, replacedSuffix, info); err == nil {
		PruneQuarantine(in, s.path, replacedSuffix, s.intruder)
		err = in.Sync(s.path)
	}
	return err
}

const (
	// healLockTimeout is how long to wait for another process that has the file locked.
	healLockTimeout = 50 * time.Millisecond

	// drainTimeout is how long a change that is under way in a poisoned handle may take before it counts as hung. After
	// that its descriptor is closed and it can write nothing. drainTimeoutStuck is for a handle whose lock of the meta
	// pages is taken forever: its change cannot end, so only the one write that may be under way needs time.
	drainTimeout      = 30 * time.Second
	drainTimeoutStuck = time.Second
)
