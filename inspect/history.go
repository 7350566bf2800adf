package inspect

import (
	"context"
	"sync"
	"time"

	"github.com/keepcache/keepcache"
)

// Sampling for the charts of the last minutes.
const (
	sampleTime = 2 * time.Second // Stats costs some 20 µs
	sampleMost = 300             // ten minutes
)

// sample has the parts of Stats that charts show.
type sample struct {
	at                                  time.Time
	hits, misses, sets, deletes, loads  uint64
	expired, evicted                    uint64
	reads, writes                       keepcache.Latencies
	fileBytes, freeBytes, entries, live int64
}

func sampleOf(s keepcache.Stats, at time.Time) sample {
	return sample{
		at: at, hits: s.Hits, misses: s.Misses, sets: s.Sets, deletes: s.Deletes, loads: s.Loads.Loads,
		expired: s.Evictions.Expired, evicted: s.Evictions.Size + s.Evictions.Entries,
		reads: s.Reads, writes: s.Writes,
		fileBytes: s.FileBytes, freeBytes: s.FreeBytes, entries: s.Entries, live: s.Bytes,
	}
}

// history holds the samples of the last minutes, the oldest first.
type history struct {
	mu      sync.Mutex // protects what follows
	samples []sample
}

// run takes samples until ctx ends.
func (h *history) run(ctx context.Context, stats func() keepcache.Stats) {
	ticker := time.NewTicker(sampleTime)
	defer ticker.Stop()
	for {
		h.add(sampleOf(stats(), time.Now()))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (h *history) add(s sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.samples) >= 2*sampleMost {
		h.samples = append(h.samples[:0], h.samples[sampleMost+1:]...)
	}
	h.samples = append(h.samples, s)
}

// recent returns a copy of the samples, followed by a current one.
func (h *history) recent(now sample) []sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := h.samples[max(0, len(h.samples)-sampleMost):]
	return append(append(make([]sample, 0, len(last)+1), last...), now)
}
