package wire

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/keepcache/keepcache"
)

// Stats is keepcache.Stats on the wire: the answer to v1/stats. Durations are nanoseconds, histograms are arrays
// without the zeros at their end.
type Stats struct {
	Now int64 `json:"now_ms"`

	Hits     uint64 `json:"hits"`
	Misses   uint64 `json:"misses"`
	FileHits uint64 `json:"file_hits"`
	Sets     uint64 `json:"sets"`
	Deletes  uint64 `json:"deletes"`
	Damaged  uint64 `json:"damaged"`

	FileBytes int64 `json:"file_bytes"`
	FreePages int64 `json:"free_pages"`
	FreeBytes int64 `json:"free_bytes"`
	Entries   int64 `json:"entries"`
	Bytes     int64 `json:"bytes"`
	Cost      int64 `json:"cost"`

	Buckets []Bucket `json:"buckets"`

	Reads  Latencies `json:"reads"`
	Writes Latencies `json:"writes"`

	Health    Health    `json:"health"`
	Budgets   Budgets   `json:"budgets"`
	Evictions Evictions `json:"evictions"`
	Compact   Compact   `json:"compact"`
	Loads     Loads     `json:"loads"`
	Memory    Memory    `json:"memory"`
	Journal   Journal   `json:"journal"`
	Commit    Commit    `json:"commit"`
	Sweep     Sweep     `json:"sweep"`
}

// Latencies is keepcache.Latencies.
type Latencies struct {
	Counts []uint64      `json:"counts"`
	Time   time.Duration `json:"time_ns"`
}

func latencies(w Latencies) (l keepcache.Latencies) {
	copy(l.Counts[:], w.Counts)
	l.Time = w.Time
	return l
}

// Health is keepcache.HealthStats.
type Health struct {
	Unavailable bool   `json:"unavailable"`
	Err         string `json:"error,omitempty"`
	Since       int64  `json:"since_ms,omitempty"`
	Failures    uint64 `json:"failures"`
	Healed      uint64 `json:"healed"`
	Quarantined uint64 `json:"quarantined"`
	Aside       Name   `json:"aside,omitempty"`
	BadJournals uint64 `json:"bad_journals"`
	LostWrites  uint64 `json:"lost_writes"`
	Moved       bool   `json:"moved,omitempty"`
}

func healthOf(s keepcache.HealthStats) Health {
	return Health{
		s.Unavailable, words(s.Err), unixMilli(s.Since), s.Failures, s.Healed, s.Quarantined, Name(s.Aside), s.BadJournals,
		s.LostWrites, s.Moved,
	}
}

func (w Health) stats() keepcache.HealthStats {
	return keepcache.HealthStats{
		Unavailable: w.Unavailable, Err: cause(w.Err), Since: timeOf(w.Since), Failures: w.Failures, Healed: w.Healed,
		Quarantined: w.Quarantined, Aside: string(w.Aside), BadJournals: w.BadJournals, LostWrites: w.LostWrites,
		Moved: w.Moved,
	}
}

// Budgets is keepcache.BudgetStats.
type Budgets struct {
	Bytes        int64 `json:"bytes"`
	MemoryBytes  int64 `json:"memory_bytes"`
	JournalBytes int64 `json:"journal_bytes"`
}

// Evictions is keepcache.EvictionStats.
type Evictions struct {
	Expired  uint64 `json:"expired"`
	Size     uint64 `json:"size"`
	Entries  uint64 `json:"entries"`
	Explicit uint64 `json:"explicit"`
	Bytes    uint64 `json:"bytes"`
}

// Compact is keepcache.CompactStats.
type Compact struct {
	Compactions uint64        `json:"compactions"`
	Failed      uint64        `json:"failed"`
	Last        int64         `json:"last_ms,omitempty"`
	Took        time.Duration `json:"took_ns"`
	Gained      int64         `json:"gained_bytes"`
	Err         string        `json:"error,omitempty"`
}

// Loads is keepcache.LoadStats.
type Loads struct {
	Loads        uint64    `json:"loads"`
	Failures     uint64    `json:"failures"`
	Latencies    Latencies `json:"latencies"`
	Refreshes    uint64    `json:"refreshes"`
	Stale        uint64    `json:"stale"`
	NegativeHits uint64    `json:"negative_hits"`
	Discarded    uint64    `json:"discarded"`
	Mismatched   uint64    `json:"mismatched"`
	CacheErrors  uint64    `json:"cache_errors"`
	Remembered   uint64    `json:"remembered"`
	TimedOut     uint64    `json:"timed_out"`
	Skipped      uint64    `json:"skipped"`
	Running      int64     `json:"running"`
	Abandoned    int64     `json:"abandoned"`
}

// Memory is keepcache.MemoryStats.
type Memory struct {
	Entries     int64 `json:"entries"`
	PinnedBytes int64 `json:"pinned_bytes"`
	CachedBytes int64 `json:"cached_bytes"`
}

// Journal is keepcache.JournalStats.
type Journal struct {
	FileBytes int64         `json:"file_bytes"`
	UsedBytes int64         `json:"used_bytes"`
	Mapped    bool          `json:"mapped"`
	Failed    bool          `json:"failed"`
	Appends   uint64        `json:"appends"`
	Flushes   uint64        `json:"flushes"`
	FlushTime time.Duration `json:"flush_time_ns"`
}

// Commit is keepcache.CommitStats.
type Commit struct {
	Commits uint64        `json:"commits"`
	Entries uint64        `json:"entries"`
	Failed  uint64        `json:"failed"`
	Time    time.Duration `json:"time_ns"`
	Longest time.Duration `json:"longest_ns"`
	Err     string        `json:"error,omitempty"`
}

// Sweep is keepcache.SweepStats.
type Sweep struct {
	Sweeps   uint64        `json:"sweeps"`
	Removed  uint64        `json:"removed"`
	Replaced uint64        `json:"replaced"`
	Cleared  uint64        `json:"cleared"`
	Moved    uint64        `json:"moved"`
	Orphans  uint64        `json:"orphans"`
	Lag      time.Duration `json:"lag_ns"`
	Pending  int64         `json:"pending"`
	Last     int64         `json:"last_ms,omitempty"`
	Err      string        `json:"error,omitempty"`
}

// StatsOf puts stats on the wire.
func StatsOf(s keepcache.Stats, now time.Time) Stats {
	w := Stats{
		Now:  now.UnixMilli(),
		Hits: s.Hits, Misses: s.Misses, FileHits: s.FileHits, Sets: s.Sets, Deletes: s.Deletes, Damaged: s.Damaged,
		FileBytes: s.FileBytes, FreePages: s.FreePages, FreeBytes: s.FreeBytes, Entries: s.Entries, Bytes: s.Bytes,
		Cost:      s.Cost,
		Buckets:   BucketsOf(s),
		Reads:     Latencies{trim(s.Reads.Counts[:]), s.Reads.Time},
		Writes:    Latencies{trim(s.Writes.Counts[:]), s.Writes.Time},
		Health:    healthOf(s.Health),
		Budgets:   Budgets(s.Budgets),
		Evictions: Evictions(s.Evictions),
		Compact: Compact{
			s.Compact.Compactions, s.Compact.Failed, unixMilli(s.Compact.Last), s.Compact.Took, s.Compact.Gained,
			words(s.Compact.Err),
		},
		Loads: Loads{
			s.Loads.Loads, s.Loads.Failures, Latencies{trim(s.Loads.Latencies.Counts[:]), s.Loads.Latencies.Time},
			s.Loads.Refreshes,
			s.Loads.Stale, s.Loads.NegativeHits, s.Loads.Discarded, s.Loads.Mismatched, s.Loads.CacheErrors,
			s.Loads.Remembered, s.Loads.TimedOut, s.Loads.Skipped, s.Loads.Running, s.Loads.Abandoned,
		},
		Memory:  Memory(s.Memory),
		Journal: Journal(s.Journal),
		Commit: Commit{
			s.Commit.Commits, s.Commit.Entries, s.Commit.Failed, s.Commit.Time, s.Commit.Longest, words(s.Commit.Err),
		},
		Sweep: Sweep{
			s.Sweep.Sweeps, s.Sweep.Removed, s.Sweep.Replaced, s.Sweep.Cleared, s.Sweep.Moved, s.Sweep.Orphans, s.Sweep.Lag,
			s.Sweep.Pending, unixMilli(s.Sweep.Last), words(s.Sweep.Err),
		},
	}
	return w
}

// BucketsOf returns the buckets in the byte order of their names.
func BucketsOf(s keepcache.Stats) []Bucket {
	list := make([]Bucket, 0, len(s.Buckets))
	for name, b := range s.Buckets {
		list = append(list, Bucket{Name(name), b.Entries, b.Bytes, b.Cost})
	}
	slices.SortFunc(list, func(a, b Bucket) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Stats returns the stats as the library has them.
func (w Stats) Stats() keepcache.Stats {
	s := keepcache.Stats{
		Hits: w.Hits, Misses: w.Misses, FileHits: w.FileHits, Sets: w.Sets, Deletes: w.Deletes, Damaged: w.Damaged,
		FileBytes: w.FileBytes, FreePages: w.FreePages, FreeBytes: w.FreeBytes, Entries: w.Entries, Bytes: w.Bytes,
		Cost:      w.Cost,
		Buckets:   make(map[string]keepcache.BucketStats, len(w.Buckets)),
		Reads:     latencies(w.Reads),
		Writes:    latencies(w.Writes),
		Health:    w.Health.stats(),
		Budgets:   keepcache.BudgetStats(w.Budgets),
		Evictions: keepcache.EvictionStats(w.Evictions),
		Compact: keepcache.CompactStats{
			Compactions: w.Compact.Compactions, Failed: w.Compact.Failed, Last: timeOf(w.Compact.Last),
			Took: w.Compact.Took, Gained: w.Compact.Gained, Err: cause(w.Compact.Err),
		},
		Loads: keepcache.LoadStats{
			Loads: w.Loads.Loads, Failures: w.Loads.Failures, Latencies: latencies(w.Loads.Latencies),
			Refreshes: w.Loads.Refreshes,
			Stale:     w.Loads.Stale, NegativeHits: w.Loads.NegativeHits, Discarded: w.Loads.Discarded,
			Mismatched: w.Loads.Mismatched, CacheErrors: w.Loads.CacheErrors, Remembered: w.Loads.Remembered,
			TimedOut: w.Loads.TimedOut, Skipped: w.Loads.Skipped, Running: w.Loads.Running, Abandoned: w.Loads.Abandoned,
		},
		Memory:  keepcache.MemoryStats(w.Memory),
		Journal: keepcache.JournalStats(w.Journal),
		Commit: keepcache.CommitStats{
			Commits: w.Commit.Commits, Entries: w.Commit.Entries, Failed: w.Commit.Failed, Time: w.Commit.Time,
			Longest: w.Commit.Longest, Err: cause(w.Commit.Err),
		},
		Sweep: keepcache.SweepStats{
			Sweeps: w.Sweep.Sweeps, Removed: w.Sweep.Removed, Replaced: w.Sweep.Replaced, Cleared: w.Sweep.Cleared,
			Moved:   w.Sweep.Moved,
			Orphans: w.Sweep.Orphans, Lag: w.Sweep.Lag, Pending: w.Sweep.Pending, Last: timeOf(w.Sweep.Last),
			Err: cause(w.Sweep.Err),
		},
	}
	for _, b := range w.Buckets {
		s.Buckets[string(b.Name)] = keepcache.BucketStats{Entries: b.Entries, Bytes: b.Bytes, Cost: b.Cost}
	}
	return s
}

func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func cause(words string) error {
	if words == "" {
		return nil
	}
	return errors.New(words)
}

func trim(h []uint64) []uint64 {
	for len(h) > 0 && h[len(h)-1] == 0 {
		h = h[:len(h)-1]
	}
	return h
}
