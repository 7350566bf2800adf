package keepcache

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/engine"
)

// Stats is a snapshot of a cache. Counters start with Open.
type Stats struct {
	// Hits and Misses count the reads of values: Get and its kin, and GetOrLoad. A stale value that GetOrLoad serves is a
	// hit. An ErrNotFound that it remembers is neither, see LoadStats.NegativeHits. Exists, Stat and ranges do not count.
	Hits     uint64 // those that found the key, in memory or in the file
	Misses   uint64 // those that found it absent or expired
	FileHits uint64 // hits that memory did not have
	Sets     uint64 // values written, one a key: Set and its kin, Add, Swap, Update, Increment, CompareAndSwap, Apply
	Deletes  uint64 // live entries removed by Delete, DeleteMany, DeletePrefix and Take
	Damaged  uint64 // damaged entries met by reads, each time they were met

	FileBytes int64 // size of the file in bytes
	FreePages int64 // pages of it that hold nothing; 0 for a file that crashed and is open for reading only
	FreeBytes int64 // bytes of these

	// Entries is the number of entries in all buckets, committed or not, including expired ones that were not swept yet.
	// While more than 8,192 writes wait for their commit, their part is an estimate. Len is exact.
	Entries int64
	Bytes   int64 // what their keys and records amount to

	// Cost is how many bytes of the file the entries and buckets in it need, as MaxBytes counts them. It includes cleared
	// and dropped buckets that were not swept yet, and not the writes that wait for their commit.
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

// HitRatio returns which part of the reads found their key, from 0 to 1. It is 0 before the first hit.
func (s Stats) HitRatio() float64 {
	if s.Hits == 0 {
		return 0
	}
	return float64(s.Hits) / float64(s.Hits+s.Misses)
}

// BudgetStats are the bounds that Options set, in bytes; -1 is unlimited.
type BudgetStats struct {
	// Bytes is MaxBytes, which bounds Stats.Cost. If buckets alone need more than half of it, the rest of what they need
	// comes on top.
	Bytes        int64
	MemoryBytes  int64 // MemoryBytes
	JournalBytes int64 // JournalBytes
}

// budgets returns the bounds that the options set.
func (o *Options) budgets() BudgetStats {
	bound := func(n int64) int64 {
		if n >= engine.Unlimited {
			return -1
		}
		return n
	}
	return BudgetStats{bound(o.MaxBytes), bound(o.MemoryBytes), bound(o.JournalBytes)}
}

// BucketStats are the statistics of one bucket.
type BucketStats struct {
	Entries int64 // as Stats.Entries
	Bytes   int64 // what their keys and records amount to
	Cost    int64 // bytes of the file that its entries in the file need, without those for the bucket itself
}

// counters are the counters of the operations.
type counters struct {
	hits                                     atomic.Uint64 // but for those that the shards of memory count
	misses, fileHits, sets, deletes, damaged atomic.Uint64

	reads, writes latency

	loadCounters
}

// beginRead returns when a read begins if it is part of the sample.
func (c *counters) beginRead() time.Time { return c.reads.begin() }

// beginWrite is beginRead for a write.
func (c *counters) beginWrite() time.Time { return c.writes.begin() }

// get counts a read of a value.
func (c *counters) get(r *engine.Reading) {
	switch {
	case !r.Live:
		c.misses.Add(1)
		return
	case !r.CountHit():
		c.hits.Add(1)
	}
	if r.File {
		c.fileHits.Add(1)
	}
}

// Stats returns a snapshot of what the cache did since Open and of its state. It takes some milliseconds, more with
// very many buckets: cheap enough to be called every second. After Close it returns the counters alone.
func (db *DB) Stats() Stats {
	st := db.engine.Stats()
	s := Stats{
		Hits:     db.counts.hits.Load() + st.Hits,
		Misses:   db.counts.misses.Load(),
		Sets:     db.counts.sets.Load(),
		Deletes:  db.counts.deletes.Load(),
		Damaged:  db.counts.damaged.Load(),
		FileHits: db.counts.fileHits.Load(),
		Reads:    db.counts.reads.snapshot(),
		Writes:   db.counts.writes.snapshot(),
		Loads:    db.counts.loadCounters.snapshot(),

		FileBytes: st.FileBytes, FreePages: st.FreePages, FreeBytes: st.FreeBytes,
		Entries: st.Entries, Bytes: st.Bytes, Cost: st.Cost,

		Health:    HealthStats(st.Health),
		Evictions: EvictionStats(st.Evictions),
		Compact:   CompactStats(st.Compact),
		Memory:    MemoryStats(st.Memory),
		Journal:   JournalStats(st.Journal),
		Commit:    CommitStats(st.Commit),
		Sweep:     SweepStats(st.Sweep),
	}
	if !db.options.NoLock { // they are those of the process that has it open
		s.Budgets = db.options.budgets()
		s.Evictions.Explicit += s.Deletes
	}
	if st.Buckets != nil {
		s.Buckets = make(map[string]BucketStats, len(st.Buckets))
		for name, u := range st.Buckets {
			s.Buckets[name] = BucketStats(u)
		}
	}
	return s
}

// JournalStats are the state of the journal and what it did since Open.
type JournalStats struct {
	FileBytes int64         // size of the journal's file
	UsedBytes int64         // part of it with writes that the file does not have yet
	Mapped    bool          // it is written through a memory map, and not by system calls
	Failed    bool          // it failed, and writes wait for their commit until there is a new one
	Appends   uint64        // log records appended
	Flushes   uint64        // flushes of the disk
	FlushTime time.Duration // spent in them
}

// MemoryStats are the state of the memory tier.
type MemoryStats struct {
	Entries     int64 // entries in memory
	PinnedBytes int64 // bytes of entries that the file does not have yet
	CachedBytes int64 // bytes of entries that the file has too, and that may be dropped
}

// CompactStats are what compactions did since Open.
type CompactStats struct {
	Compactions uint64        // that ended well, by themselves and by calls of Compact
	Failed      uint64        // that did not
	Last        time.Time     // end of the last one that ended well; zero if there was none
	Took        time.Duration // by the last one
	Gained      int64         // bytes by which the last one shrank the file; negative where the file grew meanwhile
	Err         error         // of the last one; nil if it went well
}

// CommitStats count the transactions that moved writes into the file.
type CommitStats struct {
	Commits uint64        // commits, of one or more transactions each
	Entries uint64        // entries written and removed in them
	Failed  uint64        // commits that failed; what they held stays in memory and journal
	Time    time.Duration // spent in them
	Longest time.Duration // the longest of them
	Err     error         // of the last one; nil if it went well
}

// EvictionStats count the entries that left the file since Open, by reason.
type EvictionStats struct {
	Expired  uint64 // their lifetime was over: SweepStats.Removed and Replaced
	Size     uint64 // evicted because of MaxBytes, of the cache or of a bucket
	Entries  uint64 // evicted because of MaxEntries of their bucket
	Explicit uint64 // removed by Delete and its kin, Clear and DropBucket
	Bytes    uint64 // keys and records of those that were evicted
}

// HealthStats say whether the file can be used, and what happened to it since Open.
type HealthStats struct {
	Unavailable bool      // the file cannot be changed for the moment, or not even be read
	Err         error     // why not; nil while it can
	Since       time.Time // since when; zero while it can
	Failures    uint64    // times that this happened
	Healed      uint64    // times that it was over
	Quarantined uint64    // files and journals that were quarantined, by Open too
	Aside       string    // the last one of them
	BadJournals uint64    // damaged journals that Open met
	LostWrites  uint64    // revisions that these may have lost
	Moved       bool      // the file's directory was renamed, or removed: DB.Path does not lead to it
}

// SweepStats are what the sweeper did since Open, and how far behind it is.
type SweepStats struct {
	Sweeps  uint64 // sweeps, by the interval and by calls of Sweep
	Removed uint64 // expired entries removed, from the file or on their way into it
	// Replaced are expired entries that a write to their key replaced or removed before a sweep came to them. It leaves
	// out sliding entries that only the file had: nobody knows how long reads had prolonged their lives.
	Replaced uint64
	Cleared  uint64 // entries removed because their bucket was cleared or dropped
	Moved    uint64 // expiry rows moved to a later time, after an overwrite or Touch had prolonged a lifetime
	Orphans  uint64 // expiry rows without an entry, removed; not 0 only after damage
	// Lag is for how long the most overdue row of the expiry index has been due, which it is about a second after its
	// time; 0 if none is due.
	Lag     time.Duration
	Pending int64     // cleared and dropped buckets whose entries are not all removed yet
	Last    time.Time // end of the last sweep; zero if there was none
	Err     error     // of the last sweep; nil if it went well
}

// Latencies are a histogram of how long operations took. Element i counts those that took less than LatencyBound(i) and
// not less than the bound before it.
type Latencies struct {
	Counts [30]uint64
	Time   time.Duration // of all that are counted together
}

// LatencyBound returns the upper bound of element i of Latencies.Counts: 128 ns, and each the double of the one before
// it. The last element, from 34 s on, has no upper bound: then LatencyBound returns NoExpiry.
func LatencyBound(i int) time.Duration {
	if i >= len(Latencies{}.Counts)-1 {
		return NoExpiry
	}
	return 128 * time.Nanosecond << i
}

// Count returns how many operations are counted.
func (l Latencies) Count() (n uint64) {
	for _, c := range l.Counts {
		n += c
	}
	return n
}

// Quantile returns the bound below which the given part of the operations lies, from 0 to 1: an upper estimate, at most
// twice the truth. It returns 0 if none are counted.
func (l Latencies) Quantile(part float64) time.Duration {
	all := l.Count()
	if all == 0 {
		return 0
	}
	n := uint64(0)
	for i, c := range l.Counts {
		if n += c; float64(n) >= part*float64(all) {
			return LatencyBound(i)
		}
	}
	return NoExpiry
}

// Sub returns what came since an earlier snapshot.
func (l Latencies) Sub(earlier Latencies) Latencies {
	for i := range l.Counts {
		l.Counts[i] -= earlier.Counts[i]
	}
	l.Time -= earlier.Time
	return l
}

// sampleEvery is of how many operations one is timed. Looking at the clock twice takes about 90 ns, which is less than
// a nanosecond for each operation.
const sampleEvery = 128

// latency samples how long operations take.
type latency struct {
	counts [len(Latencies{}.Counts)]atomic.Uint64
	time   atomic.Int64
}

// begin returns the time if the operation that begins is part of the sample, as the first one is, and otherwise the
// zero time.
func (l *latency) begin() (at time.Time) {
	if rand.Uint32()%sampleEvery == 0 || l.time.Load() == 0 {
		at = time.Now()
	}
	return at
}

// end counts an operation that began at the given time.
func (l *latency) end(at time.Time) {
	if !at.IsZero() {
		l.enter(time.Since(at))
	}
}

func (l *latency) enter(took time.Duration) {
	took = max(took, 0)
	i := bits.Len64(uint64(took / (128 * time.Nanosecond)))
	l.counts[min(i, len(l.counts)-1)].Add(1)
	l.time.Add(int64(took))
}

func (l *latency) snapshot() (s Latencies) {
	for i := range l.counts {
		s.Counts[i] = l.counts[i].Load()
	}
	s.Time = time.Duration(l.time.Load())
	return s
}
