package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
)

// A compaction writes a successor of the file beside it while the file is in use. It copies the entries in the
// order of their keys, in short read transactions; meanwhile each change notes its key, and noted keys are
// copied anew until few are left. Then changes of the file stop for a moment, the last noted keys and the tables
// follow, the successor is synced and takes the file's name. Writers do not wait for that: their writes are in
// memory and journal, and the next commit takes them into the successor, which has the identity and the commit
// mark of the file. A crash before the renaming leaves the old file whole, and one after it the new one.
type successor struct {
	store  *Store
	dir    *disk.Dir // where it is made: mostly that of the file
	path   string
	handle *Handle

	front placed   // everything before it has been copied
	done  bool     // everything has
	marks [][]byte // keys that hold the place of what follows
	rows  [][]byte
	back  bool  // the file has lost its name: the successor takes it back
	size  int   // bytes of rows
	came  int64 // bytes of records that changes brought while the last step was copied
	bytes int64 // of keys and records copied, for the progress
}

const (
	copyBytes = 2 << 20  // copied in one transaction, and synced after it: writers wait for the same disk
	rowsBytes = 16 << 20 // of expiry rows that wait to be sorted: they come in the order of the entries

	// Where changes come as fast as the disk takes them, they would come faster than a compaction can follow. So
	// they wait when that many keys are noted, or records of so many bytes, until the compaction has taken them.
	notesMost  = 1 << 12
	notesLast  = 1 << 11 // when everything has been copied
	notesBytes = 8 << 20
	catchUps   = 3 // rounds of catching up: by the second one there is little left
)

// successorPath returns where the successor of the file at path is made.
func successorPath(path string) string { return beside.Path(path, ".compact") }

// Compact replaces the file by a copy without free pages. progress is told how many bytes of keys and records
// have been copied. With back the copy takes the file's name even if the file has lost it. in is the file's directory, or another
// one that becomes its directory with that, see refuge.go of package engine.
func (s *Store) Compact(ctx context.Context, in *disk.Dir, back bool, progress func(int64)) (err error) {
	next, err := s.newSuccessor(in)
	if err != nil {
		return err
	}
	next.back = back
	s.copied.Store(true)
	defer s.copied.Store(false)
	if err := s.setNotes(newNotes(notesMost)); err != nil {
		return errors.Join(err, next.handle.Close(), in.Remove(next.path))
	}
	old, err := next.replace(ctx, progress)
	if old == nil {
		_ = s.setNotes(nil) // who takes the place of a handle that is of no more use has forgotten them
		return errors.Join(err, next.handle.Close(), in.Remove(next.path))
	}
	// Nobody uses the old file any more; freeing its blocks takes a while.
	return errors.Join(err, old.Close())
}

// setNotes begins to note the keys that change, or ends it.
func (s *Store) setNotes(n *notes) error {
	h, err := s.lock()
	if err != nil {
		return err
	}
	defer h.unlock()
	s.noted.look()
	s.noted = n
	return nil
}

// newSuccessor makes an empty file that is locked, as every later holder of the file's name has to be.
func (s *Store) newSuccessor(in *disk.Dir) (*successor, error) {
	path := successorPath(s.path)
	if err := in.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	h := s.current.Load()
	if h == nil {
		return nil, errs.ErrClosed
	}
	if err := s.replaceable(h); err != nil {
		return nil, err
	}
	like, err := s.Attributes()
	if err != nil {
		return nil, err
	}
	fresh, err := createLocked(in, path, like, reserveMost) // it is the file one day
	if err != nil {
		return nil, err
	}
	fresh.from = h
	fresh.db.NoSync, fresh.db.NoGrowSync = true, true
	n := &successor{store: s, dir: in, path: path, handle: fresh}
	if err = n.prepare(); err != nil {
		return nil, errors.Join(err, fresh.Close(), in.Remove(path))
	}
	return n, nil
}

// createLocked makes an empty file at path, where there is none, that is locked from its beginning on and has the given
// attributes. When it fails there is none again. See reserve for most.
func createLocked(in *disk.Dir, path string, like disk.Attributes, most int64) (*Handle, error) {
	var created *os.File
	h, err := openHandle(path, false, most, time.Second, func(path string, _ int, _ os.FileMode) (f *os.File, err error) {
		if f, err = in.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode); err != nil {
			return nil, err
		}
		created = f
		return f, errors.Join(like.GiveTo(f), lockFile(f, true, 0))
	})
	if err != nil && created != nil {
		created.Close()
		in.Remove(path)
	}
	return h, err
}

// prepare makes the buckets of the file.
func (n *successor) prepare() error {
	return n.handle.update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{format.MetaBucket, format.BucketsBucket, format.EntriesBucket, format.ExpiryBucket, format.UsageBucket} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
}

// fill copies what the file has until only few notes are left, and has written what it copied with sync after each step, so
// that little is left for later.
func (n *successor) fill(ctx context.Context, sync func() error, progress func(int64)) error {
	s := n.store
	for !n.done {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.View(n.copyNext); err != nil {
			return err
		}
		progress(n.bytes)
		if left, err := n.pending(); err != nil {
			return err
		} else if left >= notesLast {
			if err := n.catchUp(notesMost); err != nil {
				return err
			}
		}
		if err := sync(); err != nil {
			return err
		}
	}
	for range catchUps {
		if err := errors.Join(ctx.Err(), n.catchUp(notesLast)); err != nil {
			return err
		}
		if err := sync(); err != nil {
			return err
		}
		if left, err := n.pending(); err != nil {
			return err
		} else if left < notesLast {
			break
		}
	}
	return nil
}

// complete copies what is still missing: the copy is as the file is then, which the caller, who has h's token of writing, keeps
// from changing.
func (n *successor) complete(h *Handle) error {
	if err := n.catchUpFrom(h, notesLast, func() {}); err != nil {
		return err
	}
	return h.view(n.copyTables)
}

// replace fills the successor and puts it in the place of the file. It returns the old file, or nil if that is
// still in its place.
func (n *successor) replace(ctx context.Context, progress func(int64)) (old *Handle, err error) {
	s := n.store
	if err := n.fill(ctx, n.handle.sync, progress); err != nil {
		return nil, err
	}
	h, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer h.unlock()
	if err := n.complete(h); err != nil {
		return nil, err
	}
	n.handle.db.NoSync, n.handle.db.NoGrowSync = false, false
	like, err := s.Attributes() // the copying may have taken minutes
	if err == nil {
		err = like.GiveTo(n.handle.file)
	}
	if err != nil {
		return nil, err
	}
	if err := n.handle.sync(); err != nil {
		return nil, err
	}
	if err := n.install(h); err != nil {
		return nil, err
	}
	// Only now may the journal let go of what the next commits bring: a power cut could bring back the old name.
	if err = n.dir.Sync(s.path); err != nil {
		n.handle.Bar(err)
	}
	return h, err
}

// pending drops what is noted and lies ahead, where it will be copied anyway, and returns how many keys are left.
func (n *successor) pending() (int, error) {
	s := n.store
	h, err := s.lock()
	if err != nil {
		return 0, err
	}
	defer h.unlock()
	if s.noted == nil {
		return 0, errSuperseded
	}
	if !n.done {
		maps.DeleteFunc(s.noted.keys, func(k noteKey, _ struct{}) bool { return !k.before(n.front) })
	}
	n.came = s.noted.bytes
	s.noted.look()
	return len(s.noted.keys), nil
}

// install gives the successor the file's name and has everybody use it. The caller has h's token of writing.
func (n *successor) install(h *Handle) error {
	s := n.store
	fresh, err := n.handle.snapshot()
	if err != nil {
		return err
	}
	s.renewing.Lock()
	defer s.renewing.Unlock()
	vacant := false
	if s.current.Load() != h {
		err = errs.ErrClosed
	} else if vacant, err = s.vacate(n.dir, h, n.back); err == nil {
		err = n.rename(vacant)
	}
	if err != nil {
		fresh.end()
		return err
	}
	// From here on the successor is the file, whatever happens.
	s.lookups.Lock()
	last := s.shared
	s.shared = fresh
	s.lookups.Unlock()
	last.end()
	s.noted.look()
	n.handle.from, s.noted = nil, nil
	s.home.Store(n.dir)
	s.use(n.handle)
	return nil
}

// vacate sees to it that the file's name is free for a successor: that it is still the file's own, or, with back, that
// whatever else has it is kept aside. vacant says that nothing has it.
func (s *Store) vacate(in *disk.Dir, h *Handle, back bool) (vacant bool, err error) {
	now, err := in.Lstat(s.path)
	switch {
	case err == nil && os.SameFile(now, h.info):
		return false, nil
	case errors.Is(err, os.ErrNotExist) && back:
		return true, nil
	case errors.Is(err, os.ErrNotExist):
		return false, fmt.Errorf("%w: %w", errs.ErrUnavailable, ErrRemoved)
	case err != nil:
		return false, err
	case !back:
		return false, fmt.Errorf("%w: %w", errs.ErrUnavailable, ErrMoved)
	}
	return false, s.keepIntruder(in)
}

// rename gives the successor the file's name. It looks for itself whether one that failed was done: then it is the file that
// the next process will open, and whatever went into the old one would be lost.
func (n *successor) rename(vacant bool) error {
	if vacant { // never in the place of what another process has put there meanwhile
		err := n.dir.Link(n.path, n.store.path)
		if err == nil {
			n.dir.Remove(n.path)
			return nil
		}
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("%w: %w", errs.ErrUnavailable, ErrMoved)
		}
	}
	err := n.dir.Rename(n.path, n.store.path)
	if err == nil {
		return nil
	}
	now, e := n.dir.Lstat(n.store.path)
	if e == nil && os.SameFile(n.handle.info, now) {
		return nil
	}
	if unmoving(err) {
		n.store.unmoving.Store(n.store.current.Load())
		err = fmt.Errorf("%w: %w", errUnmoving, err)
	}
	return err
}

var ErrMoved = errors.New("the file was moved or replaced while it was open")

// Free returns how many pages of the file are free, and their bytes. A file that is open for reading only has
// them listed if it is at rest.
func (s *Store) Free() (pages int, bytes int64) {
	h := s.current.Load()
	if h == nil {
		return 0, 0
	}
	h.users.RLock()
	defer h.users.RUnlock()
	switch {
	case h.usable() != nil:
		return 0, 0
	case s.readOnly:
		pages = h.found.free
	default:
		st := h.db.Stats()
		pages = st.FreePageN + st.PendingPageN
	}
	return pages, int64(pages) * int64(h.db.Info().PageSize)
}

// diskRoom returns how many bytes are free for us on the file system of the file, or -1 if that is not known.
func (s *Store) diskRoom() int64 {
	h := s.current.Load()
	if h == nil {
		return -1
	}
	h.users.RLock() // it is not closed meanwhile
	defer h.users.RUnlock()
	if h.closed {
		return -1
	}
	return diskRoom(h.file)
}

// CheckRoom returns an error if the disk has no room for a successor.
func (s *Store) CheckRoom() error {
	file, _, err := s.Size()
	if err != nil {
		return err
	}
	_, free := s.Free()
	need := file - free + growLeast
	if has := s.diskRoom(); has >= 0 && has < need {
		return fmt.Errorf("the disk has no room for a copy: %d bytes are needed, %d are free", need, has)
	}
	return nil
}
