package store

import (
	"bytes"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
)

// snapshot is a read transaction that look-ups share: beginning one costs as much as the look-up itself. It is renewed
// after every change of the file, so it keeps no more than one generation of pages alive.
type snapshot struct {
	handle *Handle
	tx     *bolt.Tx
	first  atomic.Pointer[cursors] // of the first bucket that was asked for, so that usually no lock is needed

	mu      sync.RWMutex          // protects what follows
	cursors map[uint64]*sync.Pool // by bucket id: of *bolt.Cursor; nil if there is no such bucket
	crowded atomic.Bool           // there are so many cursors that the snapshot should be renewed
}

// cursors are those of one bucket.
type cursors struct {
	id   uint64
	pool *sync.Pool
}

// maxCursors is for how many buckets a snapshot has cursors before it is replaced. With what bbolt keeps of each bucket
// that a transaction has opened, one takes about a kilobyte.
const maxCursors = 1024

// renew replaces the snapshot by one of the current file. Look-ups that use the old one finish first.
func (s *Store) renew() (err error) {
	s.renewing.Lock()
	defer s.renewing.Unlock()
	h := s.current.Load()
	if h == nil {
		return errs.ErrClosed
	}
	h.users.RLock()
	defer h.users.RUnlock()
	if err := h.usable(); err != nil {
		return err
	}
	fresh, err := h.snapshot()
	s.lookups.Lock()
	old := s.shared
	s.shared = fresh
	s.lookups.Unlock()
	old.end()
	return err
}

// snapshot begins a snapshot.
func (h *Handle) snapshot() (_ *snapshot, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer h.guard(&err)
	tx, err := h.begin(false)
	if err != nil {
		return nil, err
	}
	return &snapshot{handle: h, tx: tx, cursors: make(map[uint64]*sync.Pool)}, nil
}

// end ends the snapshot's transaction. A nil snapshot is empty.
func (sn *snapshot) end() {
	if sn != nil {
		sn.handle.end(sn.tx)
	}
}

// release ends the snapshot.
func (s *Store) release() {
	s.lookups.Lock()
	old := s.shared
	s.shared = nil
	s.lookups.Unlock()
	old.end()
}

// Get returns copies of a key and of its stored value, in one allocation. It returns nothing if the key is absent.
func (s *Store) Get(id uint64, key string) (own string, stored []byte, err error) {
	k := unsafe.Slice(unsafe.StringData(key), len(key)) // not modified

	both, done, crowded, err := s.lookup(id, k)
	if crowded {
		_ = s.renew() // without a snapshot each look-up has its own transaction
	}
	if !done {
		err = s.View(func(tx *bolt.Tx) error {
			if b := entriesOf(tx, id); b != nil {
				both = copyBoth(k, b.Get(k))
			}
			return nil
		})
	}
	if both == nil || err != nil {
		return "", nil, err
	}
	return unsafe.String(&both[0], len(k)), both[len(k):], nil
}

// Record returns a copy of the record of a key, or nil.
func (s *Store) Record(id uint64, key string) ([]byte, error) {
	_, stored, err := s.Get(id, key)
	return format.RecordIn(stored), err
}

// lookup looks a key up in the snapshot. done is false if there is none, and crowded says that the snapshot should be
// renewed.
func (s *Store) lookup(id uint64, key []byte) (both []byte, done, crowded bool, err error) {
	s.lookups.RLock()
	defer s.lookups.RUnlock()
	snap := s.shared
	if snap == nil {
		return nil, false, false, nil
	}
	if err := snap.handle.Err(); err != nil {
		return nil, true, false, err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer snap.handle.guard(&err)
	both = snap.get(id, key)
	return both, true, snap.crowded.Load() && snap.crowded.CompareAndSwap(true, false), nil
}

func (sn *snapshot) get(id uint64, key []byte) []byte {
	pool := sn.pool(id)
	if pool == nil {
		return nil
	}
	c := pool.Get().(*bolt.Cursor)
	k, v := c.Seek(key)
	if !bytes.Equal(k, key) {
		v = nil
	}
	both := copyBoth(key, v)
	pool.Put(c)
	return both
}

// pool returns the cursors of a bucket. Two goroutines must not look up a transaction's buckets at the same time, but
// each can use a cursor of its own.
func (sn *snapshot) pool(id uint64) *sync.Pool {
	c := sn.first.Load()
	if c != nil && c.id == id {
		return c.pool
	}
	pool := sn.poolOf(id)
	if c == nil {
		sn.first.Store(&cursors{id, pool})
	}
	return pool
}

func (sn *snapshot) poolOf(id uint64) *sync.Pool {
	sn.mu.RLock()
	pool, known := sn.cursors[id]
	sn.mu.RUnlock()
	if known {
		return pool
	}
	sn.mu.Lock()
	defer sn.mu.Unlock()
	if pool, known = sn.cursors[id]; known {
		return pool
	}
	if b := entriesOf(sn.tx, id); b != nil {
		pool = &sync.Pool{New: func() any { return b.Cursor() }}
	}
	sn.cursors[id] = pool
	if len(sn.cursors)%maxCursors == 0 {
		sn.crowded.Store(true)
	}
	return pool
}

// copyBoth returns a copy of key and stored value in one slice, or nil if stored is nil. A value that is too short gets
// room for a row, as memory needs it. The capacity is what the allocator gives.
func copyBoth(key, stored []byte) []byte {
	if stored == nil {
		return nil
	}
	both := append(slices.Grow([]byte(nil), len(key)+format.RowSize+len(stored)), key...)
	if len(stored) < format.RowSize {
		both = append(both, make([]byte, format.RowSize)...)
	}
	return append(both, stored...)
}
