package store

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
)

// Trouble returns why the handle is of no more use, or of less, or nil.
func (h *Handle) Trouble() *Failure {
	if f := h.why.Load(); f != nil {
		return f
	}
	return h.barred.Load()
}

// Inspect looks whether the file is still the one at its path, and as long as it was. It reports whether it has changed hands:
// owner, group or mode are other than they were.
func (s *Store) Inspect() (changed bool) {
	s.renewing.Lock() // no successor takes the path meanwhile
	defer s.renewing.Unlock()
	h := s.current.Load()
	if h == nil || h.Trouble() != nil {
		return false
	}
	h.users.RLock() // nor is it closed
	defer h.users.RUnlock()
	if h.closed || h.whole() != nil || s.readOnly {
		return false // who only reads loses nothing with the name of his file
	}
	switch now, err := s.Dir().Lstat(s.path); {
	case errors.Is(err, fs.ErrNotExist):
		h.Bar(ErrRemoved)
	case err == nil && !os.SameFile(now, h.info):
		h.Bar(ErrMoved)
	case err == nil:
		if last := s.like.Load(); last != nil && !last.Same(disk.AttributesIn(now)) {
			_, _ = s.Attributes()
			return true
		}
	}
	return false
}

// Adopt has everybody use another handle, of the file in a directory, instead of a poisoned one.
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
	s.noted.look()
	s.noted = nil // nobody notes keys of a poisoned handle
	s.lookups.Lock()
	last := s.shared
	s.shared = fresh
	s.lookups.Unlock()
	last.end()
	s.use(h)
	s.home.Store(in)
	return nil
}

// TakeIntruder returns the file that was last kept aside because it had taken the path, once; it is empty if there is none.
func (s *Store) TakeIntruder() (aside string) {
	aside, s.intruder = s.intruder, ""
	return aside
}

// keepIntruder keeps a cache aside that has taken the path. One that is in use stays, and so does what is no cache.
func (s *Store) keepIntruder(in *disk.Dir) error {
	f, info, err := openOwned(in, s.path, os.O_RDWR, healLock)
	if err != nil {
		return errors.Join(ErrMoved, err)
	}
	defer f.Close()
	identity, err := identityOf(f, info)
	if err != nil {
		return errors.Join(ErrMoved, err)
	}
	if in != s.Dir() && identity != s.identity {
		return ErrTaken // only in its own directory does anything make way
	}
	if s.intruder, err = KeepAside(in, s.path, replacedSuffix, info); err == nil {
		PruneAside(in, s.path, replacedSuffix, s.intruder)
		err = in.Sync(s.path)
	}
	return err
}

const (
	// healLock is how long another process that has the file is waited for.
	healLock = 50 * time.Millisecond

	// healSettle is how long a change of the file that is under way in a poisoned handle may take before it is taken for
	// one that will never end. It can write nothing from then on. Where bbolt's lock of the meta pages is taken for
	// good it cannot end anyway, and only has to be given the time for the one write that may be on its way.
	healSettle      = 30 * time.Second
	healSettleStuck = time.Second
)
