package memory

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"unsafe"

	"github.com/keepcache/keepcache/internal/format"
)

// Pin is one pinned entry as a commit takes it.
type Pin struct {
	entry      *entry
	ID         uint64
	Key        string
	Stored     []byte // see entry
	StaleUntil int64
	Lives      int64 // until when; StaleUntil, or later if reads have prolonged its life
	Revision   uint64
	prefix     uint64 // part of the key, for SortPins
}

// Collect appends all pinned entries to pins. take says that a commit does, whose they are from then on.
func (m *Tier) Collect(pins []Pin, take bool) []Pin {
	n := m.PinnedEntries()
	pins = slices.Grow(pins, n+n/16) // others come meanwhile
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		pins = s.appendPins(pins, take)
		s.mu.RUnlock()
	}
	return pins
}

// EachPinned calls fn for each pinned entry, in no order. It holds the lock of the entry's shard shared meanwhile: fn is quick, and
// copies what it keeps of the key.
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

// PinnedEntries returns how many entries are pinned.
func (m *Tier) PinnedEntries() (n int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		n += s.pins.entries
		s.mu.RUnlock()
	}
	return n
}

// PinnedKeys returns the pinned keys of a bucket that begin with prefix and are not less than first, sorted. They are copies:
// a range may take its time, and those who get them may keep them.
func (m *Tier) PinnedKeys(id uint64, first, prefix string) (keys []string) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		for e := s.pins.head; e != nil; e = e.next {
			if e.id == id && strings.HasPrefix(e.key, prefix) && e.key >= first {
				keys = append(keys, strings.Clone(e.key))
			}
		}
		s.mu.RUnlock()
	}
	slices.Sort(keys)
	return keys
}

// CollectAll is Collect for a commit, as of one moment, in which fn runs and no write is on its way.
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

// appendPins appends the pinned entries of a shard, whose lock the caller holds, be it shared.
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

// Release gives back what a commit had taken that failed. What is in the file and was unpinned may be among it.
func (m *Tier) Release(lists ...[]Pin) {
	for _, pins := range lists {
		for _, p := range pins {
			if p.entry == nil {
				continue // cleared
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

// Unpin makes entries evictable that readers of the file see, unless they were written anew meanwhile.
// Removed ones leave the table: the file does not have them either.
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
				before := s.cold.bytes()
				s.cold.add(e)
				m.evict(s, before)
			}
		}
		s.mu.Unlock()
	}
}

// Repin pins the evictable entries of the given buckets, for a file that has lost them.
func (m *Tier) Repin(ids map[uint64]bool) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		before := s.cold.bytes()
		for e := range s.table.all {
			if e.pinned || e.stored == nil || !ids[e.id] {
				continue
			}
			slid := e.slid.Load()
			s.cold.drop(e)
			m.pin(s, e, e.key, e.stored, format.Header{StaleUntil: e.staleUntil, Revision: e.revision})
			e.slid.Store(slid)
		}
		m.cached.Add(s.cold.bytes() - before)
		s.mu.Unlock()
	}
}

// SortPins sorts by bucket and key, and by revision where a key comes more than once. It compares the first eight bytes of keys
// as numbers, without what all keys begin with: the keys themselves are all over the memory, and most of the time goes into
// waiting for them.
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

// numberOf reads the first eight bytes as a number, in which those of one string that begins another are not larger.
func numberOf(s string) (n uint64) {
	if len(s) >= 8 {
		return binary.BigEndian.Uint64([]byte(s[:8]))
	}
	for i := range len(s) {
		n |= uint64(s[i]) << (56 - 8*i)
	}
	return n
}

// Join copies key and record into one piece of memory: who looks for the one and reads the other finds both in a cache
// line, and the collector has one object less. Between them is room for the row of a stored value, so that a commit need not
// copy the record. The capacity is what the allocator gives.
func Join(key string, record []byte) (own string, stored []byte) {
	both := append(slices.Grow([]byte(nil), len(key)+format.RowSize+len(record)), key...)
	both = append(both, make([]byte, format.RowSize)...)
	both = append(both, record...)
	return unsafe.String(&both[0], len(key)), both[len(key):]
}
