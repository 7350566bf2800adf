package keepcache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/disk"
)

// reopened is what is found at the path of a file that is to be opened anew.
type reopened struct {
	h        *handle // nil if it cannot be opened
	identity [16]byte
	mark     uint64
	err      error       // why it cannot
	info     fs.FileInfo // of what was at the path; nil if nothing was
}

func (r *reopened) close() error {
	if r.h == nil {
		return nil
	}
	return r.h.close()
}

// open opens what is at the path.
func (hl *healer) open(in *disk.Dir) (r reopened) {
	s := hl.db.store
	r.info, _ = in.Lstat(s.path)
	h, err := openFile(in, s.path, s.readOnly, healLock, false)
	if err != nil {
		r.err = err
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
		r.err = errors.Join(err, h.close())
		return r
	}
	r.h = h
	return r
}

// stays reports whether there is still at the path what was found: commits may have been waited for meanwhile.
func (r *reopened) stays(now fs.FileInfo) bool {
	if r.info == nil || now == nil {
		return r.info == nil && now == nil
	}
	return os.SameFile(now, r.info)
}

// reopen makes what was found the file that is used instead of an abandoned handle's, or a fresh one in its place. lost says
// that the file has not everything that was committed. The caller keeps commits from running.
func (hl *healer) reopen(old *handle, found reopened, in *disk.Dir) (h *handle, how string, lost bool, err error) {
	db, s := hl.db, hl.db.store
	h, identity, mark, err := found.h, found.identity, found.mark, found.err
	if s.readOnly {
		if err == nil && (identity != s.identity || mark != s.mark) {
			err = errors.Join(fmt.Errorf("%w: open it anew", errMoved), h.close())
		}
		return h, "it was opened anew", false, err
	}
	now, statErr := in.Lstat(s.path)
	same := statErr == nil && os.SameFile(now, old.info)
	if (err != nil || identity != s.identity) && !found.stays(now) {
		return nil, "", false, errors.Join(errMoved, err, found.close()) // the next attempt finds it
	}
	if in != s.dir() && (err == nil && identity != s.identity || err != nil && !errors.Is(err, fs.ErrNotExist)) {
		return nil, "", false, errors.Join(errTaken, err, found.close()) // only in its own directory does anything make way
	}
	from := db.heritage()
	switch {
	case err == nil && identity == s.identity && same && mark >= from.mark:
		if err = h.mendCounts(h.update); err != nil {
			return nil, "", false, errors.Join(err, h.close())
		}
		return h, "it was opened anew", false, nil
	case err == nil && identity == s.identity:
		if err = errors.Join(h.update(from.write), h.mendCounts(h.update)); err != nil {
			return nil, "", false, errors.Join(err, h.close())
		}
		return h, "an older copy was opened", true, nil
	case err == nil:
		fresh, err := hl.putAside(damaged{in: in}, replacedSuffix, errMoved, from)
		return fresh, "a fresh file has taken the place of another cache", true, errors.Join(err, h.close())
	case errors.Is(err, fs.ErrNotExist):
		fresh, err := hl.putAside(damaged{in: in}, corruptSuffix, nil, from)
		return fresh, "a fresh file was made, because there was none", true, err
	case !errors.Is(err, ErrCorrupt) && !(same && errors.Is(err, ErrFormat)), db.options.OnCorruption == Fail, !canReplace:
		return nil, "", false, err
	}
	f, _, lockErr := openOwned(in, s.path, os.O_RDWR, healLock)
	if lockErr != nil {
		return nil, "", false, errors.Join(err, lockErr)
	}
	fresh, asideErr := hl.putAside(damaged{in: in, file: f}, corruptSuffix, err, from)
	if fresh == nil || fresh.file != f {
		f.Close()
	}
	return fresh, "a fresh file has taken the place of a damaged one", true, asideErr
}

// putAside is quarantine, and has it told. Path and attributes it fills in.
func (hl *healer) putAside(d damaged, suffix string, why error, from *heritage) (h *handle, err error) {
	s := hl.db.store
	if d.path = s.path; d.file != nil {
		d.like, err = disk.AttributesOf(d.file)
	} else {
		d.like, err = s.attributes()
	}
	if err != nil {
		return nil, err
	}
	h, aside, err := quarantine(d, suffix, from)
	if err == nil && (aside != "" || d.file != nil) {
		hl.kept = append(hl.kept, func() { hl.quarantined(aside, why, from) })
	}
	return h, err
}
