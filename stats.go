package keepcache

import (
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
)

// Stats is a snapshot of a cache. Counters start with Open.
type Stats struct {
	Hits     uint64 // reads of a value that found the key, in memory or in the file
	Misses   uint64 // reads of a value that found it absent or expired
	FileHits uint64 // those of the hits that memory did not have
	Sets     uint64 // values written, one a key: Set and its kin, Add, Swap, Update, Increment, CompareAndSwap, Apply
	Deletes  uint64 // live entries removed by Delete, DeleteMany, DeletePrefix and Take
	Damaged  uint64 // damaged entries met by reads, each time they were met

	FileBytes int64 // size of the file in bytes
	FreePages int64 // pages of it that hold nothing; 0 for a file that crashed and is open for reading only
	FreeBytes int64 // bytes of these

	// Entries are the entries in all buckets, committed or not, expired ones that the sweeper has not reached yet
	// included. While more than 8,192 writes wait for their commit, what these change is an estimate. Len is exact.
	Entries int64
	Bytes   int64 // what their keys and records amount to

	// Cost is how many bytes of the file the entries and buckets in it need, as MaxBytes counts them: those of cleared
	// and dropped buckets that the sweeper has not reached included, writes that wait for their commit not.
	Cost int64

	Buckets map[string]BucketStats // by name, of every bucket that exists

	Reads  Latencies // how long Get and GetBytes took to find a value, of a sample of about one in 128
	Writes Latencies // how long Set and SetBytes took to write one, of a sample of about one in 128

	Health    HealthStats
	Budgets   BudgetStats
	Evictions EvictionStats
	Compact   CompactStats
	Loads     LoadStats
	Memory    MemoryStats
	Journal   JournalStats
	Commit    CommitStats
	Sweep     SweepStats
}

// HitRatio returns the part of the reads that found their key, from 0 to 1, and 0 before the first.
func (s Stats) HitRatio() float64 {
	if s.Hits == 0 {
		return 0
	}
	return float64(s.Hits) / float64(s.Hits+s.Misses)
}

// BudgetStats are the bounds that Options set, in bytes; -1 is unlimited.
type BudgetStats struct {
	Bytes        int64 // MaxBytes, which bounds Stats.Cost; where buckets alone need more than half of it, what they need beyond that comes on top
	MemoryBytes  int64 // MemoryBytes
	JournalBytes int64 // JournalBytes
}

// budgets returns the bounds that the options set.
func (o *Options) budgets() BudgetStats {
	bound := func(n int64) int64 {
		if n >= unlimited {
			return -1
		}
		return n
	}
	return BudgetStats{bound(o.MaxBytes), bound(o.MemoryBytes), bound(o.JournalBytes)}
}

// BucketStats are the part of Stats that speaks of one bucket.
type BucketStats struct {
	Entries int64 // as Stats.Entries
	Bytes   int64 // what their keys and records amount to
	Cost    int64 // bytes of the file that those of them in it need, as MaxBytes counts them, without what the bucket itself needs
}

// counters are what the operations count.
type counters struct {
	hits                                     atomic.Uint64 // but for those that the shards of memory count
	misses, fileHits, sets, deletes, damaged atomic.Uint64

	reads, writes latency

	loadCounters
}

// beginRead returns when a read begins if it is one of the sample.
func (c *counters) beginRead() time.Time { return c.reads.begin() }

// beginWrite is beginRead for a write.
func (c *counters) beginWrite() time.Time { return c.writes.begin() }

// get counts a read of a value.
func (c *counters) get(r *reading) {
	switch {
	case !r.live:
		c.misses.Add(1)
		return
	case r.shard == nil:
		c.hits.Add(1)
	default:
		r.shard.Hit()
	}
	if r.file {
		c.fileHits.Add(1)
	}
}

// Stats returns a snapshot of what the cache did since Open and how it stands. It is cheap enough to be
// called every second: it takes some milliseconds, more with very many buckets. After Close it returns the
// counters alone.
func (db *DB) Stats() Stats {
	s := Stats{
		Hits:     db.counts.hits.Load() + db.memory.Hits(),
		Misses:   db.counts.misses.Load(),
		Sets:     db.counts.sets.Load(),
		Deletes:  db.counts.deletes.Load(),
		Damaged:  db.counts.damaged.Load(),
		FileHits: db.counts.fileHits.Load(),
		Reads:    db.counts.reads.snapshot(),
		Writes:   db.counts.writes.snapshot(),
		Loads:    db.counts.loadCounters.snapshot(),
		Memory:   MemoryStats(db.memory.Stats()),
		Sweep:    db.sweeper.snapshot(),
		Health:   db.healer.snapshot(),
		Budgets:  db.options.budgets(),
	}
	if db.live != nil {
		s.Budgets = BudgetStats{} // they are those of the process that has it open
		if !db.closed.Load() {
			_ = db.live.stats(&s) // without them the counters are what there is
		}
		return s
	}
	s.Evictions = db.evictor.snapshot()
	s.Evictions.Expired = s.Sweep.Removed + s.Sweep.Replaced
	s.Evictions.Explicit = s.Deletes + s.Sweep.Cleared
	if db.writer != nil {
		s.Compact = db.compactor.snapshot()
		s.Commit = db.commits.snapshot()
		s.Journal = db.writer.snapshot()
	}
	// Memory is looked at before the file, so that what a commit moves meanwhile is counted once.
	file, used, err := db.store.SizeWith(pendingIn(db.memory))
	if err != nil {
		return s
	}
	s.FileBytes = file
	pages, free := db.store.Free()
	s.FreePages, s.FreeBytes = int64(pages), free
	s.Cost = cost.Sum(used).Cost()
	s.Buckets = make(map[string]BucketStats)
	db.mu.RLock()
	defer db.mu.RUnlock()
	for name, ns := range db.buckets {
		if id := ns.id.Load(); id != 0 {
			u := used[id]
			s.Buckets[name] = BucketStats{Entries: u.Entries, Bytes: u.Bytes, Cost: u.Cost()}
			s.Entries += u.Entries
			s.Bytes += u.Bytes
		}
	}
	return s
}

// JournalStats say how the journal stands and what it did.
type JournalStats struct {
	FileBytes int64         // size of the journal's file
	UsedBytes int64         // part of it that holds writes which the file does not have yet
	Mapped    bool          // it is written through a memory map; else by system calls
	Failed    bool          // it failed, and writes wait for their commit until there is a new one
	Appends   uint64        // pieces appended
	Flushes   uint64        // flushes of the disk
	FlushTime time.Duration // spent in them
}

func (w *writer) snapshot() JournalStats {
	w.mu.Lock()
	j := w.journal
	w.mu.Unlock()
	if j == nil {
		return JournalStats{Failed: true}
	}
	s := j.Stats()
	return JournalStats{
		FileBytes: s.FileBytes, UsedBytes: s.UsedBytes, Mapped: s.Mapped,
		Appends: s.Appends, Flushes: s.Flushes, FlushTime: s.FlushTime,
	}
}

// MemoryStats say how the memory tier stands.
type MemoryStats struct {
	Entries     int   // entries in memory
	PinnedBytes int64 // bytes of entries that the file does not have yet
	CachedBytes int64 // bytes of entries that the file has too, and that may be dropped
}

// pendingIn returns a sample of the pinned entries.
func pendingIn(m *memory.Tier) *cost.Pending {
	s := cost.NewPending(m.PinnedEntries())
	m.EachPinned(func(p *memory.Pin) { s.Add(p.ID, p.Key, len(format.RecordIn(p.Stored))) })
	return s
}
