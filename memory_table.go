package keepcache

// table finds the entries of one shard by the hash of bucket and key. It is open addressing with linear probing: a look-up
// that ends at once touches one cache line of the table, and then the entry. A map of the language touches two and
// hashes the hash again; measured, that was a fifth of a Get. The zero value is not ready for use.
type table struct {
	slots []slot // a power of two of them, at most three quarters of them used, so that each search ends
	used  int
}

// slot is one place of a table.
type slot struct {
	hash  uint64 // of the entry, so that others need not be looked at
	entry *entry // nil where there is none
}

// leastSlots is how small a table is at first, and how small it gets.
const leastSlots = 8

func newTable() table { return table{slots: make([]slot, leastSlots)} }

func (t *table) find(hash, id uint64, key string) *entry {
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		e := t.slots[i].entry
		if e == nil || t.slots[i].hash == hash && e.id == id && e.key == key {
			return e
		}
	}
}

// insert puts in an entry that is not there.
func (t *table) insert(e *entry) {
	if 4*(t.used+1) > 3*len(t.slots) {
		t.resize(2 * len(t.slots))
	}
	t.used++
	t.put(slot{e.hash, e})
}

func (t *table) put(s slot) {
	mask := uint64(len(t.slots) - 1)
	i := s.hash & mask
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
		if (i-t.slots[i].hash)&mask >= (i-hole)&mask {
			t.slots[hole] = t.slots[i]
			hole = i
		}
	}
	t.slots[hole] = slot{}
	t.used--
	if len(t.slots) > leastSlots && 8*t.used < len(t.slots) {
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
