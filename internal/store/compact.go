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

// A compaction writes a successor of the file while the file is in use. It copies the entries in key order, in short
// read transactions. Meanwhile each change marks its key as dirty, and dirty keys are copied again until few are left.
// Then changes of the file stop briefly: the last dirty keys and the tables are copied, and the successor is synced and
// takes the file's name. Writers do not wait for that. Their writes are in memory and journal, and the next commit
// brings them into the successor, which has the same identity and commit mark. A crash before the rename leaves the old
// file intact, and a crash after it the new one.
type successor struct {
	store  *Store
	dir    *disk.Dir // where it is made, usually the file's directory
	path   string
	handle *Handle

	copiedTo     position // everything before it has been copied
	done         bool     // everything has been copied
	placeholders [][]byte // keys that reserve space for the entries that follow
	rows         [][]byte
	reclaim      bool  // the file has lost its name, and the successor takes it back
	rowBytes     int   // size of rows in bytes
	newBytes     int64 // bytes of records that were written while the last step was copied
	bytes        int64 // keys and records copied, for the progress
}

const (
	copyBytes = 2 << 20  // copied in one transaction, and synced after it: writers wait for the same disk
	rowsBytes = 16 << 20 // expiry rows that wait to be sorted; they come in the order of the entries

	// If changes come as fast as the disk accepts them, a compaction cannot keep up. So changes wait when so many keys are
	// dirty, or records of so many bytes were written, until the compaction has copied them.
	maxDirtyKeys     = 1 << 12
	maxDirtyKeysLast = 1 << 11 // when everything has been copied
	maxDirtyBytes    = 8 << 20
	catchUpRounds    = 3 // after two rounds little is left
)

// successorPath returns the path of the successor of the file at path.
func successorPath(path string) string { return beside.Path(path, ".compact") }

// Compact replaces the file by a copy without free pages. It calls progress with the number of bytes of keys and
// records copied so far. With reclaim, the copy takes the file's name even if the file has lost it. in is the file's
// directory, or the directory that replaces it, see newdir.go of package engine.
func (s *Store) Compact(ctx context.Context, in *disk.Dir, back bool, progress func(int64)) (err error) {
	next, err := s.newSuccessor(in)
	if err != nil {
		return err
	}
	next.reclaim = back
	s.compacting.Store(true)
	defer s.compacting.Store(false)
	if err := s.trackDirtyKeys(newDirtyKeys(maxDirtyKeys)); err != nil {
		return errors.Join(err, next.handle.Close(), in.Remove(next.path))
	}
	old, err := next.replace(ctx, progress)
	if old == nil {
		_ = s.trackDirtyKeys(nil) // fails only if the handle was replaced, and then nothing is tracked any more
		return errors.Join(err, next.handle.Close(), in.Remove(next.path))
	}
	// Closing the unused old file takes a while: its blocks are freed.
	return errors.Join(err, old.Close())
}

// trackDirtyKeys starts to track changed keys, or stops if n is nil.
func (s *Store) trackDirtyKeys(n *dirtyKeys) error {
	h, err := s.lock()
	if err != nil {
		return err
	}
	defer h.unlock()
	s.dirtyKeys.wake()
	s.dirtyKeys = n
	return nil
}

// newSuccessor creates an empty file. It is locked from the beginning, as it will be when it has the file's name.
func (s *Store) newSuccessor(in *disk.Dir) (*successor, error) {
	path := successorPath(s.path)
	if err := in.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	h := s.current.Load()
	if h == nil {
		return nil, errs.ErrClosed
	}
	if err := s.checkReplaceable(h); err != nil {
		return nil, err
	}
	like, err := s.Attributes()
	if err != nil {
		return nil, err
	}
	fresh, err := createLocked(in, path, like, maxReserve) // it will be the cache file
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

// createLocked creates an empty file that is locked from the beginning and has the given attributes. It fails if there
// is a file at path. If it fails later, it removes the file. See reserve for most.
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

// prepare creates the bbolt buckets of the file.
func (n *successor) prepare() error {
	return n.handle.update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{
			format.MetaBucket, format.BucketsBucket, format.EntriesBucket, format.ExpiryBucket, format.UsageBucket,
		} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
}

// fill copies the file until only few dirty keys are left. It calls sync after each step, so that little is left to
// write at the end.
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
		} else if left >= maxDirtyKeysLast {
			if err := n.catchUp(maxDirtyKeys); err != nil {
				return err
			}
		}
		if err := sync(); err != nil {
			return err
		}
	}
	for range catchUpRounds {
		if err := errors.Join(ctx.Err(), n.catchUp(maxDirtyKeysLast)); err != nil {
			return err
		}
		if err := sync(); err != nil {
			return err
		}
		if left, err := n.pending(); err != nil {
			return err
		} else if left < maxDirtyKeysLast {
			break
		}
	}
	return nil
}

// complete copies the rest. The caller holds h's write token, so the file cannot change.
func (n *successor) complete(h *Handle) error {
	if err := n.catchUpFrom(h, maxDirtyKeysLast, func() {}); err != nil {
		return err
	}
	return h.view(n.copyTables)
}

// replace fills the successor and puts it in the place of the file. It returns the old file, or nil if that is still in
// its place.
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
	like, err := s.Attributes() // they may have changed: copying may have taken minutes
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
	// The journal may not drop what the next commits bring before this: a power cut could bring back the old file.
	if err = n.dir.Sync(s.path); err != nil {
		n.handle.Freeze(err)
	}
	return h, err
}

// pending drops dirty keys that will be copied anyway, and returns how many are left.
func (n *successor) pending() (int, error) {
	s := n.store
	h, err := s.lock()
	if err != nil {
		return 0, err
	}
	defer h.unlock()
	if s.dirtyKeys == nil {
		return 0, errSuperseded
	}
	if !n.done {
		maps.DeleteFunc(s.dirtyKeys.keys, func(k dirtyKey, _ struct{}) bool { return !k.before(n.copiedTo) })
	}
	n.newBytes = s.dirtyKeys.bytes
	s.dirtyKeys.wake()
	return len(s.dirtyKeys.keys), nil
}

// install renames the successor to the file's name and makes it the current file. The caller holds h's write token.
func (n *successor) install(h *Handle) error {
	s := n.store
	fresh, err := n.handle.snapshot()
	if err != nil {
		return err
	}
	s.renewing.Lock()
	defer s.renewing.Unlock()
	absent := false
	if s.current.Load() != h {
		err = errs.ErrClosed
	} else if absent, err = s.freeName(n.dir, h, n.reclaim); err == nil {
		err = n.rename(absent)
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
	s.dirtyKeys.wake()
	n.handle.from, s.dirtyKeys = nil, nil
	s.dir.Store(n.dir)
	s.use(n.handle)
	return nil
}

// freeName makes sure that the successor may take the file's name: the name still belongs to the file, or, with
// reclaim, a file that has taken it is quarantined. absent reports that there is no file of that name.
func (s *Store) freeName(in *disk.Dir, h *Handle, back bool) (absent bool, err error) {
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
	return false, s.quarantineIntruder(in)
}

// rename gives the successor the file's name. If renaming fails, it checks whether it was done nevertheless: then the
// next process will open the successor, and everything written to the old file would be lost.
func (n *successor) rename(absent bool) error {
	if absent { // never replace a file that another process has put there meanwhile
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
	if isMountPoint(err) {
		n.store.mountPoint.Store(n.store.current.Load())
		err = fmt.Errorf("%w: %w", errMountPoint, err)
	}
	return err
}

var ErrMoved = errors.New("the file was moved or replaced while it was open")

// Free returns how many pages of the file are free, and their size in bytes. For a file that is open for reading only,
// they are known only if it was closed cleanly.
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

// diskRoom returns how many bytes are free for us on the file's file system, or -1 if unknown.
func (s *Store) diskRoom() int64 {
	h := s.current.Load()
	if h == nil {
		return -1
	}
	h.users.RLock() // it cannot be closed meanwhile
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
	need := file - free + minGrowth
	if has := s.diskRoom(); has >= 0 && has < need {
		return fmt.Errorf("the disk has no room for a copy: %d bytes are needed, %d are free", need, has)
	}
	return nil
}
