package memory

// held returns how many bytes of the limit eviction cannot free.
func (m *Tier) held() int64 { return m.tables.Load() + m.pinned.Load() + m.names.Load() }

// part returns how many bytes of evictable entries a shard may have when held bytes cannot be freed.
func (m *Tier) part(held int64) int64 {
	return max(m.limit-held, 0) >> (64 - m.shift) // a division by the number of shards, in a tenth of the time
}

// evict drops evictable entries of a shard until the shard is within its part of what pinned entries leave. Then it
// drops entries of other shards, skipping locked ones, until the tier is within its limit. The caller holds the lock of
// s. before is the size of the evictable entries of s when the caller took the lock.
func (m *Tier) evict(s *Shard, before int64) {
	held := m.held()
	m.shrink(s, m.part(held))
	if more := s.evictable.bytes() - before; more != 0 {
		m.cached.Add(more)
	}
	for range m.shards {
		cached := m.cached.Load()
		over := min(held+cached-m.limit, cached) // pinned entries alone may exceed the limit for a while
		if over <= 0 {
			return
		}
		held = m.held()
		other := &m.shards[m.hand.Add(1)%uint32(len(m.shards))]
		if other == s || !other.mu.TryLock() {
			continue
		}
		before := other.evictable.bytes()
		m.shrink(other, max(before-over, 0))
		m.cached.Add(other.evictable.bytes() - before)
		other.mu.Unlock()
	}
}

// shrink evicts until the shard's evictable entries have at most limit bytes.
func (m *Tier) shrink(s *Shard, limit int64) {
	for s.evictable.bytes() > limit {
		e := s.evictable.evict(limit)
		if e == nil {
			return
		}
		s.table.remove(e)
	}
}

// Forget drops an entry that was evicted from the file, unless memory has a newer version. It changes the shard's
// version, so a read of the file from before the eviction is not kept.
func (m *Tier) Forget(id uint64, key string) {
	hash := m.Hash(id, key)
	s := m.ShardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	if e := s.table.find(hash, id, key); e != nil && !e.pinned {
		before := s.evictable.bytes()
		s.evictable.drop(e)
		s.table.remove(e)
		m.cached.Add(s.evictable.bytes() - before)
	}
}
