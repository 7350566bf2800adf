package memory

import (
	"runtime"
	"unsafe"
)

// table finds the entries of one shard by the hash of bucket and key. It is a hash table with open addressing and
// linear probing. A look-up that finds its entry at once touches one cache line of the table, and then the entry. A Go
// map touches two and hashes the hash again, which cost a fifth of a Get. The zero value is not ready for use.
type table struct {
	slots []slot // a power of two, at most four fifths of them used, so every search ends
	used  int
}

// slot is one place of a table. It points to the entry and to the memory of its key and record, so a look-up can fetch
// both at the same time. Most of the time of a Get is waiting for memory: fetching them one after the other took a
// tenth longer.
type slot struct {
	hash     uint32 // the lower half of the entry's hash, to skip other entries
	prefetch uint32 // how many bytes from start on a reader needs, up to maxPrefetch
	start    *byte  // of the entry's key
	entry    *entry // nil if the slot is free
}

const (
	// minSlots is the initial and the smallest size of a table.
	minSlots = 8

	// maxPrefetch bounds how many bytes are prefetched. After that the hardware prefetcher has taken over.
	maxPrefetch = 320
	cacheLine   = 64
)

func newTable() table { return table{slots: make([]slot, minSlots)} }

// find returns the entry of a key, or nil.
func (t *table) find(hash, id uint64, key string) *entry {
	if s := t.seek(hash, id, key); s != nil {
		return s.entry
	}
	return nil
}

// seek returns the slot of a key, or nil. The slot is valid until an entry is inserted or removed.
func (t *table) seek(hash, id uint64, key string) *slot {
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &t.slots[i]
		if s.entry == nil {
			return nil
		}
		if s.hash == uint32(hash) && *s.start == key[0] && s.entry.is(id, key) {
			return s
		}
	}
}

// fetch is find for a caller that is about to read the record. It touches every cache line of key and record, so the
// loads overlap. After the lock is released they would come one after the other, which took a tenth of a Get.
//
// A record may lie right behind its key by chance, in an allocation of its own. The entry keeps both alive, so reading
// across the border is sound. But checkptr, which the race detector turns on, would end the program for it.
//
// A commit may be writing the row between key and record at the same time. The bytes read here are not used, so that
// race is harmless.
//
//go:nocheckptr
//go:norace
func (t *table) fetch(hash, id uint64, key string) *entry {
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &t.slots[i]
		if s.entry == nil {
			return nil
		}
		if s.hash != uint32(hash) {
			continue
		}
		var sum byte
		for at := uint32(0); at < s.prefetch; at += cacheLine {
			sum += *(*byte)(unsafe.Add(unsafe.Pointer(s.start), at))
		}
		runtime.KeepAlive(sum) // or the compiler would drop the loads
		if s.entry.is(id, key) {
			return s.entry
		}
	}
}

func (e *entry) is(id uint64, key string) bool { return e.id == id && e.key == key }

// insert adds an entry that the table does not have.
func (t *table) insert(e *entry) {
	if 5*(t.used+1) > 4*len(t.slots) {
		t.resize(2 * len(t.slots))
	}
	t.used++
	s := slot{hash: uint32(e.hash), entry: e}
	s.setPrefetch()
	t.put(s)
}

// setPrefetch notes where key and record of the entry are. It is called when they have changed.
func (s *slot) setPrefetch() {
	e := s.entry
	s.start = unsafe.StringData(e.key)
	n := len(e.key)
	if uintptr(unsafe.Pointer(s.start))+uintptr(n) == uintptr(unsafe.Pointer(unsafe.SliceData(e.stored))) {
		n += len(e.stored)
	}
	s.prefetch = uint32(min(n, maxPrefetch))
}

func (t *table) put(s slot) {
	mask := uint64(len(t.slots) - 1)
	i := uint64(s.hash) & mask
	for t.slots[i].entry != nil {
		i = (i + 1) & mask
	}
	t.slots[i] = s
}

// remove removes an entry that the table has.
func (t *table) remove(e *entry) {
	mask := uint64(len(t.slots) - 1)
	hole := e.hash & mask
	for t.slots[hole].entry != e {
		hole = (hole + 1) & mask
	}
	// Move the following entries up, so that no search ends at the hole too early: all up to the next free slot, except
	// those that would come to stand before the slot of their hash.
	for i := (hole + 1) & mask; t.slots[i].entry != nil; i = (i + 1) & mask {
		if (i-uint64(t.slots[i].hash))&mask >= (i-hole)&mask {
			t.slots[hole] = t.slots[i]
			hole = i
		}
	}
	t.slots[hole] = slot{}
	t.used--
	if len(t.slots) > minSlots && 4*t.used < len(t.slots) {
		t.resize(len(t.slots) / 2)
	}
}

func (t *table) resize(n int) {
	old := t.slots
	t.slots = make([]slot, n)
	for _, s := range old {
		if s.entry != nil {
			t.put(s)
		}
	}
}

// all yields the entries, in no order. The table must not change meanwhile.
func (t *table) all(yield func(*entry) bool) {
	for i := range t.slots {
		if e := t.slots[i].entry; e != nil && !yield(e) {
			return
		}
	}
}
