package engine

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/store"
)

// sweeper removes expired entries and cleared buckets from the file. Its transactions are short, and readers and
// writers go on between them.
type sweeper struct {
	store      *store.Store
	log        *slog.Logger
	lives      func(id uint64, key string, now int64) bool // asks memory; nil if open for reading only
	saveSpared func([]format.EntryKey) error               // writes the times of spared entries to the file

	listener   Listener
	nameOf     func(id uint64) string                      // the current name of a bucket, or ""
	sweepTags  func(ctx context.Context, force bool) error // nil if open for reading only
	sweepEmpty func(ctx context.Context, force bool) error // nil if open for reading only

	running   sync.Mutex // held for the length of a sweep: one at a time
	retiredMu sync.Mutex // held while a step removes retired buckets

	mu      sync.Mutex // protects what follows
	retired []uint64   // ids of cleared and dropped buckets in the file; only stepRetired removes some, from the front
	stats   SweepStats
}

// retire passes ids without a name to the sweeper, which will remove their entries.
func (sw *sweeper) retire(ids ...uint64) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	sw.retired = append(sw.retired, ids...)
}

// sweep removes what is due, step by step, until nothing is left or ctx ends.
//
// With all, it leaves nothing that has expired by now. It also reads entries whose rows alone do not tell, and looks
// for entries with invalidated tags. Both are expensive.
func (sw *sweeper) sweep(ctx context.Context, all bool) error {
	sw.running.Lock()
	defer sw.running.Unlock()
	// A spared row is met once more, and not spared again: the commit that follows has written the entry's time to the
	// file, or somebody has written the entry. So the row is moved before reads give the entry yet another deadline that
	// only memory knows, and the next sweep would have to write it again.
	asked := make(map[format.EntryKey]bool)
	// What becomes due during the sweep is left to the next one, so that this one ends.
	r := store.CertainlyExpired(func(id uint64, key string, now int64) bool {
		return sw.lives != nil && !asked[format.EntryKey{ID: id, Key: key}] && sw.lives(id, key, now)
	})
	if all {
		r.Rows = r.Now
	}
	// Steps for expired entries and for retired buckets take turns, because there may be many of both.
	var err error
	var from []byte
	for expired, retired := true, true; err == nil && (expired || retired); {
		if err = ctx.Err(); err == nil && expired {
			from, expired, err = sw.stepExpired(from, r, asked)
		}
		if err == nil && retired {
			_, retired, err = sw.stepRetired()
		}
	}
	if err == nil && sw.sweepTags != nil {
		err = sw.sweepTags(ctx, all)
	}
	if err == nil && sw.sweepEmpty != nil {
		err = sw.sweepEmpty(ctx, all)
	}
	sw.count(func(s *SweepStats) {
		s.Sweeps++
		s.Last = time.Now()
		s.Err = err
	})
	return err
}

// recordStep counts and reports the result of one step.
func (sw *sweeper) recordStep(did store.Swept) {
	sw.notifyExpired(did.Gone)
	sw.count(func(s *SweepStats) {
		s.Removed += uint64(did.Removed)
		s.Moved += uint64(did.Moved)
		s.Orphans += uint64(did.Orphans)
	})
}

// hasRetired reports whether there are cleared or dropped buckets to remove.
func (sw *sweeper) hasRetired() bool {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return len(sw.retired) > 0
}

// stepExpired is one step over the expiry index, beginning at the given row. It returns where the next step begins and
// whether there is one.
func (sw *sweeper) stepExpired(
	from []byte, r store.SweepBounds, asked map[format.EntryKey]bool,
) (next []byte, more bool, err error) {
	did, err := sw.store.Sweep(from, r)
	if err != nil {
		return nil, false, err
	}
	sw.recordStep(did)
	if len(did.Spared) == 0 {
		return did.Next, did.More, nil
	}
	for _, spared := range did.Spared {
		asked[spared] = true
	}
	return from, true, sw.saveSpared(did.Spared) // repeat the step
}

// stepRetired removes entries of cleared and dropped buckets, in one transaction. It reports how many entries it
// removed, and whether there is more.
func (sw *sweeper) stepRetired() (removed int, more bool, err error) {
	sw.retiredMu.Lock()
	defer sw.retiredMu.Unlock()
	sw.mu.Lock()
	ids := sw.retired[:min(len(sw.retired), store.RetireStep)]
	slices.Sort(ids) // neighbours share pages
	ids = slices.Clone(ids)
	sw.mu.Unlock()
	if len(ids) == 0 {
		return 0, false, nil
	}
	did, err := sw.store.RemoveRetired(ids)
	if err != nil {
		return 0, false, err
	}
	sw.mu.Lock()
	defer sw.mu.Unlock()
	sw.stats.Cleared += uint64(did.Entries)
	if sw.retired = sw.retired[did.IDs:]; len(sw.retired) == 0 {
		sw.retired = nil // release its memory
	}
	return did.Entries, len(sw.retired) > 0, nil
}

// total returns how many entries were removed since Open.
func (sw *sweeper) total() uint64 {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return sw.stats.Removed + sw.stats.Cleared
}

// loop sweeps every interval until ctx ends. A ticker ignores jumps of the wall clock and drops ticks that a long sweep
// missed, so the loop can neither spin nor stall.
func (sw *sweeper) loop(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := sw.sweep(ctx, false)
		failed := err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errs.ErrClosed)
		if failed && !failing {
			sw.log.Error("keepcache: sweep failed", "path", sw.store.Path(), "err", err)
		}
		failing = failed
	}
}

// countUnwritten counts entries that expired, or lost their bucket, before they reached the file.
func (sw *sweeper) countUnwritten(expired, cleared int) {
	sw.count(func(s *SweepStats) {
		s.Removed += uint64(expired)
		s.Cleared += uint64(cleared)
	})
}

func (sw *sweeper) count(fn func(*SweepStats)) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	fn(&sw.stats)
}

// snapshot returns the stats, with the current Lag.
func (sw *sweeper) snapshot() SweepStats {
	sw.mu.Lock()
	stats := sw.stats
	stats.Pending = int64(len(sw.retired))
	sw.mu.Unlock()
	if first, err := sw.store.FirstRow(); err == nil {
		stats.Lag = format.Overdue(first, time.Now())
	}
	return stats
}

// SweepStats counts what the sweeper did, see keepcache.SweepStats.
type SweepStats struct {
	Sweeps   uint64
	Removed  uint64
	Replaced uint64
	Cleared  uint64
	Moved    uint64
	Orphans  uint64
	Lag      time.Duration
	Pending  int64
	Last     time.Time
	Err      error
}
