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

// Candidate is what Find found at the path of a file to reopen.
type Candidate struct {
	h        *Handle // nil if it cannot be opened
	identity [16]byte
	mark     uint64
	Err      error       // why it cannot
	info     fs.FileInfo // of what was at the path; nil if there was nothing
}

func (r *Candidate) Close() error {
	if r.h == nil {
		return nil
	}
	return r.h.Close()
}

// Find opens the file at the path.
func (s *Store) Find(in *disk.Dir) (r Candidate) {
	r.info, _ = in.Lstat(s.path)
	h, err := openFile(in, s.path, s.readOnly, healLockTimeout, false)
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

// unchanged reports whether the same file is still at the path: Reopen may have waited for commits meanwhile.
func (r *Candidate) unchanged(now fs.FileInfo) bool {
	if r.info == nil || now == nil {
		return r.info == nil && now == nil
	}
	return os.SameFile(now, r.info)
}

// Reopen replaces an abandoned handle by the candidate, or by a fresh file in its place. lost says that the file lacks
// some of what was committed, and kept is the quarantined file if there is one. A fresh file takes over from. With
// fail, a damaged file stays where it is. The caller keeps commits from running.
func (s *Store) Reopen(
	old *Handle, found Candidate, in *disk.Dir, from *Catalog, fail bool,
) (h *Handle, how string, lost bool, kept *Quarantined, err error) {
	h, identity, mark, err := found.h, found.identity, found.mark, found.Err
	if s.readOnly {
		if err == nil && (identity != s.identity || mark != s.mark) {
			err = errors.Join(fmt.Errorf("%w: reopen it", ErrMoved), h.Close())
		}
		return h, "it was reopened", false, nil, err
	}
	now, statErr := in.Lstat(s.path)
	same := statErr == nil && os.SameFile(now, old.info)
	if (err != nil || identity != s.identity) && !found.unchanged(now) {
		return nil, "", false, nil, errors.Join(ErrMoved, err, found.Close()) // the next attempt finds it
	}
	if in != s.Dir() && (err == nil && identity != s.identity || err != nil && !errors.Is(err, fs.ErrNotExist)) {
		// Files make way only in the cache's own directory.
		return nil, "", false, nil, errors.Join(ErrOtherCache, err, found.Close())
	}
	switch {
	case err == nil && identity == s.identity && same && mark >= from.Mark:
		if err = h.repairCounts(h.update); err != nil {
			return nil, "", false, nil, errors.Join(err, h.Close())
		}
		return h, "it was reopened", false, nil, nil
	case err == nil && identity == s.identity:
		if err = errors.Join(h.update(from.write), h.repairCounts(h.update)); err != nil {
			return nil, "", false, nil, errors.Join(err, h.Close())
		}
		return h, "an older copy was opened", true, nil, nil
	case err == nil:
		fresh, kept, err := s.quarantine(damaged{in: in}, replacedSuffix, ErrMoved, from)
		return fresh, "a fresh file has replaced another cache", true, kept, errors.Join(err, h.Close())
	case errors.Is(err, fs.ErrNotExist):
		fresh, kept, err := s.quarantine(damaged{in: in}, corruptSuffix, nil, from)
		return fresh, "a fresh file was created because there was none", true, kept, err
	case !errors.Is(err, errs.ErrCorrupt) && !(same && errors.Is(err, errs.ErrFormat)), fail, !CanReplace:
		return nil, "", false, nil, err
	}
	f, _, lockErr := openOwned(in, s.path, os.O_RDWR, healLockTimeout)
	if lockErr != nil {
		return nil, "", false, nil, errors.Join(err, lockErr)
	}
	fresh, kept, quarantineErr := s.quarantine(damaged{in: in, file: f}, corruptSuffix, err, from)
	if fresh == nil || fresh.file != f {
		f.Close()
	}
	return fresh, "a fresh file has replaced a damaged one", true, kept, quarantineErr
}

// Quarantined is a file that was quarantined.
type Quarantined struct {
	Path string   // "" if it could not be kept
	Why  error    // nil if it was only in the way
	From *Catalog // what the fresh file took over
}

// quarantine is the function quarantine with path and attributes of the store's file.
func (s *Store) quarantine(
	d damaged, suffix string, why error, from *Catalog,
) (h *Handle, kept *Quarantined, err error) {
	if d.path = s.path; d.file != nil {
		d.like, err = disk.AttributesOf(d.file)
	} else {
		d.like, err = s.Attributes()
	}
	if err != nil {
		return nil, nil, err
	}
	h, quarantined, err := quarantine(d, suffix, from)
	if err == nil && (quarantined != "" || d.file != nil) {
		kept = &Quarantined{quarantined, why, from}
	}
	return h, kept, err
}
