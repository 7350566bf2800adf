// Package store keeps the entries in a bbolt file. It is the only package that uses bbolt, except for tests. Its
// transactions are short, everything it returns is a copy, and each call of bbolt runs under a guard. It also creates,
// recognises, locks, checks, compacts, copies, quarantines and repairs the file.
package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/keyrange"
)

// Store keeps the entries of one cache in its bbolt file. Its transactions are short, and everything it returns is a
// copy. Its methods may be called from any goroutine.
type Store struct {
	path     string // absolute and without links, as of Open
	readOnly bool
	identity [16]byte
	opened   bool // Open has finished

	renewing sync.Mutex   // held while the snapshot is renewed, so that an older one never replaces a newer one
	lookups  sync.RWMutex // held shared to use shared, exclusively to change it
	shared   *snapshot    // nil if there must be none

	dir          atomic.Pointer[disk.Dir] // the file's directory; see newdir.go of package engine for when it changes
	current      atomic.Pointer[Handle]   // nil once closed
	growthMargin int64                    // bytes to add to estimates of growth; protected by the write token
	dirtyKeys    *dirtyKeys               // nil unless a compaction is running; protected by the write token
	compacting   atomic.Bool              // a compaction or backup is running, so changes should be small
	detached     atomic.Int64             // detached transactions still running; they keep using what they were given
	failed       chan struct{}            // gets a token when a handle is poisoned or frozen

	attributes     atomic.Pointer[disk.Attributes] // of the file, as last seen
	mountPoint     atomic.Pointer[Handle]          // the handle whose file was found to be a mount point
	lastCompaction atomic.Pointer[compacted]       // nil if there was none

	measured atomic.Pointer[measured] // by the last Measure

	nameBytes atomic.Int64            // what the names of buckets need of the file
	counted   atomic.Pointer[counted] // result of the last Size; nil before

	mark     uint64 // the commit mark, if the file is open for reading only
	intruder string // the last quarantined file that had taken the path; only the healer uses it
}

// Path returns the path of the file, absolute and without links, as of Open.
func (s *Store) Path() string { return s.path }

// Identity returns the identity of the cache. Its journal has the same.
func (s *Store) Identity() [16]byte { return s.identity }

// Handle returns the current handle, or nil if the store is closed.
func (s *Store) Handle() *Handle { return s.current.Load() }

// Failed returns a channel that gets a token when the handle is poisoned or frozen.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// MarkOpen says that Open has finished.
func (s *Store) MarkOpen() { s.opened = true }

// Compacting reports whether a compaction or a backup is running, so that changes should be small.
func (s *Store) Compacting() bool { return s.compacting.Load() }

// Dir returns the current directory of the file.
func (s *Store) Dir() *disk.Dir { return s.dir.Load() }

// use makes h the current handle.
func (s *Store) use(h *Handle) {
	h.onFailure = func() {
		select {
		case s.failed <- struct{}{}:
		default:
		}
	}
	h.detached = &s.detached
	s.current.Store(h)
}

// View runs fn in a read transaction. fn must copy what it keeps.
func (s *Store) View(fn func(*bolt.Tx) error) error {
	for {
		h := s.current.Load()
		if h == nil {
			return errs.ErrClosed
		}
		if err := h.view(fn); err != errSuperseded {
			return err
		}
	}
}

// Update runs fn in a write transaction. fn must be short, because other writers wait for it. When Update returns,
// look-ups see what fn did.
func (s *Store) Update(fn func(*bolt.Tx) error) error { return s.updateBy(usualGrowth, fn) }

// usualGrowth is by how much a transaction that puts nothing may grow the file: the pages that it changes are copied.
const usualGrowth = 16 << 20

// updateBy is Update for a fn that may make the file larger by grow bytes.
func (s *Store) updateBy(grow int64, fn func(*bolt.Tx) error) error {
	h, err := s.lockForChange()
	if err != nil {
		return err
	}
	return h.runDetachable(func() error {
		// bbolt does not reuse freed pages while a reader of an older state exists. So end the snapshot before the next
		// transaction begins, and take another snapshot of the same state after that.
		s.release()
		outgrows := false
		stop := s.yield()
		err := h.update(func(tx *bolt.Tx) error {
			// A transaction that outgrows the map waits until there are no readers, so it would wait for the snapshot.
			var err error
			if outgrows, err = h.outgrows(tx.Size(), grow+s.growthMargin); err != nil {
				return err
			}
			if !outgrows {
				_ = s.renew() // without a snapshot each look-up has its own transaction
			}
			return fn(tx)
		})
		stop()
		switch {
		case errors.Is(h.Err(), ErrNoAddressSpace):
			s.growthMargin = max(2*s.growthMargin, usualGrowth) // the estimate was too low
		case err == nil && outgrows:
			s.growthMargin = 0 // there is address space again
		}
		if renewed := s.renew(); err == nil { // before the next change, so that an older snapshot cannot replace it
			err = renewed
		}
		return err
	})
}

// yield ends the snapshot again and again, after a while, until the returned function is called. A transaction that
// takes so long may be waiting for the snapshot, because it outgrew the map although the estimate was lower.
func (s *Store) yield() (stop func()) {
	var mu sync.Mutex
	mu.Lock()
	defer mu.Unlock()
	over := false
	var timer *time.Timer
	timer = time.AfterFunc(yieldAfter, func() {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			s.release()
			timer.Reset(yieldAfter)
		}
	})
	return func() {
		timer.Stop()
		mu.Lock()
		defer mu.Unlock()
		over = true
	}
}

const yieldAfter = 200 * time.Millisecond

// lockForChange is lock for changes of entries. If too many keys are dirty, it waits until the running compaction has
// taken them.
func (s *Store) lockForChange() (*Handle, error) {
	for {
		h, err := s.lock()
		if err != nil || !s.dirtyKeys.full() {
			return h, err
		}
		looked := s.dirtyKeys.taken
		h.unlock()
		timer := time.NewTimer(hungTimeout)
		select {
		case <-looked:
		case <-h.poisoned:
		case <-timer.C:
			err = fmt.Errorf("%w: %w", errs.ErrUnavailable, ErrHung)
		}
		timer.Stop()
		if err != nil {
			return nil, err
		}
	}
}

// lock waits for the write token and returns the handle to which it belongs. The caller returns the token by unlock or
// passes it to runDetachable.
func (s *Store) lock() (*Handle, error) {
	timer := time.NewTimer(hungTimeout)
	defer timer.Stop()
	for {
		h := s.current.Load()
		if h == nil {
			return nil, errs.ErrClosed
		}
		if err := h.Err(); err != nil {
			return nil, err
		}
		select {
		case h.writeToken <- struct{}{}:
			if s.current.Load() == h {
				return h, nil
			}
			h.unlock()
		case <-h.poisoned:
		case <-timer.C:
			return nil, fmt.Errorf("%w: %w", errs.ErrUnavailable, ErrHung)
		}
	}
}

// newLedger returns an empty ledger for a transaction of Update.
func (s *Store) newLedger() *ledger {
	return &ledger{s.Paging(), make(map[uint64]cost.Usage), s.dirtyKeys}
}

// Paging returns the page size of the file.
func (s *Store) Paging() cost.Paging {
	if h := s.current.Load(); h != nil {
		return h.page
	}
	return cost.UsualPage
}

// Close stores the list of free pages and marks the file as closed cleanly, so that the next Open need not read the
// whole file. Then it closes the file.
func (s *Store) Close() error {
	h, err := s.lock() // waits for a running change
	if err != nil {
		if h = s.current.Load(); h == nil {
			return nil
		}
	}
	s.current.Store(nil)
	s.release()
	tidy := s.opened && !s.readOnly && !h.found.clean // what an earlier Close could not do
	switch {
	case err != nil:
	case h.frozen.Load() == nil && (h.dirty || tidy && !h.found.listed):
		h.db.NoFreelistSync = false
		err = h.runDetachable(func() error { return h.update(func(*bolt.Tx) error { return nil }) })
		if h.Err() == nil && h.frozen.Load() != nil {
			err = nil // the file was removed, so there is no next Open of it
		}
	default:
		h.unlock()
	}
	if err == nil && h.frozen.Load() == nil && (h.dirty || tidy) {
		h.trim()
		// Without the mark, the next Open takes longer.
		_ = markClean(s.Dir(), s.path, h.info)
	}
	return errors.Join(err, h.Close())
}

// trim truncates the part of the file that bbolt has reserved for further growth, except for trimRoom. If that fails,
// the file is as good as before.
func (h *Handle) trim() {
	var used int64
	err := h.view(func(tx *bolt.Tx) error {
		used = tx.Size()
		return nil
	})
	if most := used + trimRoom; err == nil && h.size.Load() > most {
		h.size.Store(most)
		_ = disk.Truncate(h.file, most)
	}
}

// Table returns the ids of all buckets by name, the ids without a name, and the highest id that was ever assigned.
func (s *Store) Table() (ids map[string]uint64, retired []uint64, highest uint64, err error) {
	ids = make(map[string]uint64)
	err = s.View(func(tx *bolt.Tx) error {
		names := tx.Bucket(format.BucketsBucket)
		highest = names.Sequence()
		named := make(map[uint64]bool)
		err := names.ForEach(func(name, id []byte) error {
			n, err := NamedID(name, id)
			ids[string(name)] = n
			named[n] = true
			return err
		})
		if err != nil {
			return err
		}
		return tx.Bucket(format.EntriesBucket).ForEachBucket(func(id []byte) error {
			if len(id) == 8 && !named[format.ReadUint64(id)] {
				retired = append(retired, format.ReadUint64(id))
			}
			return nil
		})
	})
	return ids, retired, highest, err
}

// NamedID checks a row of the table of buckets and returns its id.
func NamedID(name, id []byte) (uint64, error) {
	if len(id) != 8 || format.ReadUint64(id) == 0 || !format.ValidName(string(name)) {
		return 0, fmt.Errorf("%w: the table of buckets has a malformed row", errs.ErrCorrupt)
	}
	return format.ReadUint64(id), nil
}

// Revisions returns the commit mark, up to which the file has every revision, and the highest revision in the file.
func (s *Store) Revisions() (mark, highest uint64, err error) {
	err = s.View(func(tx *bolt.Tx) error {
		mark, highest = revisionsIn(tx)
		if highest >= maxNumber {
			return fmt.Errorf("%w: revision %d", errs.ErrCorrupt, highest)
		}
		return nil
	})
	return mark, highest, err
}

func revisionsIn(tx *bolt.Tx) (mark, highest uint64) {
	meta := tx.Bucket(format.MetaBucket)
	mark = format.ReadUint64(meta.Get(format.MetaSequence))
	return mark, max(mark, format.ReadUint64(meta.Get(format.MetaHighest)))
}

// Pages of an iteration are short, so that no transaction lasts and no slow reader keeps old pages alive.
const (
	PageItems = 256
	PageBytes = 256 << 10
)

// Page hands entries of a bucket to fn in the order of a range: key and record, which are part of the file and are to
// be copied. fn returns how many bytes it keeps. It returns what of the range follows the page, and whether there may
// be more entries in it. A page has at least one entry if there is one, and stops at PageItems or PageBytes.
func (s *Store) Page(id uint64, r keyrange.Range, fn func(key, record []byte) (kept int)) (
	rest keyrange.Range, more bool, err error,
) {
	rest = r
	err = s.View(func(tx *bolt.Tx) error {
		b := entriesOf(tx, id)
		if b == nil {
			return nil
		}
		last, items, size := "", 0, 0
		k, v, next := start(b.Cursor(), r)
		for ; k != nil && !more; k, v = next() {
			key := unsafe.String(unsafe.SliceData(k), len(k)) // part of the file
			// Keys out of order could make pages that never end, or hide the rest of the range.
			if r.Precedes(key) || items > 0 && r.Compare(last, key) >= 0 {
				return fmt.Errorf("%w: %w", errs.ErrCorrupt, errKeyOrder)
			}
			if !r.Contains(key) {
				break
			}
			_, rec := format.SplitRow(v, k)
			size += fn(k, rec)
			last, items = key, items+1
			more = items == PageItems || size >= PageBytes
		}
		if items > 0 {
			rest.After(strings.Clone(last))
		}
		return nil
	})
	return rest, more, err
}

// start moves a cursor to the first entry of a range, and returns it and what moves on to the next one.
func start(c *bolt.Cursor, r keyrange.Range) (k, v []byte, next func() (k, v []byte)) {
	switch {
	case !r.Reverse:
		k, v = c.Seek([]byte(r.First))
		return k, v, c.Next
	case r.End == "":
		k, v = c.Last()
	default:
		if k, _ = c.Seek([]byte(r.End)); k == nil {
			k, v = c.Last()
		} else {
			k, v = c.Prev()
		}
	}
	return k, v, c.Prev
}

// Size returns the size of the file in bytes, and what used returns. The map must not be changed.
func (s *Store) Size() (file int64, used map[uint64]cost.Usage, err error) {
	err = s.View(func(tx *bolt.Tx) (err error) {
		file = tx.Size()
		named := s.nameBytes.Load()
		if last := s.counted.Load(); last != nil && last.db == tx.DB() && last.txid == tx.ID() && last.nameBytes == named {
			used = last.used
			return nil
		}
		if used, err = s.used(tx); err == nil {
			s.counted.Store(&counted{tx.DB(), tx.ID(), named, used})
		}
		return err
	})
	return file, used, err
}

// counted is the usage of each id as of one transaction. It is kept because each commit needs it several times, and
// there may be a hundred thousand ids.
type counted struct {
	db        *bolt.DB
	txid      int
	nameBytes int64 // Store.nameBytes at that time
	used      map[uint64]cost.Usage
}

func entriesOf(tx *bolt.Tx, id uint64) *bolt.Bucket {
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], id)
	return tx.Bucket(format.EntriesBucket).Bucket(key[:])
}
