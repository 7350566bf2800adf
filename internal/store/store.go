// Package store keeps the entries in a bbolt file. It is the only package that touches bbolt, harnesses and tests aside: every
// transaction in it is short, what leaves it is a copy, and each call of bbolt has a guard around it. It also makes, recognises, locks, proves,
// compacts, copies, quarantines and repairs the file.
package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
)

// Store keeps the entries of one cache in its bbolt file. Every transaction in it is short, and what leaves it is a
// copy. Its methods may be called from any goroutine.
type Store struct {
	path     string // absolute and without links, as it was when the cache was opened
	readOnly bool
	identity [16]byte
	taken    bool // Open is over, and the cache in use

	renewing sync.Mutex   // held while the snapshot is renewed, so that no older one replaces a newer one
	lookups  sync.RWMutex // held shared by each use of what follows, exclusively to change it
	shared   *snapshot    // nil while none may be held

	home    atomic.Pointer[disk.Dir] // where the file is; see refuge.go of package engine for when it changes
	current atomic.Pointer[Handle]   // nil once closed
	caution int64                    // bytes by which transactions may grow more than is known; protected by the token of writing
	noted   *notes                   // keys that changed; nil unless a compaction wants to know; protected by the token of writing
	copied  atomic.Bool              // a compaction is on its way, so that changes should be small
	strays  atomic.Int64             // transactions that nobody waits for any more and that go on: what they were given is theirs still
	sick    chan struct{}            // gets a token when a handle is poisoned or barred

	like     atomic.Pointer[disk.Attributes] // of the file, as last seen
	unmoving atomic.Pointer[Handle]          // found to be a file whose name nothing else can take
	shrunk   atomic.Pointer[shrunk]          // how the last compaction has left the file; nil if there was none

	measured atomic.Pointer[measured] // by the last Measure

	named   atomic.Int64            // what the names of buckets need of the file
	counted atomic.Pointer[counted] // what Size returned last; nil before

	mark     uint64 // the commit mark, where the file is open for reading only
	intruder string // the file that was last kept aside because it had taken the path; used by one healer
}

// Path returns the path of the file, absolute and without links, as it was when the cache was opened.
func (s *Store) Path() string { return s.path }

// Identity returns the identity of the cache, which its journal has too.
func (s *Store) Identity() [16]byte { return s.identity }

// Handle returns the opening of the file that is in use, or nil if there is none any more.
func (s *Store) Handle() *Handle { return s.current.Load() }

// Sick returns a channel that gets a token when the file is of no more use, or of less.
func (s *Store) Sick() <-chan struct{} { return s.sick }

// MarkOpen says that Open is over, and the cache in use.
func (s *Store) MarkOpen() { s.taken = true }

// Compacting reports whether a compaction or a backup is under way, so that changes should be small.
func (s *Store) Compacting() bool { return s.copied.Load() }

// Dir returns the directory of the file, wherever that is now.
func (s *Store) Dir() *disk.Dir { return s.home.Load() }

// use makes h the one that everybody uses.
func (s *Store) use(h *Handle) {
	h.sick = func() {
		select {
		case s.sick <- struct{}{}:
		default:
		}
	}
	h.strays = &s.strays
	s.current.Store(h)
}

// View runs fn in a read transaction. What fn keeps must be a copy.
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

// Update runs fn in a write transaction, which must be short: other writers wait for it. When it returns,
// look-ups see what fn did.
func (s *Store) Update(fn func(*bolt.Tx) error) error { return s.updateBy(growUsual, fn) }

// growUsual is by how much a transaction may make the file larger that puts nothing: the pages that it changes have copies.
const growUsual = 16 << 20

// updateBy is Update for a fn that may make the file larger by so many bytes.
func (s *Store) updateBy(grow int64, fn func(*bolt.Tx) error) error {
	h, err := s.lockRead()
	if err != nil {
		return err
	}
	return h.apart(func() error {
		// bbolt keeps what a transaction frees from the next one as long as there is a reader of the state in between. So the
		// snapshot ends before the next one begins, and another one of the same state takes its place.
		s.release()
		outgrows := false
		stop := s.yield()
		err := h.update(func(tx *bolt.Tx) error {
			// A transaction that outgrows the map waits until no reader is left, and the snapshot would wait for it.
			var err error
			if outgrows, err = h.outgrows(tx.Size(), grow+s.caution); err != nil {
				return err
			}
			if !outgrows {
				_ = s.renew() // without one, look-ups have a transaction each
			}
			return fn(tx)
		})
		stop()
		switch {
		case errors.Is(h.Err(), ErrNoAddresses):
			s.caution = max(2*s.caution, growUsual) // by so much more than was thought
		case err == nil && outgrows:
			s.caution = 0 // there are addresses again
		}
		if renewed := s.renew(); err == nil { // before the next change, so that no older one replaces it
			err = renewed
		}
		return err
	})
}

// yield lets go of the snapshot again and again from a while on, until the returned function is called: a transaction that takes so
// long may be one that waits for the snapshot, because it has outgrown the map though nobody thought so.
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

// lockRead is lock for a change of entries: it waits until a compaction has looked at what is noted, where that is
// much, as long as it takes steps.
func (s *Store) lockRead() (*Handle, error) {
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
			err = fmt.Errorf("%w: %w", errs.ErrUnavailable, ErrHung)
		}
		timer.Stop()
		if err != nil {
			return nil, err
		}
	}
}

// lock waits for the token without which nobody changes the file, and returns the handle whose it is. Who gets it
// gives it back by unlock, or hands it to apart.
func (s *Store) lock() (*Handle, error) {
	timer := time.NewTimer(hungAfter)
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
		case h.writing <- struct{}{}:
			if s.current.Load() == h {
				return h, nil
			}
			h.unlock()
		case <-h.dead:
		case <-timer.C:
			return nil, fmt.Errorf("%w: %w", errs.ErrUnavailable, ErrHung)
		}
	}
}

// book returns an empty ledger for a transaction of Update.
func (s *Store) book() *ledger { return &ledger{s.Paging(), make(map[uint64]cost.Usage), s.noted} }

// Paging returns the size of the file's pages.
func (s *Store) Paging() cost.Paging {
	if h := s.current.Load(); h != nil {
		return h.page
	}
	return cost.UsualPage
}

// Close stores the list of free pages and a clean mark, so that the next Open need not walk the whole file, and releases
// the file.
func (s *Store) Close() error {
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
		if h.Err() == nil && h.barred.Load() != nil {
			err = nil // it was taken away: there is no next Open of it
		}
	default:
		h.unlock()
	}
	if err == nil && h.barred.Load() == nil && (h.dirty || tidy) {
		h.trim()
		// Without the mark, the next Open takes longer.
		_ = markClean(s.Dir(), s.path, h.info)
	}
	return errors.Join(err, h.Close())
}

// trim gives back what bbolt has made the file larger than it needs, for transactions that will not come, where that is more than the
// next one would ask for at once. If that fails the file is as good as before.
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

// Table returns the ids of all buckets by name, the ids that no name points at any more, and the highest
// id ever given out.
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

// NamedID proves a row of the table of buckets and returns its id.
func NamedID(name, id []byte) (uint64, error) {
	if len(id) != 8 || format.ReadUint64(id) == 0 || !format.ValidName(string(name)) {
		return 0, fmt.Errorf("%w: the table of buckets has a malformed row", errs.ErrCorrupt)
	}
	return format.ReadUint64(id), nil
}

// Revisions returns the commit mark, up to which every revision is in the file, and the highest revision
// of anything in it.
func (s *Store) Revisions() (mark, highest uint64, err error) {
	err = s.View(func(tx *bolt.Tx) error {
		mark, highest = revisionsIn(tx)
		if highest >= mostNumber {
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

// Item is one entry as the file holds it.
type Item struct {
	Key    []byte
	Record []byte
}

// Pages of an iteration are short, so that no transaction lasts and no slow reader keeps old pages alive.
const (
	PageItems = 256
	PageBytes = 256 << 10
)

// Page returns copies of the entries of a bucket from key from on, as long as they begin with prefix, and
// whether more may follow. A page has at least one entry if there is one, and stops at PageItems or
// PageBytes.
func (s *Store) Page(id uint64, from, prefix []byte) (items []Item, more bool, err error) {
	err = s.View(func(tx *bolt.Tx) error {
		b := entriesOf(tx, id)
		if b == nil {
			return nil
		}
		c, size := b.Cursor(), 0
		for k, v := c.Seek(from); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if len(items) == PageItems || size >= PageBytes {
				more = true
				return advances(from, items[len(items)-1].Key)
			}
			_, rec := format.SplitRow(v, k)
			both := append(append(make([]byte, 0, len(k)+len(rec)), k...), rec...)
			items = append(items, Item{Key: both[:len(k):len(k)], Record: both[len(k):]})
			size += len(both)
		}
		return nil
	})
	return items, more, err
}

// advances returns an error if a page of keys that was asked for from a key on ends before it: whoever goes on from there would never
// come to an end.
func advances(from, last []byte) error {
	if bytes.Compare(last, from) < 0 {
		return fmt.Errorf("%w: %w", errs.ErrCorrupt, errDisorder)
	}
	return nil
}

// Size returns the size of the file in bytes, and what used does. The map is not to be changed.
func (s *Store) Size() (file int64, used map[uint64]cost.Usage, err error) {
	err = s.View(func(tx *bolt.Tx) (err error) {
		file = tx.Size()
		named := s.named.Load()
		if last := s.counted.Load(); last != nil && last.db == tx.DB() && last.state == tx.ID() && last.named == named {
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

// counted is the usage of each id as of one state of the file. Each commit asks for it several times, and there may be a
// hundred thousand ids.
type counted struct {
	db    *bolt.DB
	state int   // the number of the transaction that led to it
	named int64 // what names needed then, see Store.named
	used  map[uint64]cost.Usage
}

func entriesOf(tx *bolt.Tx, id uint64) *bolt.Bucket {
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], id)
	return tx.Bucket(format.EntriesBucket).Bucket(key[:])
}
