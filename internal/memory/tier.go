// Package memory is the memory tier: it knows entries that the file does not have yet (pinned), entries that were read or committed
// lately (evictable), and keys that the file does not have (absent). It is the only package that knows of shards, tables and queues.
package memory

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/keepcache/keepcache/internal/clock"
	"github.com/keepcache/keepcache/internal/format"
)

// Tier is what stands in front of the file: a sharded table of records. An entry is pinned while the file
// does not have it yet, and evictable from then on. A lock of a shard is held for the length of a table
// look-up, or of a journal append, and never while the file is read or written; a hit takes it shared.
//
// What makes the tier safe beside the file (see docs/architecture.md): memory is read before the file; a record from
// the file is kept only if its shard has not changed since before the file was read, so that nothing older replaces
// something newer; an entry is unpinned only when readers of the file see it.
type Tier struct {
	seed   maphash.Seed
	shards []Shard
	shift  uint // hash >> shift is the index of a shard

	limit  int64         // bytes, of pinned and evictable entries and of the tables together
	pinned atomic.Int64  // bytes of pinned entries
	cached atomic.Int64  // bytes of evictable entries
	tables atomic.Int64  // bytes of what is remembered of keys that are not there; grows with use
	names  atomic.Int64  // bytes of what is known of buckets, for which evictable entries make room
	hand   atomic.Uint32 // the shard from which room was made last
}

// Shard is one part of the table.
type Shard struct {
	// What a hit needs is within one cache line, as long as shards begin at one.
	hits    atomic.Uint64 // reads of values that were found, here where the line is at hand anyway
	mu      sync.RWMutex  // protects what follows
	version uint64        // rises with every change that a reader of the file must not overlook
	table   table
	pins    queue // pinned entries
	cold    cold  // evictable entries
	absent  absences

	_ [56]byte // keeps two shards out of one cache line, and of the next, which processors fetch too
}

// entry is what memory knows of one key. Its fields are protected by the lock of its shard; the record
// itself never changes, so it may be used after the lock is released. The room in front of it is for the commit that is under way.
type entry struct {
	// What a hit needs comes first, within the 64 bytes of a cache line.
	id     uint64
	key    string        // mostly in front of the record, in the same memory
	stored []byte        // room for a row, and the record; nil: the key is removed, which only pinned entries say
	slid   atomic.Int64  // until when reads of a sliding lifetime keep it fresh; 0 if they do not
	uses   atomic.Uint32 // hits since it was last considered for eviction, up to maxUses
	pinned bool
	taken  bool // the commit that is under way has it; written under the lock that is shared, by the commit alone
	place  place

	hash       uint64
	staleUntil int64 // of a removal, when it was written
	revision   uint64
	prev       *entry // in its queue
	next       *entry
}

// EntryOverhead is what an entry costs in bytes besides its key and its record: the entry itself, for which the allocator takes
// 112, and its share of the table, 60 where two fifths of that are used. That part is a tenth less or twice as much as the table fills
// or has lost entries.
const EntryOverhead = 112 + 60

// PinOverhead is what a pinned entry costs besides: its part of what a commit collects.
const PinOverhead = 96

// bytes is what an entry takes. The capacity of what is stored is what the allocator gave for it and the key in front.
func (e *entry) bytes() int64 {
	if e.stored == nil {
		return int64(len(e.key)+len(e.key)/8) + EntryOverhead // the allocator rounds up by an eighth at most
	}
	return int64(len(e.key)+cap(e.stored)) + EntryOverhead
}

// shardBytes is how much memory one shard is good for. Fewer bytes get fewer shards, so that a record has a
// chance to fit into its shard's part.
const (
	shardBytes = 512 << 10
	mostShards = 128
)

// New returns an empty tier of at most limit bytes.
func New(limit int64) *Tier {
	n := 1
	for n < mostShards && int64(n)*2*shardBytes <= limit {
		n *= 2
	}
	m := &Tier{seed: maphash.MakeSeed(), shards: make([]Shard, n), limit: limit}
	m.shift = uint(64 - bits.Len(uint(n-1)))
	for i := range m.shards {
		s := &m.shards[i]
		s.table = newTable()
		s.cold.ghosts = newGhosts(limit/int64(n), &m.tables)
		s.absent = newAbsences(limit / int64(n))
	}
	return m
}

// Hash mixes id and key. Shards are told apart by the upper bits, the table uses all of them.
func (m *Tier) Hash(id uint64, key string) uint64 {
	return maphash.String(m.seed, key) ^ id*0x9E3779B97F4A7C15
}

func (m *Tier) HashBytes(id uint64, key []byte) uint64 {
	return maphash.Bytes(m.seed, key) ^ id*0x9E3779B97F4A7C15
}

func (m *Tier) shardIndex(hash uint64) uint { return uint(hash >> m.shift) }

func (m *Tier) ShardOf(hash uint64) *Shard { return &m.shards[m.shardIndex(hash)] }

// Lookup is what a look at memory found.
type Lookup struct {
	Known    bool   // look no further
	Record   []byte // nil if there is none: the key is removed, or is known to be absent
	Revision uint64
	Slid     int64  // until when reads keep the entry fresh, or 0
	Version  uint64 // of the shard, for Keep and for expectations
}

// Look looks a key up. It counts as a use of the entry.
func (s *Shard) Look(hash, id uint64, key string, seen *Lookup) { s.find(hash, id, key, 1, seen) }

// Peek looks a key up without counting it as a use, for scans.
func (m *Tier) Peek(hash, id uint64, key string) (seen Lookup) {
	m.ShardOf(hash).find(hash, id, key, 0, &seen)
	return seen
}

// find looks a key up, into a lookup that is empty.
func (s *Shard) find(hash, id uint64, key string, uses uint32, seen *Lookup) {
	s.mu.RLock()
	seen.Version = s.version
	if e := s.table.fetch(hash, id, key); e != nil {
		seen.Known, seen.Record, seen.Revision, seen.Slid = true, format.RecordIn(e.stored), e.revision, e.slid.Load()
		if n := e.uses.Load(); n+uses <= maxUses && uses > 0 {
			e.uses.Store(n + uses) // a lost race costs one count
		}
	} else if s.absent.has(hash) {
		seen.Known = true
	}
	s.mu.RUnlock()
}

// Keep takes a stored value that was read from the file into the table, and its key, both as they are, unless the shard has changed since it
// had the given version, and reports whether it did. A full shard keeps, of what need not be kept, only what it
// was asked for lately already: what is read once is not worth the eviction of something else.
func (m *Tier) Keep(hash, id uint64, key string, stored []byte, h format.Header, version uint64, must bool) bool {
	s := m.ShardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.version != version {
		return false
	}
	before := s.cold.bytes()
	size, part := int64(len(key)+cap(stored))+EntryOverhead, m.part(m.held())
	if size > part && !must {
		return false // it would drive out all others, and then itself
	}
	full := before+size > part
	if full && !must && !s.cold.ghosts.has(hash) {
		s.cold.ghosts.put(hash)
		return false
	}
	if s.table.find(hash, id, key) != nil {
		return false
	}
	e := &entry{id: id, hash: hash}
	e.set(key, stored, h)
	s.table.insert(e)
	s.cold.add(e)
	m.evict(s, before)
	return true
}

func (e *entry) set(key string, stored []byte, h format.Header) {
	e.key, e.stored, e.staleUntil, e.revision = key, stored, h.StaleUntil, h.Revision
	e.slid.Store(0)
	e.taken = false
}

// prolong keeps the life that reads have given the entry, if they have.
func (e *entry) prolong(slid int64) {
	if slid != 0 {
		e.slid.Store(slid)
	}
}

// Replaced is what a publication replaced.
type Replaced struct {
	Pinned bool // memory had it alone; otherwise the file has what was there, if there was anything
	Taken  bool // a commit was about to bring it into the file
	key    string
	Stored []byte
	header format.Header // as it was stored
	slid   int64         // until when reads had kept it fresh, or 0
	Lives  int64         // until when it was there, these reads included
}

// Publish makes the outcome of a write visible, pinned until Unpin; it keeps key and stored value as they are. slid is until when reads
// keep it fresh, or 0. The caller holds the shard's lock and has held it since before the revision was given out, so that versions of a
// key follow each other in the order of their revisions.
func (m *Tier) Publish(hash, id uint64, key string, stored []byte, h format.Header, slid int64) (before Replaced) {
	s := m.ShardOf(hash)
	s.version++
	s.absent.drop(hash)
	bytes := s.cold.bytes()
	at := s.table.seek(hash, id, key)
	if at == nil {
		e := &entry{id: id, hash: hash}
		m.pin(s, e, key, stored, h)
		s.table.insert(e)
		e.prolong(slid)
		m.evict(s, bytes)
		return before
	}
	e := at.entry
	if e.pinned { // and stays where it is
		before = Replaced{true, e.taken, e.key, e.stored, format.Header{StaleUntil: e.staleUntil, Revision: e.revision}, e.slid.Load(), e.livesUntil()}
		more := -e.bytes()
		e.set(key, stored, h)
		more += e.bytes()
		s.pins.bytes += more
		m.pinned.Add(more)
	} else {
		s.cold.drop(e)
		m.pin(s, e, key, stored, h)
	}
	e.prolong(slid)
	at.aim()
	m.evict(s, bytes)
	return before
}

// pin sets an entry that is in no queue.
func (m *Tier) pin(s *Shard, e *entry, key string, stored []byte, h format.Header) {
	e.set(key, stored, h)
	e.pinned = true
	s.pins.push(e)
	m.pinned.Add(e.bytes() + PinOverhead)
}

// Retractable reports whether the publication of a revision can be taken back: the key was not written again since, and no commit has
// it. The caller holds the shard's lock and keeps commits from running.
func (m *Tier) Retractable(hash, id uint64, key string, revision uint64) bool {
	e := m.ShardOf(hash).table.find(hash, id, key)
	return e != nil && e.pinned && e.revision == revision
}

// Retract takes a publication back that is retractable: what it replaced is there again. The caller has held the shard's lock, and
// kept commits from running, since that was asked.
func (m *Tier) Retract(hash, id uint64, key string, before *Replaced) {
	s := m.ShardOf(hash)
	at := s.table.seek(hash, id, key)
	e := at.entry
	s.version++
	m.pinned.Add(-e.bytes() - PinOverhead)
	s.pins.remove(e)
	if before.Pinned {
		m.pin(s, e, before.key, before.Stored, before.header)
		e.slid.Store(before.slid) // and no commit has it taken, for none is under way
		at.aim()
	} else {
		e.pinned = false
		s.table.remove(e)
	}
}

// Unchanged reports whether a key is still as a look found it, the life that reads have given it included.
func (m *Tier) Unchanged(hash, id uint64, key string, seen *Lookup) bool {
	s := m.ShardOf(hash)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.table.find(hash, id, key); e != nil {
		return e.revision == seen.Revision && e.slid.Load() == seen.Slid
	}
	return s.version == seen.Version
}

// Basis is what a write rests on: its key is still as a look found it.
type Basis struct {
	Lookup
	Until int64 // the deadline of the entry that was found, which had been reached or not; Never where there is none
	Fresh bool  // it had not been
}

// IgnoreDeadlines is for a test that has to show that it would miss them.
var IgnoreDeadlines bool

// Meets reports whether a key is still what a write rests on. The caller holds the shard's lock. Between the decision to write and
// this moment a writer may have waited for room for seconds: the deadline of what he decided upon may have been reached, and others may
// have seen that.
func (m *Tier) Meets(c *clock.Clock, hash, id uint64, key string, b *Basis) bool {
	s := m.ShardOf(hash)
	e := s.table.find(hash, id, key)
	if e == nil {
		if s.version != b.Version {
			return false
		}
	} else if e.revision != b.Revision {
		return false
	}
	until := b.Until
	if e != nil && until != format.Never {
		until = max(until, e.slid.Load()) // other reads have prolonged it
	}
	return until == format.Never || IgnoreDeadlines || format.Millis(c.Now()) < until == b.Fresh
}

// Await returns when all who hold the lock of a hash's shard now, be it shared, have let go of it.
func (m *Tier) Await(hash uint64) {
	s := m.ShardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
}

// held is how many bytes of the limit no eviction frees.
func (m *Tier) held() int64 { return m.tables.Load() + m.pinned.Load() + m.names.Load() }

// part is how many bytes of evictable entries a shard may have beside what is held.
func (m *Tier) part(held int64) int64 {
	return max(m.limit-held, 0) >> (64 - m.shift) // divided by the number of shards, in a tenth of the time
}

// evict drops evictable entries of a shard, whose lock the caller holds, until the shard is within its part
// of what pinned entries leave, and then of other shards, as far as nobody uses them, until all are. before
// is what the shard's evictable entries had when the caller took the lock.
func (m *Tier) evict(s *Shard, before int64) {
	held := m.held()
	m.shrink(s, m.part(held))
	if more := s.cold.bytes() - before; more != 0 {
		m.cached.Add(more)
	}
	for range m.shards {
		cached := m.cached.Load()
		over := min(held+cached-m.limit, cached) // what is pinned alone may be more than the limit at first
		if over <= 0 {
			return
		}
		held = m.held()
		other := &m.shards[m.hand.Add(1)%uint32(len(m.shards))]
		if other == s || !other.mu.TryLock() {
			continue
		}
		before := other.cold.bytes()
		m.shrink(other, max(before-over, 0))
		m.cached.Add(other.cold.bytes() - before)
		other.mu.Unlock()
	}
}

// shrink evicts until the shard's evictable entries have at most the given bytes.
func (m *Tier) shrink(s *Shard, limit int64) {
	for s.cold.bytes() > limit {
		e := s.cold.evict(limit)
		if e == nil {
			return
		}
		s.table.remove(e)
	}
}

// Stats say how the tier stands, see keepcache.MemoryStats.
type Stats struct {
	Entries     int
	PinnedBytes int64
	CachedBytes int64
}

// Limit returns how many bytes the tier may have.
func (m *Tier) Limit() int64 { return m.limit }

// PinnedBytes returns the bytes of entries that the file does not have yet.
func (m *Tier) PinnedBytes() int64 { return m.pinned.Load() }

// Reserve has evictable entries make room for tables elsewhere that count as memory. What is negative is given back.
func (m *Tier) Reserve(bytes int64) { m.tables.Add(bytes) }

// AddNames is Reserve for what is known of buckets, and NameBytes is all of that.
func (m *Tier) AddNames(bytes int64) { m.names.Add(bytes) }

func (m *Tier) NameBytes() int64 { return m.names.Load() }

// Hit counts a read of a value that was found in the shard.
func (s *Shard) Hit() { s.hits.Add(1) }

// Hits returns how many reads of values found one.
func (m *Tier) Hits() (n uint64) {
	for i := range m.shards {
		n += m.shards[i].hits.Load()
	}
	return n
}

func (m *Tier) Stats() Stats {
	st := Stats{PinnedBytes: m.pinned.Load(), CachedBytes: m.cached.Load()}
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		st.Entries += s.table.used
		s.mu.RUnlock()
	}
	return st
}
