package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/store"
)

// healer watches the file and opens it anew when it is of no more use: after a panic or a fault in bbolt, after a
// sync that failed, and when somebody else has cut the file short, removed or replaced it. Meanwhile reads and writes go
// on without it, see errs.ErrUnavailable. What memory has pinned is committed to the file that comes, so that nothing
// is lost of what is in memory or in the journal.
type healer struct {
	e        *Engine
	log      *slog.Logger
	listener Listener

	run   sync.Mutex    // held while the file is looked at and mended; protects what follows
	told  *store.Handle // of whose trouble has been told
	gone  *store.Handle // that was abandoned
	pause time.Duration
	next  time.Time // no attempt before
	kept  []func()  // tell of the files that were kept aside, once commits may run again

	mu    sync.Mutex // protects what follows
	stats HealthStats
}

const (
	// healLook is how often the file is looked at: whether it is still there and whole. It takes some microseconds.
	healLook = 2 * time.Second

	// healPause and healPauseMost bound how often a file is tried that cannot be mended: what is tried costs as much
	// as an Open.
	healPause     = 100 * time.Millisecond
	healPauseMost = 10 * time.Second
)

func newHealer(e *Engine) *healer {
	return &healer{e: e, log: e.conf.Log, listener: e.conf.Listener}
}

// loop looks at the file and mends it, until ctx ends.
func (hl *healer) loop(ctx context.Context) {
	ticker := time.NewTicker(healLook)
	defer ticker.Stop()
	retry := time.NewTimer(healLook)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hl.e.store.Failed():
		case <-ticker.C:
		case <-retry.C:
		}
		if wait := hl.look(ctx); wait > 0 {
			retry.Reset(wait)
		}
	}
}

// look looks at the file, and mends it if its time has come. It returns after which time it wants to be called again.
func (hl *healer) look(ctx context.Context) (wait time.Duration) {
	hl.run.Lock()
	defer hl.run.Unlock()
	s := hl.e.store
	if s.Inspect() && hl.e.writer != nil {
		if j := hl.e.writer.position().journal; j != nil {
			_ = j.Follow() // where that is not allowed, it stays as it is
		}
	}
	h := s.Handle()
	hl.wander(h)
	if h == nil || h.Failure() == nil {
		return 0
	}
	hl.tell(h)
	if wait = time.Until(hl.next); wait > 0 {
		return wait
	}
	how, err := hl.mend(ctx, h)
	for _, tell := range hl.kept {
		tell()
	}
	hl.kept = nil
	if fresh := s.Handle(); err == nil && fresh != nil && fresh.Failure() != nil {
		// What took its place is in trouble too, mostly because its name was not synced: the next attempt is to wait.
		hl.told, err = fresh, fresh.Failure().Err
	}
	if err != nil {
		hl.pause = min(max(2*hl.pause, healPause), healPauseMost)
		hl.next = time.Now().Add(hl.pause)
		hl.log.Warn("keepcache: the file is still unavailable", "path", s.Path(), "err", err)
		hl.mu.Lock()
		hl.stats.Err = err
		hl.mu.Unlock()
		return hl.pause
	}
	hl.pause, hl.next, hl.told = 0, time.Time{}, nil
	hl.mu.Lock()
	hl.stats.Unavailable, hl.stats.Err, hl.stats.Since = false, nil, time.Time{}
	hl.stats.Healed++
	hl.mu.Unlock()
	hl.log.Warn("keepcache: the file can be used again", "path", s.Path(), "how", how)
	hl.listener.Healed(how)
	if c := hl.e.commits; c != nil {
		c.rest(false) // what the last one failed of is over
		c.demand()
	}
	return 0
}

// last makes one more attempt before the cache is closed, so that what memory has comes into the file. A file that was
// removed or replaced, and that has everything, is left to whoever did that.
func (hl *healer) last() {
	if h := hl.e.store.Handle(); h == nil || h.Err() == nil && !hl.e.writer.owes() {
		return
	}
	hl.run.Lock()
	hl.next = time.Time{}
	hl.run.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), store.DetachAfter)
	defer cancel()
	hl.look(ctx)
}

// tell tells once of the trouble of a handle.
func (hl *healer) tell(h *store.Handle) {
	if hl.told == h {
		return
	}
	hl.told = h
	f := h.Failure()
	hl.mu.Lock()
	if !hl.stats.Unavailable {
		hl.stats.Unavailable, hl.stats.Since = true, time.Now()
		hl.stats.Failures++
	}
	hl.stats.Err = f.Err
	hl.mu.Unlock()
	hl.log.Error("keepcache: the file is unavailable", "path", hl.e.store.Path(), "err", f.Err, "stack", string(f.Stack))
	hl.listener.Unavailable(f.Err)
}

// quarantined counts, logs and tells that a file was kept aside.
func (hl *healer) quarantined(aside string, why error, from *store.Catalog) {
	hl.mu.Lock()
	hl.stats.Quarantined++
	hl.stats.Aside = aside
	hl.mu.Unlock()
	inherited := ""
	if from != nil {
		inherited = from.String()
	}
	what := "keepcache: a file is kept aside"
	if aside == "" {
		what = "keepcache: a damaged file was made anew, and what it had could be kept nowhere"
	}
	hl.log.Error(what, "path", hl.e.store.Path(), "aside", aside, "err", why, "inherited", inherited)
	hl.listener.Quarantined(aside, why)
}

func (hl *healer) snapshot() HealthStats {
	hl.mu.Lock()
	defer hl.mu.Unlock()
	stats := hl.stats
	stats.Moved = hl.e.store.Dir().Moved()
	return stats
}

// mend brings the file back. It says how.
func (hl *healer) mend(ctx context.Context, h *store.Handle) (how string, err error) {
	if c := hl.e.compactor; c != nil {
		timer := time.NewTimer(healPauseMost)
		defer timer.Stop()
		select {
		case c.turn <- struct{}{}: // a compaction of a handle like this one ends soon
			defer func() { <-c.turn }()
		case <-timer.C:
			return "", errors.New("a compaction or backup is still under way")
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	s := hl.e.store
	if s.Handle() != h {
		return "a copy has taken its place", nil // a compaction was quicker
	}
	dir, err := hl.refuge(nil)
	if err != nil {
		return "", errors.Join(h.Failure().Err, err)
	}
	defer func(was *disk.Dir) { hl.afterMend(was, dir) }(s.Dir())
	if h.Err() == nil {
		err := s.Compact(ctx, dir, true, func(int64) {})
		if err != nil && dir == s.Dir() {
			if other, refugeErr := hl.refuge(err); refugeErr == nil && other != dir {
				dir, err = other, s.Compact(ctx, other, true, func(int64) {})
			}
		}
		failed := err != nil && s.Handle() == h
		why := h.Failure()
		if failed && (dir != s.Dir() || !stuck(why.Err, err)) {
			return "", errors.Join(h.Failure().Err, err)
		}
		if !failed {
			if aside := s.TakeIntruder(); aside != "" {
				hl.kept = append(hl.kept, func() { hl.quarantined(aside, store.ErrMoved, nil) })
			}
			return "a copy has taken its place", nil
		}
		h.Poison(store.Failure{Err: why.Err}) // what the disk has of it is opened anew, as after a crash
	}
	if hl.gone != h {
		_, _ = s.Attributes() // while the descriptor can still tell them
		if err := h.Abandon(ctx); err != nil {
			return "", err
		}
		hl.gone = h
	}
	found := s.Find(dir)
	if found.Err != nil && dir == s.Dir() {
		if other, refugeErr := hl.refuge(found.Err); refugeErr == nil && other != dir {
			dir, found = other, s.Find(other)
		}
	}
	// What a commit has brought into the file that is gone must be known as such when another takes its place.
	if c := hl.e.commits; c != nil {
		resume, err := c.tryPause(ctx, healPauseMost)
		if err != nil {
			return "", errors.Join(err, found.Close())
		}
		defer resume()
	}
	fresh, how, lost, kept, err := s.Reopen(h, found, dir, hl.e.catalog(), !hl.e.conf.Quarantine)
	if kept != nil {
		hl.kept = append(hl.kept, func() { hl.quarantined(kept.Path, kept.Why, kept.From) })
	}
	if err != nil {
		return "", err
	}
	if lost {
		// What memory has besides is as good as new: it goes into the file once more.
		hl.e.memory.Repin(hl.e.filedIDs())
	}
	err = s.Adopt(fresh, dir)
	hl.e.memory.ForgetAbsent()
	if err != nil {
		return "", errors.Join(err, fresh.Close())
	}
	return how, nil
}

// stuck reports whether a file that is not to be changed any more is still at its path, and no copy can take that.
func stuck(why, copying error) bool {
	return store.Irreplaceable(copying) && !store.IsDiskGone(copying) && !errors.Is(why, store.ErrRemoved) && !errors.Is(why, store.ErrMoved)
}

// catalog is what a fresh file takes over from the one that is open: the running cache knows all of it. What is not
// committed yet is not in it. The caller keeps commits from running.
func (e *Engine) catalog() *store.Catalog {
	g := &store.Catalog{Identity: e.store.Identity(), Names: make(map[string]uint64)}
	e.mu.RLock()
	g.LastID = e.lastID
	for name, ns := range e.buckets {
		if id := ns.filed.Load(); id != 0 {
			g.Names[name] = id
		}
	}
	e.mu.RUnlock()
	g.Tags, g.TagFloor = e.tags.clone()
	if e.commits != nil {
		g.Mark, g.Highest = e.commits.reached(), e.writer.last()
	}
	return g
}

// filedIDs returns the ids of all buckets that the file has.
func (e *Engine) filedIDs() map[uint64]bool {
	ids := make(map[uint64]bool)
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, ns := range e.buckets {
		ids[ns.filed.Load()] = true
	}
	delete(ids, 0)
	return ids
}

// HealthStats say whether the file can be used, see keepcache.HealthStats.
type HealthStats struct {
	Unavailable bool
	Err         error
	Since       time.Time
	Failures    uint64
	Healed      uint64
	Quarantined uint64
	Aside       string
	BadJournals uint64
	LostWrites  uint64
	Moved       bool
}
