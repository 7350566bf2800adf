package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
)

// Found is what is found at the path of a file that is to be opened anew.
type Found struct {
	h        *Handle // nil if it cannot be opened
	identity [16]byte
	mark     uint64
	Err      error       // why it cannot
	info     fs.FileInfo // of what was at the path; nil if nothing was
}

func (r *Found) Close() error {
	if r.h == nil {
		return nil
	}
	return r.h.Close()
}

// Find opens what is at the path.
func (s *Store) Find(in *disk.Dir) (r Found) {
	r.info, _ = in.Lstat(s.path)
	h, err := openFile(in, s.path, s.readOnly, healLock, false)
	if err != nil {
		r.Err = err
		return r
	}
	if r.identity, err = h.recognise(); err == nil && !s.readOnly {
		err = h.makeDurable(in, s.path)
	}
	if err == nil {
		err = h.view(func(tx *bolt.Tx) error {
			r.mark, _ = revisionsIn(tx)
			return nil
		})
	}
	if err != nil {
		r.Err = errors.Join(err, h.Close())
		return r
	}
	r.h = h
	return r
}

// stays reports whether there is still at the path what was found: commits may have been waited for meanwhile.
func (r *Found) stays(now fs.FileInfo) bool {
	if r.info == nil || now == nil {
		return r.info == nil && now == nil
	}
	return os.SameFile(now, r.info)
}

// Reopen makes what was found the file that is used instead of an abandoned handle's, or a fresh one in its place. lost says
// that the file has not everything that was committed, and kept what was kept aside, if anything was. from is what a fresh one takes
// over, and fail says that a damaged one stays where it is. The caller keeps commits from running.
func (s *Store) Reopen(old *Handle, found Found, in *disk.Dir, from *Catalog, fail bool) (h *Handle, how string, lost bool, kept *Quarantined, err error) {
	h, identity, mark, err := found.h, found.identity, found.mark, found.Err
	if s.readOnly {
		if err == nil && (identity != s.identity || mark != s.mark) {
			err = errors.Join(fmt.Errorf("%w: open it anew", ErrMoved), h.Close())
		}
		return h, "it was opened anew", false, nil, err
	}
	now, statErr := in.Lstat(s.path)
	same := statErr == nil && os.SameFile(now, old.info)
	if (err != nil || identity != s.identity) && !found.stays(now) {
		return nil, "", false, nil, errors.Join(ErrMoved, err, found.Close()) // the next attempt finds it
	}
	if in != s.Dir() && (err == nil && identity != s.identity || err != nil && !errors.Is(err, fs.ErrNotExist)) {
		return nil, "", false, nil, errors.Join(ErrTaken, err, found.Close()) // only in its own directory does anything make way
	}
	switch {
	case err == nil && identity == s.identity && same && mark >= from.Mark:
		if err = h.mendCounts(h.update); err != nil {
			return nil, "", false, nil, errors.Join(err, h.Close())
		}
		return h, "it was opened anew", false, nil, nil
	case err == nil && identity == s.identity:
		if err = errors.Join(h.update(from.write), h.mendCounts(h.update)); err != nil {
			return nil, "", false, nil, errors.Join(err, h.Close())
		}
		return h, "an older copy was opened", true, nil, nil
	case err == nil:
		fresh, kept, err := s.putAside(damaged{in: in}, replacedSuffix, ErrMoved, from)
		return fresh, "a fresh file has taken the place of another cache", true, kept, errors.Join(err, h.Close())
	case errors.Is(err, fs.ErrNotExist):
		fresh, kept, err := s.putAside(damaged{in: in}, corruptSuffix, nil, from)
		return fresh, "a fresh file was made, because there was none", true, kept, err
	case !errors.Is(err, errs.ErrCorrupt) && !(same && errors.Is(err, errs.ErrFormat)), fail, !CanReplace:
		return nil, "", false, nil, err
	}
	f, _, lockErr := openOwned(in, s.path, os.O_RDWR, healLock)
	if lockErr != nil {
		return nil, "", false, nil, errors.Join(err, lockErr)
	}
	fresh, kept, asideErr := s.putAside(damaged{in: in, file: f}, corruptSuffix, err, from)
	if fresh == nil || fresh.file != f {
		f.Close()
	}
	return fresh, "a fresh file has taken the place of a damaged one", true, kept, asideErr
}

// Quarantined is a file that was kept aside.
type Quarantined struct {
	Aside string   // where; empty if it could be kept nowhere
	Why   error    // nil where it was only in the way
	From  *Catalog // what the fresh one took over
}

// putAside is quarantine. Path and attributes it fills in.
func (s *Store) putAside(d damaged, suffix string, why error, from *Catalog) (h *Handle, kept *Quarantined, err error) {
	if d.path = s.path; d.file != nil {
		d.like, err = disk.AttributesOf(d.file)
	} else {
		d.like, err = s.Attributes()
	}
	if err != nil {
		return nil, nil, err
	}
	h, aside, err := quarantine(d, suffix, from)
	if err == nil && (aside != "" || d.file != nil) {
		kept = &Quarantined{aside, why, from}
	}
	return h, kept, err
}
