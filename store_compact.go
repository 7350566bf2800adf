package keepcache

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/disk"
)

// A compaction writes a successor of the file beside it while the file is in use. It copies the entries in the
// order of their keys, in short read transactions; meanwhile each change notes its key, and noted keys are
// copied anew until few are left. Then changes of the file stop for a moment, the last noted keys and the tables
// follow, the successor is synced and takes the file's name. Writers do not wait for that: their writes are in
// memory and journal, and the next commit takes them into the successor, which has the identity and the commit
// mark of the file. A crash before the renaming leaves the old file whole, and one after it the new one.
type successor struct {
	store *store
	path  string
	file  *os.File
	db    *bolt.DB

	front placed // everything before it has been copied
	done  bool   // everything has
	rows  [][]byte
	size  int   // bytes of rows
	bytes int64 // of keys and records copied, for the progress
}

const (
	copyBytes   = 4 << 20  // copied in one transaction
	rowsBytes   = 32 << 20 // of expiry rows that wait to be sorted: they come in the order of the entries
	notesMost   = 1 << 16  // noted keys for which the copying is interrupted, so that memory is bounded
	notesFew    = 1 << 12  // noted keys that may be left for the moment in which no change is made
	catchUps    = 16       // rounds of catching up after which that moment comes anyway
	copyPercent = 0.95     // of a page that is filled: a full one would be split by the next change
)

// successorPath returns where the successor of the file at path is made.
func successorPath(path string) string { return path + ".compact" }

// compact replaces the file by a copy without free pages. progress is told how many bytes of keys and records
// have been copied.
func (s *store) compact(ctx context.Context, progress func(int64)) (err error) {
	next, err := s.newSuccessor()
	if err != nil {
		return err
	}
	s.writing.Lock()
	s.noted = newNotes()
	s.writing.Unlock()
	old, err := next.replace(ctx, progress)
	if old == nil {
		s.writing.Lock()
		s.noted = nil
		s.writing.Unlock()
		return errors.Join(err, next.db.Close(), disk.Remove(next.path))
	}
	// Nobody uses the old file any more; freeing its blocks takes a while.
	return errors.Join(err, old.Close())
}

// newSuccessor makes an empty file that is locked, as every later holder of the file's name has to be.
func (s *store) newSuccessor() (*successor, error) {
	path := successorPath(s.path)
	if err := disk.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var created *os.File
	db, err := openBolt(path, false, time.Second, func(path string, _ int, _ os.FileMode) (f *os.File, err error) {
		if f, err = disk.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode); err != nil {
			return nil, err
		}
		created = f
		return f, errors.Join(f.Chmod(s.info.Mode().Perm()), lockFile(f, true, 0))
	})
	if err == nil {
		db.NoSync, db.NoGrowSync = true, true
		n := &successor{store: s, path: path, file: created, db: db}
		if err = n.prepare(); err == nil {
			return n, nil
		}
		db.Close()
	}
	if created != nil {
		created.Close()
		disk.Remove(path)
	}
	return nil, err
}

// prepare makes the buckets of the file.
func (n *successor) prepare() error {
	return n.db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{metaBucket, bucketsBucket, entriesBucket, expiryBucket, usageBucket} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
}

// replace fills the successor and puts it in the place of the file. It returns the old file, or nil if that is
// still in its place.
func (n *successor) replace(ctx context.Context, progress func(int64)) (old *bolt.DB, err error) {
	s := n.store
	for !n.done {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := s.view(n.copyNext); err != nil {
			return nil, err
		}
		progress(n.bytes)
		if s.countNoted() > notesMost {
			if err := n.catchUp(false); err != nil {
				return nil, err
			}
		}
	}
	for range catchUps {
		if err := errors.Join(ctx.Err(), n.catchUp(false)); err != nil {
			return nil, err
		}
		if err := n.db.Sync(); err != nil { // so that little is left to be synced later
			return nil, err
		}
		if s.countNoted() < notesFew {
			break
		}
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := n.catchUp(true); err != nil {
		return nil, err
	}
	if err := s.view(n.copyTables); err != nil {
		return nil, err
	}
	n.db.NoSync, n.db.NoGrowSync = false, false
	if err := n.db.Sync(); err != nil {
		return nil, err
	}
	if old, err = n.install(); err != nil {
		return nil, err
	}
	// Only now may the journal let go of what the next commits bring: a power cut could bring back the old name.
	if err = disk.SyncDir(filepath.Dir(s.path)); err != nil {
		s.unsettled = true // it is tried again before the next change
	}
	return old, err
}

func (s *store) countNoted() int {
	s.writing.Lock()
	defer s.writing.Unlock()
	return len(s.noted.keys)
}

// copyNext copies some more entries.
func (n *successor) copyNext(from *bolt.Tx) error {
	return n.db.Update(func(to *bolt.Tx) error {
		w := forwards{tx: from}
		book := &ledger{deltas: make(map[uint64]usage)}
		var b *bolt.Bucket
		id, size := uint64(0), 0
		for w.seek(n.front); w.k != nil && size < copyBytes; w.next() {
			if b == nil || w.id != id {
				id = w.id
				var err error
				if b, err = to.Bucket(entriesBucket).CreateBucketIfNotExists(encodeUint64(id)); err != nil {
					return err
				}
				b.FillPercent = copyPercent
			}
			row, rec := repairRow(w.k, w.v)
			if row != never {
				n.rows = append(n.rows, expiryKey(row, id, w.k))
				n.size += 16 + len(w.k)
			}
			if err := b.Put(w.k, joinRow(row, w.k, rec)); err != nil {
				return err
			}
			book.add(id, w.k, rec)
			size += len(w.k) + len(w.v)
			n.bytes += int64(len(w.k) + len(rec))
		}
		n.front, n.done = placed{w.id, bytes.Clone(w.k)}, w.k == nil
		if n.size > rowsBytes || n.done {
			if err := n.putRows(to); err != nil {
				return err
			}
		}
		return book.enter(to)
	})
}

// repairRow takes a stored value apart. A damaged index row is made anew.
func repairRow(key, stored []byte) (row int64, record []byte) {
	row, record = splitRow(stored, key)
	if row == unknown {
		row = goneAtOf(record)
	}
	return row, record
}

// putRows puts the expiry rows that have gathered, in their order.
func (n *successor) putRows(to *bolt.Tx) error {
	slices.SortFunc(n.rows, bytes.Compare)
	expiry := to.Bucket(expiryBucket)
	expiry.FillPercent = copyPercent
	for _, row := range n.rows {
		if err := expiry.Put(row, nil); err != nil {
			return err
		}
	}
	n.rows, n.size = nil, 0
	return nil
}

// catchUp copies the keys that changed since the last time anew. paused says that the caller keeps the file
// from changing.
func (n *successor) catchUp(paused bool) error {
	s := n.store
	if !paused {
		s.writing.Lock()
	}
	changed := s.noted.keys
	s.noted = newNotes()
	s.mu.RLock()
	defer s.mu.RUnlock()
	var from *bolt.Tx
	err := ErrClosed
	if s.db != nil {
		from, err = s.db.Begin(false) // sees all that is noted, because no change is on its way
	}
	if !paused {
		s.writing.Unlock()
	}
	if err != nil {
		return err
	}
	defer from.Rollback()
	keys := make([]noteKey, 0, len(changed))
	for k := range changed {
		if n.done || k.before(n.front) { // what lies ahead will be copied anyway
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b noteKey) int { return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.key, b.key)) })
	if len(keys) == 0 {
		return nil
	}
	return n.db.Update(func(to *bolt.Tx) error {
		if err := n.putRows(to); err != nil {
			return err
		}
		book := &ledger{deltas: make(map[uint64]usage)}
		for _, k := range keys {
			var stored []byte
			if b := entriesOf(from, k.id); b != nil {
				stored = b.Get([]byte(k.key))
			}
			if err := transfer(to, k.id, []byte(k.key), stored, book); err != nil {
				return err
			}
		}
		return book.enter(to)
	})
}

func (k noteKey) before(p placed) bool {
	return k.id < p.id || k.id == p.id && k.key < string(p.key)
}

// transfer makes the entry of a key what the file has stored there, which is nil for none.
func transfer(to *bolt.Tx, id uint64, key, stored []byte, book *ledger) error {
	b, expiry := entriesOf(to, id), to.Bucket(expiryBucket)
	if b == nil {
		if stored == nil {
			return nil
		}
		var err error
		if b, err = to.Bucket(entriesBucket).CreateBucket(encodeUint64(id)); err != nil {
			return err
		}
	}
	if row, old := splitRow(b.Get(key), key); old != nil {
		book.remove(id, key, old)
		if err := dropRow(expiry, row, id, key, old); err != nil {
			return err
		}
	}
	if stored == nil {
		return b.Delete(key)
	}
	row, rec := repairRow(key, stored)
	if row != never {
		if err := expiry.Put(expiryKey(row, id, key), nil); err != nil {
			return err
		}
	}
	book.add(id, key, rec)
	return b.Put(key, joinRow(row, key, rec))
}

// copyTables copies what is not about entries: identity, commit mark, names and ids, invalidated tags.
func (n *successor) copyTables(from *bolt.Tx) error {
	return n.db.Update(func(to *bolt.Tx) error {
		for _, name := range [][]byte{metaBucket, bucketsBucket, tagsBucket} {
			source := from.Bucket(name)
			if source == nil {
				continue // only the tags may be missing
			}
			target, err := to.CreateBucketIfNotExists(name)
			if err != nil {
				return err
			}
			if err := source.ForEach(target.Put); err != nil {
				return err
			}
			if err := target.SetSequence(source.Sequence()); err != nil {
				return err
			}
		}
		return nil
	})
}

// install gives the successor the file's name and has everybody use it. The caller keeps the file from changing.
func (n *successor) install() (old *bolt.DB, err error) {
	s := n.store
	tx, err := n.db.Begin(false)
	if err != nil {
		return nil, err
	}
	fresh := snapshotOf(tx)
	s.mu.Lock()
	defer s.mu.Unlock()
	now, err := disk.Stat(s.path)
	switch {
	case s.db == nil:
		err = ErrClosed
	case err == nil && !os.SameFile(now, s.info):
		err = errMoved
	case err == nil:
		err = n.rename()
	}
	if err != nil {
		if fresh != nil {
			tx.Rollback()
		}
		return nil, err
	}
	// From here on the successor is the file, whatever happens.
	s.lookups.Lock()
	last := s.shared
	s.shared = fresh
	s.lookups.Unlock()
	if last != nil {
		last.tx.Rollback()
	}
	old, s.db, s.file, s.dirty, s.noted = s.db, n.db, n.file, true, nil
	if info, err := disk.Stat(s.path); err == nil {
		s.info = info
	}
	return old, nil
}

// rename gives the successor the file's name. It looks for itself whether one that failed was done: then it is the file that
// the next process will open, and whatever went into the old one would be lost.
func (n *successor) rename() error {
	err := disk.Rename(n.path, n.store.path)
	if err == nil {
		return nil
	}
	ours, e := n.file.Stat()
	if e != nil {
		return err
	}
	now, e := disk.Stat(n.store.path)
	if e != nil || !os.SameFile(ours, now) {
		return err
	}
	return nil
}

var errMoved = errors.New("the file was moved or replaced while it was open")

// free returns how many pages of the file are free, and their bytes. A file that is open for reading only has
// them listed if it is at rest.
func (s *store) free() (pages int, bytes int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.db == nil:
		return 0, 0
	case s.readOnly:
		pages = s.listed
	default:
		st := s.db.Stats()
		pages = st.FreePageN + st.PendingPageN
	}
	return pages, int64(pages) * int64(s.db.Info().PageSize)
}

// room returns an error if the disk has no room for a successor.
func (s *store) room() error {
	file, _, err := s.size()
	if err != nil {
		return err
	}
	_, free := s.free()
	need := file - free + growLeast
	if has := diskRoom(filepath.Dir(s.path)); has >= 0 && has < need {
		return fmt.Errorf("the disk has no room for a copy: %d bytes are needed, %d are free", need, has)
	}
	return nil
}
