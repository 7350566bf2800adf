package keepcache

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/keepcache/keepcache/internal/format"
)

// memory is the tier in front of the file: a sharded table of records. An entry is pinned while the file
// does not have it yet, and evictable from then on. A lock of a shard is held for the length of a table
// look-up, or of a journal append, and never while the file is read or written; a hit takes it shared.
//
// What makes the tier safe beside the file (see DB): memory is read before the file; a record from the file
// is kept only if its shard has not changed since before the file was read, so that nothing older replaces
// something newer; an entry is unpinned only when readers of the file see it.
type memory struct {
	seed   maphash.Seed
	shards []shard
	shift  uint // hash >> shift is the index of a shard

	limit  int64         // bytes, of pinned and evictable entries and of the tables together
	pinned atomic.Int64  // bytes of pinned entries
	cached atomic.Int64  // bytes of evictable entries
	tables atomic.Int64  // bytes of what is remembered of keys that are not there; grows with use
	names  atomic.Int64  // bytes of what is known of buckets, for which evictable entries make room
	hand   atomic.Uint32 // the shard from which room was made last
}

// shard is one part of the table.
type shard struct {
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

	hash     uint64
	goneAt   int64 // of a removal, when it was written
	revision uint64
	prev     *entry // in its queue
	next     *entry
}

// entryOverhead is what an entry costs in bytes besides its key and its record: the entry itself, for which the allocator takes
// 112, and its share of the table, 60 where two fifths of that are used. That part is a tenth less or twice as much as the table fills
// or has lost entries.
const entryOverhead = 112 + 60

// pinOverhead is what a pinned entry costs besides: its part of what a commit collects.
const pinOverhead = 96

// bytes is what an entry takes. The capacity of what is stored is what the allocator gave for it and the key in front.
func (e *entry) bytes() int64 {
	if e.stored == nil {
		return int64(len(e.key)+len(e.key)/8) + entryOverhead // the allocator rounds up by an eighth at most
	}
	return int64(len(e.key)+cap(e.stored)) + entryOverhead
}

// shardBytes is how much memory one shard is good for. Fewer bytes get fewer shards, so that a record has a
// chance to fit into its shard's part.
const (
	shardBytes = 512 << 10
	mostShards = 128
)

// newMemory returns an empty tier of at most limit bytes.
func newMemory(limit int64) *memory {
	n := 1
	for n < mostShards && int64(n)*2*shardBytes <= limit {
		n *= 2
	}
	m := &memory{seed: maphash.MakeSeed(), shards: make([]shard, n), limit: limit}
	m.shift = uint(64 - bits.Len(uint(n-1)))
	for i := range m.shards {
		s := &m.shards[i]
		s.table = newTable()
		s.cold.ghosts = newGhosts(limit/int64(n), &m.tables)
		s.absent = newAbsences(limit / int64(n))
	}
	return m
}

// hash mixes id and key. Shards are told apart by the upper bits, the table uses all of them.
func (m *memory) hash(id uint64, key string) uint64 {
	return maphash.String(m.seed, key) ^ id*0x9E3779B97F4A7C15
}

func (m *memory) hashBytes(id uint64, key []byte) uint64 {
	return maphash.Bytes(m.seed, key) ^ id*0x9E3779B97F4A7C15
}

func (m *memory) shardIndex(hash uint64) uint { return uint(hash >> m.shift) }

func (m *memory) shardOf(hash uint64) *shard { return &m.shards[m.shardIndex(hash)] }

// sight is what a look at memory found.
type sight struct {
	known    bool   // look no further
	record   []byte // nil if there is none: the key is removed, or is known to be absent
	revision uint64
	slid     int64  // until when reads keep the entry fresh, or 0
	version  uint64 // of the shard, for keep and for expectations
}

// look looks a key up. It counts as a use of the entry.
func (s *shard) look(hash, id uint64, key string, seen *sight) { s.find(hash, id, key, 1, seen) }

// peek looks a key up without counting it as a use, for scans.
func (m *memory) peek(hash, id uint64, key string) (seen sight) {
	m.shardOf(hash).find(hash, id, key, 0, &seen)
	return seen
}

// find looks a key up, into a sight that is empty.
func (s *shard) find(hash, id uint64, key string, uses uint32, seen *sight) {
	s.mu.RLock()
	seen.version = s.version
	if e := s.table.fetch(hash, id, key); e != nil {
		seen.known, seen.record, seen.revision, seen.slid = true, format.RecordIn(e.stored), e.revision, e.slid.Load()
		if n := e.uses.Load(); n+uses <= maxUses && uses > 0 {
			e.uses.Store(n + uses) // a lost race costs one count
		}
	} else if s.absent.has(hash) {
		seen.known = true
	}
	s.mu.RUnlock()
}

// keep takes a stored value that was read from the file into the table, and its key, both as they are, unless the shard has changed since it
// had the given version, and reports whether it did. A full shard keeps, of what need not be kept, only what it
// was asked for lately already: what is read once is not worth the eviction of something else.
func (m *memory) keep(hash, id uint64, key string, stored []byte, h format.Header, version uint64, must bool) bool {
	s := m.shardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.version != version {
		return false
	}
	before := s.cold.bytes()
	size, part := int64(len(key)+cap(stored))+entryOverhead, m.part(m.held())
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
	e.key, e.stored, e.goneAt, e.revision = key, stored, h.GoneAt, h.Revision
	e.slid.Store(0)
	e.taken = false
}

// prior is what a publication replaced.
type prior struct {
	pinned bool // memory had it alone; otherwise the file has what was there, if there was anything
	taken  bool // a commit was about to bring it into the file
	key    string
	stored []byte
	header format.Header // as it was stored
	slid   int64         // until when reads had kept it fresh, or 0
	lives  int64         // until when it was there, these reads included
}

// publish makes the outcome of a write visible, pinned until unpin; it keeps key and stored value as they are. The caller holds the shard's lock and
// has it held since before the revision was given out, so that versions of a key follow each other in the
// order of their revisions.
func (m *memory) publish(hash, id uint64, key string, stored []byte, h format.Header) (before prior) {
	s := m.shardOf(hash)
	s.version++
	s.absent.drop(hash)
	bytes := s.cold.bytes()
	at := s.table.seek(hash, id, key)
	if at == nil {
		e := &entry{id: id, hash: hash}
		m.pin(s, e, key, stored, h)
		s.table.insert(e)
		m.evict(s, bytes)
		return before
	}
	e := at.entry
	if e.pinned { // and stays where it is
		before = prior{true, e.taken, e.key, e.stored, format.Header{GoneAt: e.goneAt, Revision: e.revision}, e.slid.Load(), e.livesUntil()}
		more := -e.bytes()
		e.set(key, stored, h)
		more += e.bytes()
		s.pins.bytes += more
		m.pinned.Add(more)
	} else {
		s.cold.drop(e)
		m.pin(s, e, key, stored, h)
	}
	at.aim()
	m.evict(s, bytes)
	return before
}

// pin sets an entry that is in no queue.
func (m *memory) pin(s *shard, e *entry, key string, stored []byte, h format.Header) {
	e.set(key, stored, h)
	e.pinned = true
	s.pins.push(e)
	m.pinned.Add(e.bytes() + pinOverhead)
}

// retractable reports whether a publication can be taken back: the key was not written again since, and no commit has it. The
// caller holds the shard's lock and keeps commits from running.
func (m *memory) retractable(d *draft) bool {
	e := m.shardOf(d.hash).table.find(d.hash, d.id, d.key)
	return e != nil && e.pinned && e.revision == d.header.Revision
}

// retract takes a publication back that is retractable. The caller has held the shard's lock, and kept commits from running, since
// that was asked.
func (m *memory) retract(d *draft) {
	s := m.shardOf(d.hash)
	at := s.table.seek(d.hash, d.id, d.key)
	e := at.entry
	s.version++
	m.pinned.Add(-e.bytes() - pinOverhead)
	s.pins.remove(e)
	if d.before.pinned {
		m.pin(s, e, d.before.key, d.before.stored, d.before.header)
		e.slid.Store(d.before.slid) // and no commit has it taken, for none is under way
		at.aim()
	} else {
		e.pinned = false
		s.table.remove(e)
	}
}

// stands reports whether a key is still as a look found it, the life that reads have given it included.
func (m *memory) stands(hash, id uint64, key string, seen *sight) bool {
	s := m.shardOf(hash)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.table.find(hash, id, key); e != nil {
		return e.revision == seen.revision && e.slid.Load() == seen.slid
	}
	return s.version == seen.version
}

// await returns when all who hold the lock of a hash's shard now, be it shared, have let go of it.
func (m *memory) await(hash uint64) {
	s := m.shardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
}

// held is how many bytes of the limit no eviction frees.
func (m *memory) held() int64 { return m.tables.Load() + m.pinned.Load() + m.names.Load() }

// part is how many bytes of evictable entries a shard may have beside what is held.
func (m *memory) part(held int64) int64 {
	return max(m.limit-held, 0) >> (64 - m.shift) // divided by the number of shards, in a tenth of the time
}

// evict drops evictable entries of a shard, whose lock the caller holds, until the shard is within its part
// of what pinned entries leave, and then of other shards, as far as nobody uses them, until all are. before
// is what the shard's evictable entries had when the caller took the lock.
func (m *memory) evict(s *shard, before int64) {
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
func (m *memory) shrink(s *shard, limit int64) {
	for s.cold.bytes() > limit {
		e := s.cold.evict(limit)
		if e == nil {
			return
		}
		s.table.remove(e)
	}
}

// MemoryStats say how the memory tier stands.
type MemoryStats struct {
	Entries     int   // entries in memory
	PinnedBytes int64 // bytes of entries that the file does not have yet
	CachedBytes int64 // bytes of entries that the file has too, and that may be dropped
}

// hits returns how many reads of values found one.
func (m *memory) hits() (n uint64) {
	for i := range m.shards {
		n += m.shards[i].hits.Load()
	}
	return n
}

func (m *memory) snapshot() MemoryStats {
	st := MemoryStats{PinnedBytes: m.pinned.Load(), CachedBytes: m.cached.Load()}
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		st.Entries += s.table.used
		s.mu.RUnlock()
	}
	return st
}
