package engine

import (
	"time"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
)

// Stats is a snapshot of an engine's state and counters, see keepcache.Stats.
type Stats struct {
	Hits                            uint64 // counted by memory
	FileBytes, FreePages, FreeBytes int64
	Entries, Bytes, Cost            int64
	Buckets                         map[string]BucketStats

	Health    HealthStats
	Evictions EvictionStats // without entries that calls removed
	Compact   CompactStats
	Memory    memory.Stats
	Journal   JournalStats
	Commit    CommitStats
	Sweep     SweepStats
}

// BucketStats is the state of one bucket.
type BucketStats struct{ Entries, Bytes, Cost int64 }

// Stats returns a snapshot.
func (e *Engine) Stats() Stats {
	s := Stats{
		Hits: e.memory.Hits(), Memory: e.memory.Stats(), Sweep: e.sweeper.snapshot(),
		Health: e.healer.snapshot(), Evictions: e.evictor.snapshot(),
	}
	s.Evictions.Expired = s.Sweep.Removed + s.Sweep.Replaced
	s.Evictions.Explicit = s.Sweep.Cleared
	if e.writer != nil {
		s.Compact = e.compactor.snapshot()
		s.Commit = e.commits.snapshot()
		s.Journal = e.writer.snapshot()
	}
	// Memory is read before the file, so that what a commit moves meanwhile is counted once.
	file, used, err := e.store.SizeWith(pendingIn(e.memory))
	if err != nil {
		return s
	}
	pages, free := e.store.Free()
	s.FileBytes, s.FreePages, s.FreeBytes = file, int64(pages), free
	s.Cost = cost.Sum(used).Cost()
	s.Buckets = make(map[string]BucketStats)
	e.mu.RLock()
	defer e.mu.RUnlock()
	for name, ns := range e.buckets {
		if id := ns.id.Load(); id != 0 {
			u := used[id]
			s.Buckets[name] = BucketStats{u.Entries, u.Bytes, u.Cost()}
			s.Entries += u.Entries
			s.Bytes += u.Bytes
		}
	}
	return s
}

// JournalStats is the state of the journal, see keepcache.JournalStats.
type JournalStats struct {
	FileBytes int64
	UsedBytes int64
	Mapped    bool
	Failed    bool
	Appends   uint64
	Flushes   uint64
	FlushTime time.Duration
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

// pendingIn returns a sample of the pinned entries.
func pendingIn(m *memory.Tier) *cost.Pending {
	s := cost.NewPending(m.PinnedEntries())
	m.EachPinned(func(p *memory.Pin) { s.Add(p.ID, p.Key, len(format.RecordIn(p.Stored))) })
	return s
}
