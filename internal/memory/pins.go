package memory

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"unsafe"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/keyrange"
)

// Pin is a snapshot of one pinned entry, for a commit.
type Pin struct {
	entry      *entry
	ID         uint64
	Key        string
	Stored     []byte // see entry.stored
	StaleUntil int64
	Lives      int64 // when the entry is gone: StaleUntil, or later if reads have prolonged its life
	Revision   uint64
	prefix     uint64 // part of the key, for SortPins
}

// Collect appends all pinned entries to pins. If take is set, they are marked as taken by a commit.
func (m *Tier) Collect(pins []Pin, take bool) []Pin {
	n := m.PinnedEntries()
	pins = slices.Grow(pins, n+n/16) // others may be pinned meanwhile
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		pins = s.appendPins(pins, take)
		s.mu.RUnlock()
	}
	return pins
}

// EachPinned calls fn for each pinned entry, in no order. It holds the shared lock of the entry's shard, so fn must be
// quick and must copy what it keeps of the key.
func (m *Tier) EachPinned(fn func(p *Pin)) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		for e := s.pins.head; e != nil; e = e.next {
			p := e.asPin()
			fn(&p)
		}
		s.mu.RUnlock()
	}
}

// IsPinned reports whether memory has a version of a key that the file does not have yet.
func (m *Tier) IsPinned(id uint64, key string) bool {
	hash := m.Hash(id, key)
	s := m.ShardOf(hash)
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.table.find(hash, id, key)
	return e != nil && e.pinned
}

// PinnedEntries returns the number of pinned entries.
func (m *Tier) PinnedEntries() (n int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		n += s.pins.entries
		s.mu.RUnlock()
	}
	return n
}

// PinnedKeys returns copies of the pinned keys of a bucket that are in a range, in its order.
func (m *Tier) PinnedKeys(id uint64, r keyrange.Range) (keys []string) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		for e := s.pins.head; e != nil; e = e.next {
			if e.id == id && r.Contains(e.key) {
				keys = append(keys, strings.Clone(e.key))
			}
		}
		s.mu.RUnlock()
	}
	r.Sort(keys)
	return keys
}

// CollectAll is Collect with take set, at one point in time: it locks all shards, calls fn while no write is under way,
// and then collects.
func (m *Tier) CollectAll(fn func()) (pins []Pin) {
	for i := range m.shards {
		m.shards[i].mu.RLock()
		defer m.shards[i].mu.RUnlock()
	}
	fn()
	for i := range m.shards {
		pins = m.shards[i].appendPins(pins, true)
	}
	return pins
}

// appendPins appends the pinned entries of a shard. The caller holds the shard's lock, shared or not.
func (s *Shard) appendPins(pins []Pin, take bool) []Pin {
	for e := s.pins.head; e != nil; e = e.next {
		pins = append(pins, e.asPin())
		if take {
			e.taken = true
		}
	}
	return pins
}

func (e *entry) asPin() Pin {
	return Pin{e, e.id, e.key, e.stored, e.staleUntil, e.livesUntil(), e.revision, 0}
}

// Release unmarks the entries of a commit that failed. Some of them may be in the file and unpinned by now.
func (m *Tier) Release(lists ...[]Pin) {
	for _, pins := range lists {
		for _, p := range pins {
			if p.entry == nil {
				continue // dropped with its bucket
			}
			s := m.ShardOf(p.entry.hash)
			s.mu.RLock()
			if p.entry.revision == p.Revision {
				p.entry.taken = false
			}
			s.mu.RUnlock()
		}
	}
}

// Unpin makes entries evictable, unless they have been written again. Readers of the file must see them by now.
// Tombstones leave the table, because the file does not have the key either.
func (m *Tier) Unpin(pins []Pin) {
	for _, p := range pins {
		s := m.ShardOf(p.entry.hash)
		s.mu.Lock()
		if e := p.entry; e.pinned && e.revision == p.Revision {
			e.pinned = false
			m.pinned.Add(-e.bytes() - PinOverhead)
			s.pins.remove(e)
			if e.stored == nil {
				s.table.remove(e)
			} else {
				before := s.evictable.bytes()
				s.evictable.add(e)
				m.evict(s, before)
			}
		}
		s.mu.Unlock()
	}
}

// Repin pins the evictable entries of the given buckets again, because the file has lost them.
func (m *Tier) Repin(ids map[uint64]bool) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		before := s.evictable.bytes()
		for e := range s.table.all {
			if e.pinned || e.stored == nil || !ids[e.id] {
				continue
			}
			slid := e.slid.Load()
			s.evictable.drop(e)
			m.pin(s, e, e.key, e.stored, format.Header{StaleUntil: e.staleUntil, Revision: e.revision})
			e.slid.Store(slid)
		}
		m.cached.Add(s.evictable.bytes() - before)
		s.mu.Unlock()
	}
}

// SortPins sorts by bucket, key and revision. It first compares eight bytes of each key, after the prefix that all keys
// have in common, as numbers. The keys themselves are spread over memory, and waiting for them would take most of the
// time.
func SortPins(pins []Pin) {
	if len(pins) == 0 {
		return
	}
	common := pins[0].Key
	for i := range pins {
		n := 0
		for key := pins[i].Key; n < min(len(key), len(common)) && key[n] == common[n]; n++ {
		}
		common = common[:n]
	}
	for i := range pins {
		pins[i].prefix = numberOf(pins[i].Key[len(common):])
	}
	slices.SortFunc(pins, func(a, b Pin) int {
		switch {
		case a.ID != b.ID:
			return cmp.Compare(a.ID, b.ID)
		case a.prefix != b.prefix:
			return cmp.Compare(a.prefix, b.prefix)
		}
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Revision, b.Revision))
	})
}

// numberOf returns the first eight bytes of s as a big-endian number. A shorter s counts as padded with zeros.
func numberOf(s string) (n uint64) {
	if len(s) >= 8 {
		return binary.BigEndian.Uint64([]byte(s[:8]))
	}
	for i := range len(s) {
		n |= uint64(s[i]) << (56 - 8*i)
	}
	return n
}

// Join copies key and record into one allocation: a reader that compares the key and reads the record finds both in one
// cache line, and the garbage collector has one object less. Between them is room for the row of a stored value, so a
// commit need not copy the record. The capacity is what the allocator gives.
func Join(key string, record []byte) (own string, stored []byte) {
	both := append(slices.Grow([]byte(nil), len(key)+format.RowSize+len(record)), key...)
	both = append(both, make([]byte, format.RowSize)...)
	both = append(both, record...)
	return unsafe.String(&both[0], len(key)), both[len(key):]
}
