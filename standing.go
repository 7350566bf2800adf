package keepcache

import (
	"time"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
)

// standing is how an engine stands, and what it did. See Stats of the root package.
type standing struct {
	hits                            uint64 // that memory counted
	fileBytes, freePages, freeBytes int64
	entries, bytes, cost            int64
	buckets                         map[string]bucketUse

	health    healthStats
	evictions evictionStats // without what calls removed
	compact   compactStats
	memory    memory.Stats
	journal   journalStats
	commit    commitStats
	sweep     sweepStats
}

// bucketUse is the part of it that speaks of one bucket.
type bucketUse struct{ Entries, Bytes, Cost int64 }

// standing returns a snapshot.
func (e *engine) standing() standing {
	s := standing{hits: e.memory.Hits(), memory: e.memory.Stats(), sweep: e.sweeper.snapshot(), health: e.healer.snapshot(), evictions: e.evictor.snapshot()}
	s.evictions.Expired = s.sweep.Removed + s.sweep.Replaced
	s.evictions.Explicit = s.sweep.Cleared
	if e.writer != nil {
		s.compact = e.compactor.snapshot()
		s.commit = e.commits.snapshot()
		s.journal = e.writer.snapshot()
	}
	// Memory is looked at before the file, so that what a commit moves meanwhile is counted once.
	file, used, err := e.store.SizeWith(pendingIn(e.memory))
	if err != nil {
		return s
	}
	pages, free := e.store.Free()
	s.fileBytes, s.freePages, s.freeBytes = file, int64(pages), free
	s.cost = cost.Sum(used).Cost()
	s.buckets = make(map[string]bucketUse)
	e.mu.RLock()
	defer e.mu.RUnlock()
	for name, ns := range e.buckets {
		if id := ns.id.Load(); id != 0 {
			u := used[id]
			s.buckets[name] = bucketUse{u.Entries, u.Bytes, u.Cost()}
			s.entries += u.Entries
			s.bytes += u.Bytes
		}
	}
	return s
}

// journalStats say how the journal stands, see JournalStats of the root package.
type journalStats struct {
	FileBytes int64
	UsedBytes int64
	Mapped    bool
	Failed    bool
	Appends   uint64
	Flushes   uint64
	FlushTime time.Duration
}

func (w *writer) snapshot() journalStats {
	w.mu.Lock()
	j := w.journal
	w.mu.Unlock()
	if j == nil {
		return journalStats{Failed: true}
	}
	s := j.Stats()
	return journalStats{
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
