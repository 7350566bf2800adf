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

// sweeper removes from the file what expired or was cleared. Between its short transactions readers and
// writers go on.
type sweeper struct {
	store *store.Store
	log   *slog.Logger
	lives func(id uint64, key string, now int64) bool // asks memory; nil in an engine that is open for reading only
	rearm func([]format.EntryKey) error               // writes what lives, so that the file says so too

	listener Listener
	nameOf   func(id uint64) string                      // the name of a bucket, empty if it has none any more
	tags     func(ctx context.Context, force bool) error // removes entries whose tag was invalidated; nil if nothing may be
	vacant   func(ctx context.Context, force bool) error // drops buckets without entries; nil if nothing may be

	run      sync.Mutex // held for the length of a sweep: one at a time
	emptying sync.Mutex // held while a step removes retired buckets

	mu      sync.Mutex // protects what follows
	retired []uint64   // ids of cleared and dropped buckets that the file may still hold; only a step takes off it, from the front
	stats   SweepStats
}

// retire hands the entries of a bucket that no name points at any more to the sweeper.
func (sw *sweeper) retire(ids ...uint64) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	sw.retired = append(sw.retired, ids...)
}

// sweep removes what is due, step by step, until nothing is left or ctx ends.
//
// all has it leave nothing that is gone by now: it also looks at entries of which their rows alone do not say it, and
// for those whose tag was invalidated, neither of which is cheap.
func (sw *sweeper) sweep(ctx context.Context, all bool) error {
	sw.run.Lock()
	defer sw.run.Unlock()
	// A row that was spared is met once more, and not spared again: the commit that follows has put the truth into the
	// file, or somebody has written the entry anew. So it is moved, before reads give its entry yet another deadline that
	// memory alone knows, for which the next sweep would have to write it anew.
	asked := make(map[format.EntryKey]bool)
	// What falls due while the sweep runs is for the next one: this one has an end.
	r := store.CertainlyExpired(func(id uint64, key string, now int64) bool {
		return sw.lives != nil && !asked[format.EntryKey{ID: id, Key: key}] && sw.lives(id, key, now)
	})
	if all {
		r.Rows = r.Now
	}
	// What expired takes turns with what was cleared or dropped, and comes first: of either there may be a great deal.
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
	if err == nil && sw.tags != nil {
		err = sw.tags(ctx, all)
	}
	if err == nil && sw.vacant != nil {
		err = sw.vacant(ctx, all)
	}
	sw.count(func(s *SweepStats) {
		s.Sweeps++
		s.Last = time.Now()
		s.Err = err
	})
	return err
}

// swept books what one step did.
func (sw *sweeper) swept(did store.Swept) {
	sw.tell(did.Gone)
	sw.count(func(s *SweepStats) {
		s.Removed += uint64(did.Removed)
		s.Moved += uint64(did.Moved)
		s.Orphans += uint64(did.Orphans)
	})
}

// owes reports whether there are cleared or dropped buckets to empty.
func (sw *sweeper) owes() bool {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return len(sw.retired) > 0
}

// stepExpired is one step of a sweep over the expiry index, from the given row on. It returns where the next one begins, and
// whether there is to be one.
func (sw *sweeper) stepExpired(from []byte, r store.SweepBounds, asked map[format.EntryKey]bool) (next []byte, more bool, err error) {
	did, err := sw.store.Sweep(from, r)
	if err != nil {
		return nil, false, err
	}
	sw.swept(did)
	if len(did.Spared) == 0 {
		return did.Next, did.More, nil
	}
	for _, spared := range did.Spared {
		asked[spared] = true
	}
	return from, true, sw.rearm(did.Spared) // the step is repeated
}

// stepRetired removes some of what is left of cleared and dropped buckets, in one transaction. It reports how many entries it
// removed, and whether there is more.
func (sw *sweeper) stepRetired() (removed int, more bool, err error) {
	sw.emptying.Lock()
	defer sw.emptying.Unlock()
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
		sw.retired = nil // with the room that it needed
	}
	return did.Entries, len(sw.retired) > 0, nil
}

// total returns how many entries were removed since Open.
func (sw *sweeper) total() uint64 {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return sw.stats.Removed + sw.stats.Cleared
}

// loop sweeps every interval until ctx ends. A ticker is deaf to jumps of the wall clock and drops ticks
// that a long sweep missed, so the loop can neither spin nor sleep through.
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

// spared counts entries that expired, or lost their bucket, before they came into the file.
func (sw *sweeper) spared(expired, cleared int) {
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

// snapshot returns the stats, with Lag as of now.
func (sw *sweeper) snapshot() SweepStats {
	sw.mu.Lock()
	stats := sw.stats
	stats.Pending = len(sw.retired)
	sw.mu.Unlock()
	if first, err := sw.store.FirstRow(); err == nil {
		stats.Lag = format.Overdue(first, time.Now())
	}
	return stats
}

// SweepStats say what the sweeper did, see keepcache.SweepStats.
type SweepStats struct {
	Sweeps   uint64
	Removed  uint64
	Replaced uint64
	Cleared  uint64
	Moved    uint64
	Orphans  uint64
	Lag      time.Duration
	Pending  int
	Last     time.Time
	Err      error
}
