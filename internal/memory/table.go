package memory

import (
	"runtime"
	"unsafe"
)

// table finds the entries of one shard by the hash of bucket and key. It is open addressing with linear probing: a look-up
// that ends at once touches one cache line of the table, and then the entry. A map of the language touches two and
// hashes the hash again; measured, that was a fifth of a Get. The zero value is not ready for use.
type table struct {
	slots []slot // a power of two of them, at most four fifths of them used, so that each search ends
	used  int
}

// slot is one place of a table. It has of an entry what lets a look-up ask for it and for what it points to at the same time:
// most of the time of a Get is waiting for memory, and one wait after the other took a tenth longer.
type slot struct {
	hash  uint32 // the lower half of the entry's, so that others need not be looked at
	ahead uint32 // how many bytes a reader needs from first on, up to mostAhead
	first *byte  // of the entry's key
	entry *entry // nil where there is none
}

const (
	// leastSlots is how small a table is at first, and how small it gets.
	leastSlots = 8

	// mostAhead is of how many bytes the lines are asked for ahead; by then processors see by themselves where it goes.
	mostAhead = 320
	cacheLine = 64
)

func newTable() table { return table{slots: make([]slot, leastSlots)} }

// find returns the entry of a key, or nil.
func (t *table) find(hash, id uint64, key string) *entry {
	if s := t.seek(hash, id, key); s != nil {
		return s.entry
	}
	return nil
}

// seek returns the slot of a key, or nil. It is good until an entry comes or goes.
func (t *table) seek(hash, id uint64, key string) *slot {
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &t.slots[i]
		if s.entry == nil {
			return nil
		}
		if s.hash == uint32(hash) && *s.first == key[0] && s.entry.is(id, key) {
			return s
		}
	}
}

// fetch is find for a caller who is going to read the record: all lines of it are on their way before the first one is
// there. After the lock is released they would come one after the other; measured, that was a tenth of a Get.
//
// A record may be right behind its key by chance, in memory of its own. The entry keeps both alive, so reading on from the
// one into the other is sound, but checkptr, which comes with the race detector, would end the program for it.
//
// Right behind the key a commit may be writing the row that goes before the record in the file. What is read of it here is not
// used, and a race detector is not to complain of it.
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
		for at := uint32(0); at < s.ahead; at += cacheLine {
			sum += *(*byte)(unsafe.Add(unsafe.Pointer(s.first), at))
		}
		runtime.KeepAlive(sum) // or nothing would be loaded
		if s.entry.is(id, key) {
			return s.entry
		}
	}
}

func (e *entry) is(id uint64, key string) bool { return e.id == id && e.key == key }

// insert puts in an entry that is not there.
func (t *table) insert(e *entry) {
	if 5*(t.used+1) > 4*len(t.slots) {
		t.resize(2 * len(t.slots))
	}
	t.used++
	s := slot{hash: uint32(e.hash), entry: e}
	s.aim()
	t.put(s)
}

// aim notes where key and record of the entry are: they are others than before.
func (s *slot) aim() {
	e := s.entry
	s.first = unsafe.StringData(e.key)
	n := len(e.key)
	if uintptr(unsafe.Pointer(s.first))+uintptr(n) == uintptr(unsafe.Pointer(unsafe.SliceData(e.stored))) {
		n += len(e.stored)
	}
	s.ahead = uint32(min(n, mostAhead))
}

func (t *table) put(s slot) {
	mask := uint64(len(t.slots) - 1)
	i := uint64(s.hash) & mask
	for t.slots[i].entry != nil {
		i = (i + 1) & mask
	}
	t.slots[i] = s
}

// remove takes out an entry that is there.
func (t *table) remove(e *entry) {
	mask := uint64(len(t.slots) - 1)
	hole := e.hash & mask
	for t.slots[hole].entry != e {
		hole = (hole + 1) & mask
	}
	// What follows moves up, so that no search ends at the hole too early: all up to the next free slot, but for what would come
	// to stand before the slot that its hash names.
	for i := (hole + 1) & mask; t.slots[i].entry != nil; i = (i + 1) & mask {
		if (i-uint64(t.slots[i].hash))&mask >= (i-hole)&mask {
			t.slots[hole] = t.slots[i]
			hole = i
		}
	}
	t.slots[hole] = slot{}
	t.used--
	if len(t.slots) > leastSlots && 4*t.used < len(t.slots) {
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

// all is an iterator over the entries, in no order. The table must not change meanwhile.
func (t *table) all(yield func(*entry) bool) {
	for i := range t.slots {
		if e := t.slots[i].entry; e != nil && !yield(e) {
			return
		}
	}
}
