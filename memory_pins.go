package keepcache

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// pin is one pinned entry as a commit takes it.
type pin struct {
	entry    *entry
	id       uint64
	key      string
	stored   []byte // see entry
	goneAt   int64
	lives    int64 // until when; goneAt, or later if reads have prolonged its life
	revision uint64
	prefix   uint64 // part of the key, for sortPins
}

// collect appends all pinned entries to pins. take says that a commit does, whose they are from then on.
func (m *memory) collect(pins []pin, take bool) []pin {
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		n += s.pins.entries
		s.mu.RUnlock()
	}
	pins = slices.Grow(pins, n+n/16) // others come meanwhile
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		pins = s.appendPins(pins, take)
		s.mu.RUnlock()
	}
	return pins
}

// pinnedKeys returns the pinned keys of a bucket that begin with prefix and are not less than first, sorted. They are copies:
// a range may take its time, and those who get them may keep them.
func (m *memory) pinnedKeys(id uint64, first, prefix string) (keys []string) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		for e := s.pins.head; e != nil; e = e.next {
			if e.id == id && strings.HasPrefix(e.key, prefix) && e.key >= first {
				keys = append(keys, cloneKey(e.key))
			}
		}
		s.mu.RUnlock()
	}
	slices.Sort(keys)
	return keys
}

// collectWhole is collect for a commit, as of one moment, in which fn runs and no write is on its way.
func (m *memory) collectWhole(fn func()) (pins []pin) {
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
func (s *shard) appendPins(pins []pin, take bool) []pin {
	for e := s.pins.head; e != nil; e = e.next {
		pins = append(pins, pin{e, e.id, e.key, e.stored, e.goneAt, e.livesUntil(), e.revision, 0})
		if take {
			e.taken = true
		}
	}
	return pins
}

// release gives back what a commit had taken that failed. What is in the file and was unpinned may be among it.
func (m *memory) release(lists ...[]pin) {
	for _, pins := range lists {
		for _, p := range pins {
			if p.entry == nil {
				continue // cleared
			}
			s := m.shardOf(p.entry.hash)
			s.mu.RLock()
			if p.entry.revision == p.revision {
				p.entry.taken = false
			}
			s.mu.RUnlock()
		}
	}
}

// unpin makes entries evictable that readers of the file see, unless they were written anew meanwhile.
// Removed ones leave the table: the file does not have them either.
func (m *memory) unpin(pins []pin) {
	for _, p := range pins {
		s := m.shardOf(p.entry.hash)
		s.mu.Lock()
		if e := p.entry; e.pinned && e.revision == p.revision {
			e.pinned = false
			m.pinned.Add(-e.bytes() - pinOverhead)
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

// sortPins sorts by bucket and key, and by revision where a key comes more than once. It compares the first eight bytes of keys
// as numbers, without what all keys begin with: the keys themselves are all over the memory, and most of the time goes into
// waiting for them.
func sortPins(pins []pin) {
	if len(pins) == 0 {
		return
	}
	common := pins[0].key
	for i := range pins {
		n := 0
		for key := pins[i].key; n < min(len(key), len(common)) && key[n] == common[n]; n++ {
		}
		common = common[:n]
	}
	for i := range pins {
		pins[i].prefix = numberOf(pins[i].key[len(common):])
	}
	slices.SortFunc(pins, func(a, b pin) int {
		switch {
		case a.id != b.id:
			return cmp.Compare(a.id, b.id)
		case a.prefix != b.prefix:
			return cmp.Compare(a.prefix, b.prefix)
		}
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.revision, b.revision))
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
