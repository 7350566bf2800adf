package keepcache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/disk"
)

// store is the one room that touches bbolt. Every transaction in it is short, and what leaves it is a copy.
// Its methods may be called from any goroutine.
type store struct {
	path     string
	readOnly bool
	identity [16]byte
	taken    bool // Open is over, and the cache in use

	renewing sync.Mutex   // held while the snapshot is renewed, so that no older one replaces a newer one
	lookups  sync.RWMutex // held shared by each use of what follows, exclusively to change it
	shared   *snapshot    // nil where none may be held
	withheld int          // transactions under way beside which no snapshot may be held

	current atomic.Pointer[handle] // nil once closed
	noted   *notes                 // keys that changed; nil unless a compaction wants to know; protected by the token of writing
	copied  atomic.Bool            // a compaction is on its way, so that changes should be small
	sick    chan struct{}          // gets a token when a handle is poisoned or barred

	mark     uint64 // the commit mark, where the file is open for reading only
	intruder string // the file that was last kept aside because it had taken the path; used by one healer
}

// change is what a transaction does to one key.
type change struct {
	id       uint64
	key      []byte
	record   []byte // sealed; nil removes the key
	goneAt   int64  // of the record
	revision uint64
}

// naming points a bucket's name at an id, or invalidates a tag. An id of 0 takes the name away.
type naming struct {
	name     string
	id       uint64
	old      uint64 // the id that the name stood for until now, or 0
	tag      bool   // name is the tag that is invalidated, and there is no id
	revision uint64 // its own
}

// openStore opens the file at path, creating it if it is absent and readOnly is false.
// See examine for trusting.
func openStore(path string, readOnly bool, lockTimeout time.Duration, trusting bool) (*store, error) {
	exists, err := lookAt(path)
	if err != nil {
		return nil, err
	}
	if exists {
		// All names of its directory must lead to the same journal.
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, err
		}
	} else {
		if readOnly {
			return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
		}
		if err := createFile(path, initFile); err != nil {
			return nil, err
		}
	}
	h, err := openFile(path, readOnly, lockTimeout, trusting)
	if err != nil {
		return nil, err
	}
	return newStore(path, readOnly, h)
}

// openFile opens and locks the file at path and proves that it is one of ours. See examine for trusting.
func openFile(path string, readOnly bool, lockTimeout time.Duration, trusting bool) (*handle, error) {
	var found examined
	h, err := openHandle(path, readOnly, lockTimeout, func(path string, flag int, _ os.FileMode) (f *os.File, err error) {
		f, found, err = openLocked(path, flag, lockTimeout, trusting)
		return f, err
	})
	if err == nil {
		h.found = found
	}
	return h, err
}

// newStore builds a store upon an open file, which it closes if that is none of ours.
func newStore(path string, readOnly bool, h *handle) (s *store, err error) {
	s = &store{path: path, readOnly: readOnly, sick: make(chan struct{}, 1)}
	s.use(h)
	if s.identity, err = h.recognise(); err == nil {
		s.mark, _, err = s.revisions()
	}
	if err == nil && !readOnly {
		// A file that is refused stays as it is.
		var highest uint64
		if _, _, highest, err = s.table(); err == nil {
			err = checkNumber(highest)
		}
		if err == nil {
			err = h.makeDurable()
		}
	}
	if err == nil {
		err = s.renew()
	}
	if err == nil && !readOnly {
		disk.Remove(successorPath(path)) // of a compaction that a crash ended: only the owner of the lock makes one
		removeStrays(filepath.Dir(path), filepath.Base(path)+backupSuffix)
	}
	if err == nil && !readOnly {
		err = s.mendCounts()
	}
	if err != nil {
		s.release()
		return nil, errors.Join(err, h.close())
	}
	return s, nil
}

// use makes h the one that everybody uses.
func (s *store) use(h *handle) {
	h.sick = func() {
		select {
		case s.sick <- struct{}{}:
		default:
		}
	}
	s.current.Store(h)
}

// recognise checks that the file is a cache of ours, in a format that we read, and returns its identity.
func (h *handle) recognise() (identity [16]byte, err error) {
	err = h.view(func(tx *bolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		if meta == nil {
			return ErrFormat
		}
		if err := checkFormat(meta.Get(metaFormat)); err != nil {
			return err
		}
		if copy(identity[:], meta.Get(metaIdentity)) != len(identity) || len(meta.Get(metaSequence)) != 8 {
			return fmt.Errorf("%w: bucket meta is incomplete", ErrCorrupt)
		}
		for _, name := range [][]byte{bucketsBucket, entriesBucket, expiryBucket, usageBucket} {
			if tx.Bucket(name) == nil {
				return fmt.Errorf("%w: bucket %s is missing", ErrCorrupt, name)
			}
		}
		return nil
	})
	if errors.Is(err, ErrUnavailable) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err) // it has only just been opened
	}
	return identity, err
}

// view runs fn in a read transaction. What fn keeps must be a copy.
func (s *store) view(fn func(*bolt.Tx) error) error {
	for {
		h := s.current.Load()
		if h == nil {
			return ErrClosed
		}
		if err := h.view(fn); err != errSuperseded {
			return err
		}
	}
}

// update runs fn in a write transaction, which must be short: other writers wait for it. When it returns,
// look-ups see what fn did.
func (s *store) update(fn func(*bolt.Tx) error) error {
	h, err := s.lockRead()
	if err != nil {
		return err
	}
	return h.apart(func() error {
		if err := h.update(fn); err != nil {
			return err
		}
		return s.renew() // before the next change, so that no older one replaces it
	})
}

// lockRead is lock for a change of entries: it waits until a compaction has looked at what is noted, where that is
// much, as long as it takes steps.
func (s *store) lockRead() (*handle, error) {
	for {
		h, err := s.lock()
		if err != nil || !s.noted.full() {
			return h, err
		}
		looked := s.noted.looked
		h.unlock()
		timer := time.NewTimer(hungAfter)
		select {
		case <-looked:
		case <-h.dead:
		case <-timer.C:
			err = fmt.Errorf("%w: %w", ErrUnavailable, errHung)
		}
		timer.Stop()
		if err != nil {
			return nil, err
		}
	}
}

// lock waits for the token without which nobody changes the file, and returns the handle whose it is. Who gets it
// gives it back by unlock, or hands it to apart.
func (s *store) lock() (*handle, error) {
	timer := time.NewTimer(hungAfter)
	defer timer.Stop()
	for {
		h := s.current.Load()
		if h == nil {
			return nil, ErrClosed
		}
		if err := h.err(); err != nil {
			return nil, err
		}
		select {
		case h.writing <- struct{}{}:
			if s.current.Load() == h {
				return h, nil
			}
			h.unlock()
		case <-h.dead:
		case <-timer.C:
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, errHung)
		}
	}
}

// book returns an empty ledger for a transaction of update.
func (s *store) book() *ledger { return &ledger{make(map[uint64]usage), s.noted} }

// close stores the list of free pages and a clean mark, so that the next Open need not walk the whole file, and releases
// the file.
func (s *store) close() error {
	h, err := s.lock() // a change that is under way ends
	if err != nil {
		if h = s.current.Load(); h == nil {
			return nil
		}
	}
	s.current.Store(nil)
	s.release()
	tidy := s.taken && !s.readOnly && !h.found.clean // what an earlier close could not do
	switch {
	case err != nil:
	case h.barred.Load() == nil && (h.dirty || tidy && !h.found.listed):
		h.db.NoFreelistSync = false
		err = h.apart(func() error { return h.update(func(*bolt.Tx) error { return nil }) })
		if h.err() == nil && h.barred.Load() != nil {
			err = nil // it was taken away: there is no next Open of it
		}
	default:
		h.unlock()
	}
	if err == nil && h.barred.Load() == nil && (h.dirty || tidy) {
		// Without the mark, the next Open takes longer.
		_ = markClean(s.path, h.info)
	}
	return errors.Join(err, h.close())
}

// table returns the ids of all buckets by name, the ids that no name points at any more, and the highest
// id ever given out.
func (s *store) table() (ids map[string]uint64, retired []uint64, highest uint64, err error) {
	ids = make(map[string]uint64)
	err = s.view(func(tx *bolt.Tx) error {
		names := tx.Bucket(bucketsBucket)
		highest = names.Sequence()
		named := make(map[uint64]bool)
		err := names.ForEach(func(name, id []byte) error {
			if len(id) != 8 || !validName(string(name)) {
				return fmt.Errorf("%w: the table of buckets has a malformed row", ErrCorrupt)
			}
			ids[string(name)] = decodeUint64(id)
			named[decodeUint64(id)] = true
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket(entriesBucket).ForEachBucket(func(id []byte) error {
			if len(id) == 8 && !named[decodeUint64(id)] {
				retired = append(retired, decodeUint64(id))
			}
			return nil
		})
	})
	return ids, retired, highest, err
}

// revisions returns the commit mark, up to which every revision is in the file, and the highest revision
// of anything in it.
func (s *store) revisions() (mark, highest uint64, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		mark, highest = revisionsIn(tx)
		if highest >= mostNumber {
			return fmt.Errorf("%w: revision %d", ErrCorrupt, highest)
		}
		return nil
	})
	return mark, highest, err
}

func revisionsIn(tx *bolt.Tx) (mark, highest uint64) {
	meta := tx.Bucket(metaBucket)
	mark = decodeUint64(meta.Get(metaSequence))
	return mark, max(mark, decodeUint64(meta.Get(metaHighest)))
}

// fillPercent is how full a page is left when it is split. Measured with 100,000 entries of 250 bytes, by
// the size of the file over the logical bytes: 1.46 after they came in ascending order (2.70 with bbolt's
// default of 0.5) and 1.84 in random order (2.29); 2.01 and 2.69 after each was overwritten ten times (3.69 and
// 2.76). Commits are sorted, so pages are mostly filled from one end.
const fillPercent = 0.9

// sizeOf estimates by how much a transaction may make the file grow: what it writes, and the pages on the
// way to it.
func sizeOf(changes []*change) (bytes int64) {
	const pages = 16 << 10
	for _, c := range changes {
		bytes += int64(len(c.key)+len(c.record)) + pages
	}
	return bytes
}

// apply makes the changes, which are sorted by id and key, and the namings in one transaction, after which
// the file contains every revision up to mark. after, if there is one, is part of the transaction.
func (s *store) apply(names []naming, changes []*change, mark uint64, after func(freeing) error) error {
	defer s.withhold(sizeOf(changes))()
	return s.update(func(tx *bolt.Tx) error {
		table := tx.Bucket(bucketsBucket)
		if err := putTags(tx, names); err != nil {
			return err
		}
		for _, n := range names {
			if n.tag {
				continue
			}
			if err := applyNaming(table, n); err != nil {
				return err
			}
		}
		entries, expiry := tx.Bucket(entriesBucket), tx.Bucket(expiryBucket)
		expiry.FillPercent = fillPercent
		a := applier{expiry: expiry, book: s.book(), room: make([]byte, 0, storedBytes(changes))}
		for i, c := range changes {
			if i == 0 || c.id != changes[i-1].id {
				b, err := entries.CreateBucketIfNotExists(encodeUint64(c.id))
				if err != nil {
					return err
				}
				b.FillPercent = fillPercent
				a.entries, a.cursor = b, b.Cursor()
			}
			if err := a.apply(c); err != nil {
				return err
			}
		}
		if err := putSorted(expiry, a.rows); err != nil {
			return err
		}
		if err := a.book.enter(tx); err != nil {
			return err
		}
		if after != nil {
			if err := after(freeing{s, tx}); err != nil {
				return err
			}
		}
		return putRevisions(tx.Bucket(metaBucket), mark, changes)
	})
}

// putRevisions stores the mark, and the highest revision where a transaction went beyond the mark: one that
// is followed by others of the same commit, or that caught writes that came while it was gathered.
func putRevisions(meta *bolt.Bucket, mark uint64, changes []*change) error {
	highest := decodeUint64(meta.Get(metaHighest))
	before := highest
	for _, c := range changes {
		highest = max(highest, c.revision)
	}
	if highest > before {
		if err := meta.Put(metaHighest, encodeUint64(highest)); err != nil {
			return err
		}
	}
	return meta.Put(metaSequence, encodeUint64(mark))
}

func applyNaming(table *bolt.Bucket, n naming) error {
	if n.id == 0 {
		return table.Delete([]byte(n.name))
	}
	if n.id > table.Sequence() {
		if err := table.SetSequence(n.id); err != nil {
			return err
		}
	}
	return table.Put([]byte(n.name), encodeUint64(n.id))
}

// applier makes changes in one transaction.
type applier struct {
	entries *bolt.Bucket // of the bucket at hand
	cursor  *bolt.Cursor // in it
	expiry  *bolt.Bucket
	book    *ledger
	rows    [][]byte // of the expiry index, which are still to be put
	room    []byte   // for the stored values, which bbolt keeps until the transaction ends: one allocation for all
}

// storedBytes returns how many bytes of stored values changes bring.
func storedBytes(changes []*change) (n int) {
	for _, c := range changes {
		if c.record != nil {
			n += rowSize + len(c.record)
		}
	}
	return n
}

// apply puts or removes one entry, takes its expiry row off the index where that has to go, and says which is to be
// put. The row of an entry is never later than the
// time it is gone, so a row that stands early enough stays as it is: the sweeper will move it.
func (a *applier) apply(c *change) error {
	k, stored := a.cursor.Seek(c.key)
	if !bytes.Equal(k, c.key) {
		stored = nil
	}
	row, old := splitRow(stored, c.key)
	if old != nil {
		a.book.remove(c.id, c.key, old)
	}
	if c.record == nil {
		if old == nil {
			return nil
		}
		if err := dropRow(a.expiry, row, c.id, c.key, old); err != nil {
			return err
		}
		return a.entries.Delete(c.key)
	}
	if c.goneAt == never || row == never || row == unknown || row > c.goneAt {
		if err := dropRow(a.expiry, row, c.id, c.key, old); err != nil {
			return err
		}
		if row = c.goneAt; row != never {
			a.rows = append(a.rows, expiryKey(row, c.id, c.key))
		}
	}
	a.book.add(c.id, c.key, c.record)
	at := len(a.room)
	a.room = appendRow(a.room, row, c.key, c.record)
	return a.entries.Put(c.key, a.room[at:len(a.room):len(a.room)])
}

// item is one entry as the file holds it.
type item struct {
	key    []byte
	record []byte
}

// Pages of an iteration are short, so that no transaction lasts and no slow reader keeps old pages alive.
const (
	pageItems = 256
	pageBytes = 256 << 10
)

// page returns copies of the entries of a bucket from key from on, as long as they begin with prefix, and
// whether more may follow. A page has at least one entry if there is one, and stops at pageItems or
// pageBytes.
func (s *store) page(id uint64, from, prefix []byte) (items []item, more bool, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		b := entriesOf(tx, id)
		if b == nil {
			return nil
		}
		c, size := b.Cursor(), 0
		for k, v := c.Seek(from); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if len(items) == pageItems || size >= pageBytes {
				more = true
				return nil
			}
			_, rec := splitRow(v, k)
			both := append(append(make([]byte, 0, len(k)+len(rec)), k...), rec...)
			items = append(items, item{key: both[:len(k):len(k)], record: both[len(k):]})
			size += len(both)
		}
		return nil
	})
	return items, more, err
}

// size returns the size of the file in bytes, and the usage of each id.
func (s *store) size() (file int64, used map[uint64]usage, err error) {
	err = s.view(func(tx *bolt.Tx) (err error) {
		file = tx.Size()
		used, err = usedIn(tx)
		return err
	})
	return file, used, err
}

func entriesOf(tx *bolt.Tx, id uint64) *bolt.Bucket {
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], id)
	return tx.Bucket(entriesBucket).Bucket(key[:])
}
