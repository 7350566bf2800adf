package keepcache

import (
	"bytes"
	"sync"
	"unsafe"

	bolt "go.etcd.io/bbolt"
)

// snapshot is a read transaction that single look-ups share, because beginning one for each of them costs
// as much as the look-up itself. It is renewed after every change of the file, so that it keeps no more
// than one generation of pages alive.
type snapshot struct {
	tx *bolt.Tx

	mu      sync.RWMutex          // protects what follows
	cursors map[uint64]*sync.Pool // by bucket id: of *bolt.Cursor; nil where there is no such bucket
}

// remapMargin is how far the file must stay below the end of bbolt's map for a snapshot to be held: a
// transaction that outgrows the map waits until no reader is left, and so for the snapshot too.
const remapMargin = 1 << 30

// renew replaces the snapshot by one of the file as it is now. Those who use the old one finish first.
func (s *store) renew() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return ErrClosed
	}
	s.renewing.Lock()
	defer s.renewing.Unlock()
	var fresh *snapshot
	tx, err := s.db.Begin(false)
	if err == nil {
		fresh = snapshotOf(tx)
	}
	s.lookups.Lock()
	if s.withheld > 0 && fresh != nil {
		fresh.tx.Rollback()
		fresh = nil
	}
	old := s.shared
	s.shared = fresh
	s.lookups.Unlock()
	if old != nil {
		old.tx.Rollback()
	}
	return err
}

// withhold lets go of the snapshot until the returned function is called, if a transaction that makes the
// file grow by so many bytes could outgrow bbolt's map: it would wait for the snapshot, which waits for it.
func (s *store) withhold(bytes int64) (resume func()) {
	if bytes < remapMargin/2 {
		return func() {}
	}
	s.lookups.Lock()
	s.withheld++
	s.lookups.Unlock()
	s.release()
	return func() {
		s.lookups.Lock()
		s.withheld--
		s.lookups.Unlock()
		_ = s.renew() // without one, look-ups have a transaction each
	}
}

// snapshotOf returns the snapshot that a transaction is to be, or ends the transaction and returns nil where
// none may be held.
func snapshotOf(tx *bolt.Tx) *snapshot {
	if tx.Size() > int64(initialMmapSize())-remapMargin {
		tx.Rollback()
		return nil
	}
	return &snapshot{tx: tx, cursors: make(map[uint64]*sync.Pool)}
}

// release lets go of the snapshot.
func (s *store) release() {
	s.lookups.Lock()
	defer s.lookups.Unlock()
	if s.shared != nil {
		s.shared.tx.Rollback()
		s.shared = nil
	}
}

// get returns a copy of the record of a key, or nil.
func (s *store) get(id uint64, key string) (record []byte, err error) {
	k := unsafe.Slice(unsafe.StringData(key), len(key)) // only read

	s.lookups.RLock()
	if snap := s.shared; snap != nil {
		record = snap.get(id, k)
		s.lookups.RUnlock()
		return record, nil
	}
	s.lookups.RUnlock()
	err = s.view(func(tx *bolt.Tx) error {
		if b := entriesOf(tx, id); b != nil {
			record = copyRecord(b.Get(k), k)
		}
		return nil
	})
	return record, err
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
	record := copyRecord(v, key)
	pool.Put(c)
	return record
}

// pool returns the cursors of a bucket. A transaction's buckets may not be looked up by two goroutines at
// once, its cursors may be used by one each.
func (sn *snapshot) pool(id uint64) *sync.Pool {
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
	return pool
}

// copyRecord copies the record out of a stored value; nil gives nil.
func copyRecord(stored, key []byte) []byte {
	if stored == nil {
		return nil
	}
	_, rec := splitRow(stored, key)
	return append(make([]byte, 0, len(rec)), rec...)
}
