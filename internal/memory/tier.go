// Package memory is the memory tier. It holds entries that the file does not have yet (pinned), entries that were read
// or committed lately (evictable), and keys that the file is known not to have (absent). It is the only package that
// knows of tables and queues; the engine locks shards, through their methods.
package memory

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/keepcache/keepcache/internal/clock"
	"github.com/keepcache/keepcache/internal/format"
)

// Tier is the cache in front of the file: a sharded table of records. An entry is pinned until the file has it, and
// evictable from then on. A shard's lock is held for a look-up in the table or an append to the journal, and never
// while the file is read or written. A hit takes it shared.
//
// Three rules keep the tier consistent with the file. Memory is read before the file. A
// record from the file is kept only if its shard has not changed since before the file was read, so it cannot replace a
// newer one. An entry is unpinned only when readers of the file see it.
type Tier struct {
	seed   maphash.Seed
	shards []Shard
	shift  uint // hash >> shift is the index of a shard

	limit  int64         // in bytes, for pinned and evictable entries and the tables together
	pinned atomic.Int64  // bytes of pinned entries
	cached atomic.Int64  // bytes of evictable entries
	tables atomic.Int64  // bytes of ghosts, absent keys and reserved tables; grows with use
	names  atomic.Int64  // bytes that the names of buckets take; evictable entries make room for them
	hand   atomic.Uint32 // the shard that last gave up entries for another
}

// Shard is one part of the table, with a lock of its own.
type Shard struct {
	// What a hit needs lies within one cache line, provided that shards are aligned to cache lines.
	hits      atomic.Uint64 // reads that found a value; counted here because the line is loaded anyway
	mu        sync.RWMutex  // protects what follows
	version   uint64        // rises with every change that a reader of the file must notice
	table     table
	pins      queue // pinned entries
	evictable s3fifo
	absent    absentKeys

	_ [56]byte // keeps shards in different cache lines, and in different pairs of lines, which processors fetch together
}

// entry is what memory has of one key. The shard's lock protects its fields. The bytes of the record never change, so a
// reader may use them after it has released the lock. The room in front of the record belongs to the running commit.
type entry struct {
	// What a hit needs comes first, within the 64 bytes of a cache line.
	id     uint64
	key    string        // usually in one allocation with the record, see Join
	stored []byte        // room for a row, and the record; nil for a tombstone, which is always pinned
	slid   atomic.Int64  // until when reads keep it fresh (sliding lifetime), or 0
	uses   atomic.Uint32 // hits since it was last considered for eviction, up to maxUses
	pinned bool
	taken  bool // by the running commit; only the commit sets it, under the shared lock
	place  place

	hash       uint64
	staleUntil int64 // of a tombstone: when it was written
	revision   uint64
	prev       *entry // in its queue
	next       *entry
}

// EntryOverhead is what an entry costs in bytes besides key and record: 112 for the entry itself as the allocator
// rounds it, and 60 for its share of a table that is two fifths full. Depending on how full the table is, the share is
// a tenth less to twice as much.
const EntryOverhead = 112 + 60

// PinOverhead is what a pinned entry costs on top: its part of the list that a commit collects.
const PinOverhead = 96

// bytes returns the size of an entry. The capacity of stored covers what the allocator gave for key and record.
func (e *entry) bytes() int64 {
	if e.stored == nil {
		return int64(len(e.key)+len(e.key)/8) + EntryOverhead // the allocator rounds up by an eighth at most
	}
	return int64(len(e.key)+cap(e.stored)) + EntryOverhead
}

// shardBytes is the size of memory for which a second shard pays. A small memory gets few shards, so that a record has
// a chance to fit into its shard's part.
const (
	shardBytes = 512 << 10
	maxShards  = 128
)

// New returns an empty tier of at most limit bytes.
func New(limit int64) *Tier {
	n := 1
	for n < maxShards && int64(n)*2*shardBytes <= limit {
		n *= 2
	}
	m := &Tier{seed: maphash.MakeSeed(), shards: make([]Shard, n), limit: limit}
	m.shift = uint(64 - bits.Len(uint(n-1)))
	for i := range m.shards {
		s := &m.shards[i]
		s.table = newTable()
		s.evictable.ghosts = newGhosts(limit/int64(n), &m.tables)
		s.absent = newAbsentKeys(limit / int64(n))
	}
	return m
}

// Hash hashes id and key. The upper bits choose the shard, the table uses all of them.
func (m *Tier) Hash(id uint64, key string) uint64 {
	return maphash.String(m.seed, key) ^ id*0x9E3779B97F4A7C15
}

func (m *Tier) HashBytes(id uint64, key []byte) uint64 {
	return maphash.Bytes(m.seed, key) ^ id*0x9E3779B97F4A7C15
}

func (m *Tier) shardIndex(hash uint64) uint { return uint(hash >> m.shift) }

func (m *Tier) ShardOf(hash uint64) *Shard { return &m.shards[m.shardIndex(hash)] }

// Lookup is the result of a look-up in memory.
type Lookup struct {
	Known    bool   // memory has the answer; the file need not be read
	Record   []byte // nil if the key is deleted or known to be absent
	Revision uint64
	Slid     int64  // until when reads keep the entry fresh, or 0
	Version  uint64 // of the shard, for Keep and Meets
}

// Look looks a key up and counts that as a use of the entry.
func (s *Shard) Look(hash, id uint64, key string, seen *Lookup) { s.find(hash, id, key, 1, seen) }

// Peek looks a key up without counting it as a use, for scans.
func (m *Tier) Peek(hash, id uint64, key string) (seen Lookup) {
	m.ShardOf(hash).find(hash, id, key, 0, &seen)
	return seen
}

// find looks a key up. seen must be zero.
func (s *Shard) find(hash, id uint64, key string, uses uint32, seen *Lookup) {
	s.mu.RLock()
	seen.Version = s.version
	if e := s.table.fetch(hash, id, key); e != nil {
		seen.Known, seen.Record, seen.Revision, seen.Slid = true, format.RecordIn(e.stored), e.revision, e.slid.Load()
		if n := e.uses.Load(); n+uses <= maxUses && uses > 0 {
			e.uses.Store(n + uses) // losing a race loses one count
		}
	} else if s.absent.has(hash) {
		seen.Known = true
	}
	s.mu.RUnlock()
}

// Keep adds a stored value that was read from the file and reports whether it did. It keeps key and value without
// copying them. It does nothing if the shard has changed since the given version. Unless must is set, a full shard
// keeps only what was already asked for lately: what is read once is not worth an eviction.
func (m *Tier) Keep(hash, id uint64, key string, stored []byte, h format.Header, version uint64, must bool) bool {
	s := m.ShardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.version != version {
		return false
	}
	before := s.evictable.bytes()
	size, part := int64(len(key)+cap(stored))+EntryOverhead, m.part(m.held())
	if size > part && !must {
		return false // it would drive out all other entries, and then itself
	}
	full := before+size > part
	if full && !must && !s.evictable.ghosts.has(hash) {
		s.evictable.ghosts.put(hash)
		return false
	}
	if s.table.find(hash, id, key) != nil {
		return false
	}
	e := &entry{id: id, hash: hash}
	e.set(key, stored, h)
	s.table.insert(e)
	s.evictable.add(e)
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

// Replaced is what a publication has replaced, for Retract.
type Replaced struct {
	Pinned bool // only memory had the entry; otherwise the file has the previous version, if there is one
	Taken  bool // a commit had collected it
	key    string
	Stored []byte
	header format.Header // as it was stored
	slid   int64         // until when reads had kept it fresh, or 0
	Lives  int64         // when it would have been gone, including those reads
}

// Publish makes a write visible and pins it until Unpin. It keeps key and stored value without copying them. slid is
// until when reads keep the entry fresh, or 0. The caller must have held the shard's lock since before the revision was
// assigned, so that the versions of a key follow each other in the order of their revisions.
func (m *Tier) Publish(hash, id uint64, key string, stored []byte, h format.Header, slid int64) (before Replaced) {
	s := m.ShardOf(hash)
	s.version++
	s.absent.drop(hash)
	bytes := s.evictable.bytes()
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
	if e.pinned { // it stays in its queue
		old := format.Header{StaleUntil: e.staleUntil, Revision: e.revision}
		before = Replaced{true, e.taken, e.key, e.stored, old, e.slid.Load(), e.livesUntil()}
		more := -e.bytes()
		e.set(key, stored, h)
		more += e.bytes()
		s.pins.bytes += more
		m.pinned.Add(more)
	} else {
		s.evictable.drop(e)
		m.pin(s, e, key, stored, h)
	}
	e.prolong(slid)
	at.setPrefetch()
	m.evict(s, bytes)
	return before
}

// pin sets and pins an entry that is in no queue.
func (m *Tier) pin(s *Shard, e *entry, key string, stored []byte, h format.Header) {
	e.set(key, stored, h)
	e.pinned = true
	s.pins.push(e)
	m.pinned.Add(e.bytes() + PinOverhead)
}

// Retractable reports whether the publication of a revision can be undone: the key was not written again, and no commit
// has unpinned it. The caller holds the shard's lock and keeps commits from running.
func (m *Tier) Retractable(hash, id uint64, key string, revision uint64) bool {
	e := m.ShardOf(hash).table.find(hash, id, key)
	return e != nil && e.pinned && e.revision == revision
}

// Retract undoes a publication for which Retractable has returned true: the replaced entry is back. The caller must
// have held the shard's lock, and kept commits from running, since that call.
func (m *Tier) Retract(hash, id uint64, key string, before *Replaced) {
	s := m.ShardOf(hash)
	at := s.table.seek(hash, id, key)
	e := at.entry
	s.version++
	m.pinned.Add(-e.bytes() - PinOverhead)
	s.pins.remove(e)
	if before.Pinned {
		m.pin(s, e, before.key, before.Stored, before.header)
		e.slid.Store(before.slid) // not taken, because no commit is running
		at.setPrefetch()
	} else {
		e.pinned = false
		s.table.remove(e)
	}
}

// Unchanged reports whether a key is still as a look-up found it, including how long reads have prolonged its life.
func (m *Tier) Unchanged(hash, id uint64, key string, seen *Lookup) bool {
	s := m.ShardOf(hash)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.table.find(hash, id, key); e != nil {
		return e.revision == seen.Revision && e.slid.Load() == seen.Slid
	}
	return s.version == seen.Version
}

// Expectation is what a write expects of its key: that it is still as a look-up found it.
type Expectation struct {
	Lookup
	Until int64 // the deadline of the entry that was found, reached or not; Never if there was none
	Fresh bool  // the deadline had not been reached
}

// IgnoreDeadlines switches the check of deadlines off. A test sets it to show that it would notice.
var IgnoreDeadlines bool

// Meets reports whether a key still is as a write expects it. The caller holds the shard's lock. The deadline is
// checked too: a writer may have waited seconds for room since it decided, and others may have seen the entry expire.
func (m *Tier) Meets(c *clock.Clock, hash, id uint64, key string, b *Expectation) bool {
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
		until = max(until, e.slid.Load()) // reads have prolonged its life
	}
	return until == format.Never || IgnoreDeadlines || format.Millis(c.Now()) < until == b.Fresh
}

// Await waits until every current holder of the shard's lock, shared or not, has released it.
func (m *Tier) Await(hash uint64) {
	s := m.ShardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
}

// Stats is a snapshot of the tier's size, see keepcache.MemoryStats.
type Stats struct {
	Entries     int64
	PinnedBytes int64
	CachedBytes int64
}

// Limit returns how many bytes the tier may take.
func (m *Tier) Limit() int64 { return m.limit }

// PinnedBytes returns the bytes of pinned entries.
func (m *Tier) PinnedBytes() int64 { return m.pinned.Load() }

// Reserve counts bytes of tables elsewhere against the limit, so that evictable entries make room for them. A negative
// number gives them back.
func (m *Tier) Reserve(bytes int64) { m.tables.Add(bytes) }

// AddNames is Reserve for the names of buckets. NameBytes returns their sum.
func (m *Tier) AddNames(bytes int64) { m.names.Add(bytes) }

func (m *Tier) NameBytes() int64 { return m.names.Load() }

// Hit counts a read that found a value in the shard.
func (s *Shard) Hit() { s.hits.Add(1) }

// Hits returns how many reads found a value.
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
		st.Entries += int64(s.table.used)
		s.mu.RUnlock()
	}
	return st
}
