package memory

import (
	"strings"

	"github.com/keepcache/keepcache/internal/clock"
	"github.com/keepcache/keepcache/internal/format"
)

// Reads of an entry with a sliding lifetime prolong its life in memory only. The record in the file has the older time.

// Slide prolongs the life of an entry to until and reports whether it did. It does nothing if memory does not have the
// entry with that revision, or if its deadline has been reached. Slide holds the shared lock of the shard while it
// reads the clock. So code that takes the exclusive lock after a deadline sees every prolongation from before the
// deadline.
func (m *Tier) Slide(c *clock.Clock, hash, id uint64, key string, revision uint64, deadline, until int64) bool {
	s := m.ShardOf(hash)
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.table.find(hash, id, key)
	if e == nil || e.revision != revision || e.stored == nil {
		return false
	}
	old := e.slid.Load()
	if c.Reached(max(deadline, old)) && !IgnoreDeadlines {
		return false
	}
	for ; until > old && !e.slid.CompareAndSwap(old, until); old = e.slid.Load() {
	}
	return true
}

// ExpiresAt returns until when memory knows the entry of a key to be fresh, or 0. The caller holds the shard's lock.
func (m *Tier) ExpiresAt(hash, id uint64, key string) int64 {
	e := m.ShardOf(hash).table.find(hash, id, key)
	if e == nil || e.stored == nil {
		return 0
	}
	return max(format.ReadHeader(format.RecordIn(e.stored)).ExpiresAt, e.slid.Load())
}

// livesUntil returns when an entry is gone, including reads that prolonged its life. The caller holds the shard's lock.
func (e *entry) livesUntil() int64 {
	slid := e.slid.Load()
	if slid == 0 || e.stored == nil {
		return e.staleUntil
	}
	h := format.ReadHeader(format.RecordIn(e.stored))
	h.Slide(slid)
	return h.StaleUntil
}

// Lives reports whether an entry whose record has expired still lives at now, because reads have prolonged its life.
// See Slide for why it takes the exclusive lock.
func (m *Tier) Lives(id uint64, key string, now int64) bool {
	hash := m.Hash(id, key)
	s := m.ShardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.table.find(hash, id, key)
	return e != nil && e.slid.Load() != 0 && e.livesUntil() > now
}

// Holds reports whether an entry that is gone by its record in the file still lives at now: it was written again, or
// reads have prolonged its life. See Slide for why it takes the exclusive lock.
func (m *Tier) Holds(id uint64, key string, now int64) bool {
	hash := m.Hash(id, key)
	s := m.ShardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.table.find(hash, id, key)
	return e != nil && e.stored != nil && (e.pinned || e.slid.Load() != 0) && e.livesUntil() > now
}

// Outlives reports whether a pinned entry that had expired when it was collected lives at now, because reads have
// prolonged its life since. See Slide for why it takes the exclusive lock.
func (m *Tier) Outlives(p *Pin, now int64) bool {
	if p.Stored == nil || len(format.OptionBytes(format.RecordIn(p.Stored))) == 0 {
		return false
	}
	s := m.ShardOf(p.entry.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.entry.revision == p.Revision && p.entry.livesUntil() > now
}

// Slid returns the keys of all entries whose life reads have prolonged. Only memory knows how long those live.
func (m *Tier) Slid() (found []format.EntryKey) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		for e := range s.table.all {
			if e.slid.Load() != 0 {
				found = append(found, format.EntryKey{ID: e.id, Key: strings.Clone(e.key)})
			}
		}
		s.mu.RUnlock()
	}
	return found
}
