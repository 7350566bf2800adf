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

// healer watches the file and reopens it when it has become unusable: after a panic or a fault in bbolt, after a failed
// sync, and when somebody else has truncated, removed or replaced it. Meanwhile reads and writes go on without the
// file, see errs.ErrUnavailable. What memory has pinned is committed to the reopened file, so nothing is lost of what
// is in memory or in the journal.
type healer struct {
	e        *Engine
	log      *slog.Logger
	listener Listener

	running   sync.Mutex    // held during a check; protects what follows
	reported  *store.Handle // the handle whose failure was reported
	abandoned *store.Handle // the handle that was abandoned
	pause     time.Duration
	next      time.Time // no attempt before
	deferred  []func()  // reports of quarantined files, for when commits may run again

	mu    sync.Mutex // protects what follows
	stats HealthStats
}

const (
	// healInterval is how often the file is checked for existence and truncation. A check takes some microseconds.
	healInterval = 2 * time.Second

	// healPause and maxHealPause bound how often healing is tried if it fails: each attempt costs as much as an Open.
	healPause    = 100 * time.Millisecond
	maxHealPause = 10 * time.Second
)

func newHealer(e *Engine) *healer {
	return &healer{e: e, log: e.conf.Log, listener: e.conf.Listener}
}

// loop checks the file and heals it, until ctx ends.
func (hl *healer) loop(ctx context.Context) {
	ticker := time.NewTicker(healInterval)
	defer ticker.Stop()
	retry := time.NewTimer(healInterval)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hl.e.store.Failed():
		case <-ticker.C:
		case <-retry.C:
		}
		if wait := hl.check(ctx); wait > 0 {
			retry.Reset(wait)
		}
	}
}

// check checks the file, and heals it if that is due. It returns when it wants to be called again; 0 is no wish.
func (hl *healer) check(ctx context.Context) (wait time.Duration) {
	hl.running.Lock()
	defer hl.running.Unlock()
	s := hl.e.store
	if s.Inspect() && hl.e.writer != nil {
		if j := hl.e.writer.position().journal; j != nil {
			_ = j.Follow() // not allowed: the journal stays as it is
		}
	}
	h := s.Handle()
	hl.checkRemounted(h)
	if h == nil || h.Failure() == nil {
		return 0
	}
	hl.report(h)
	if wait = time.Until(hl.next); wait > 0 {
		return wait
	}
	how, err := hl.heal(ctx, h)
	for _, tell := range hl.deferred {
		tell()
	}
	hl.deferred = nil
	if fresh := s.Handle(); err == nil && fresh != nil && fresh.Failure() != nil {
		// The new file has failed too, usually because its name was not synced: the next attempt has to wait.
		hl.reported, err = fresh, fresh.Failure().Err
	}
	if err != nil {
		hl.pause = min(max(2*hl.pause, healPause), maxHealPause)
		hl.next = time.Now().Add(hl.pause)
		hl.log.Warn("keepcache: the file is still unavailable", "path", s.Path(), "err", err)
		hl.mu.Lock()
		hl.stats.Err = err
		hl.mu.Unlock()
		return hl.pause
	}
	hl.pause, hl.next, hl.reported = 0, time.Time{}, nil
	hl.mu.Lock()
	hl.stats.Unavailable, hl.stats.Err, hl.stats.Since = false, nil, time.Time{}
	hl.stats.Healed++
	hl.mu.Unlock()
	hl.log.Warn("keepcache: the file can be used again", "path", s.Path(), "how", how)
	hl.listener.Healed(how)
	if c := hl.e.commits; c != nil {
		c.setBackingOff(false) // the cause of the last failure is gone
		c.request()
	}
	return 0
}

// finalAttempt makes one more attempt before the cache is closed, so that everything in memory reaches the file. If the
// file was removed or replaced, but already has everything, it does nothing.
func (hl *healer) finalAttempt() {
	if h := hl.e.store.Handle(); h == nil || h.Err() == nil && !hl.e.writer.hasUncommitted() {
		return
	}
	hl.running.Lock()
	hl.next = time.Time{}
	hl.running.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), store.DetachAfter)
	defer cancel()
	hl.check(ctx)
}

// report reports the failure of a handle, once.
func (hl *healer) report(h *store.Handle) {
	if hl.reported == h {
		return
	}
	hl.reported = h
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

// quarantined counts, logs and reports a quarantined file.
func (hl *healer) quarantined(movedTo string, why error, from *store.Catalog) {
	hl.mu.Lock()
	hl.stats.Quarantined++
	hl.stats.Aside = movedTo
	hl.mu.Unlock()
	inherited := ""
	if from != nil {
		inherited = from.String()
	}
	what := "keepcache: a file was quarantined"
	if movedTo == "" {
		what = "keepcache: a damaged file was replaced in place, and its contents could not be kept"
	}
	hl.log.Error(what, "path", hl.e.store.Path(), "aside", movedTo, "err", why, "inherited", inherited)
	hl.listener.Quarantined(movedTo, why)
}

func (hl *healer) snapshot() HealthStats {
	hl.mu.Lock()
	defer hl.mu.Unlock()
	stats := hl.stats
	stats.Moved = hl.e.store.Dir().Moved()
	return stats
}

// heal reopens or replaces the file, and returns how.
func (hl *healer) heal(ctx context.Context, h *store.Handle) (how string, err error) {
	if c := hl.e.compactor; c != nil {
		timer := time.NewTimer(maxHealPause)
		defer timer.Stop()
		select {
		case c.token <- struct{}{}: // a running compaction of a failed handle ends soon
			defer func() { <-c.token }()
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
	dir, err := hl.targetDir(nil)
	if err != nil {
		return "", errors.Join(h.Failure().Err, err)
	}
	defer func(was *disk.Dir) { hl.afterHeal(was, dir) }(s.Dir())
	if h.Err() == nil {
		err := s.Compact(ctx, dir, true, func(int64) {})
		if err != nil && dir == s.Dir() {
			if other, refugeErr := hl.targetDir(err); refugeErr == nil && other != dir {
				dir, err = other, s.Compact(ctx, other, true, func(int64) {})
			}
		}
		failed := err != nil && s.Handle() == h
		why := h.Failure()
		if failed && (dir != s.Dir() || !cannotReplace(why.Err, err)) {
			return "", errors.Join(h.Failure().Err, err)
		}
		if !failed {
			if movedTo := s.TakeIntruder(); movedTo != "" {
				hl.deferred = append(hl.deferred, func() { hl.quarantined(movedTo, store.ErrMoved, nil) })
			}
			return "a copy has taken its place", nil
		}
		h.Poison(store.Failure{Err: why.Err}) // reopen what is on disk, as after a crash
	}
	if hl.abandoned != h {
		_, _ = s.Attributes() // while the descriptor still has them
		if err := h.Abandon(ctx); err != nil {
			return "", err
		}
		hl.abandoned = h
	}
	found := s.Find(dir)
	if found.Err != nil && dir == s.Dir() {
		if other, refugeErr := hl.targetDir(found.Err); refugeErr == nil && other != dir {
			dir, found = other, s.Find(other)
		}
	}
	// The ids and the mark that a commit brought into the lost file must be final before another file replaces it.
	if c := hl.e.commits; c != nil {
		resume, err := c.tryPause(ctx, maxHealPause)
		if err != nil {
			return "", errors.Join(err, found.Close())
		}
		defer resume()
	}
	fresh, how, lost, kept, err := s.Reopen(h, found, dir, hl.e.catalog(), !hl.e.conf.Quarantine)
	if kept != nil {
		hl.deferred = append(hl.deferred, func() { hl.quarantined(kept.Path, kept.Why, kept.From) })
	}
	if err != nil {
		return "", err
	}
	if lost {
		// Evictable entries in memory are still good: they go into the file again.
		hl.e.memory.Repin(hl.e.fileIDs())
	}
	err = s.Adopt(fresh, dir)
	hl.e.memory.ForgetAbsent()
	if err != nil {
		return "", errors.Join(err, fresh.Close())
	}
	return how, nil
}

// cannotReplace reports whether a frozen file is still at its path and no copy can replace it.
func cannotReplace(why, copying error) bool {
	return store.Irreplaceable(copying) && !store.IsDiskGone(copying) &&
		!errors.Is(why, store.ErrRemoved) && !errors.Is(why, store.ErrMoved)
}

// catalog returns what a fresh file takes over from the current one, all of which the running cache knows. What is not
// committed yet is not in it. The caller keeps commits from running.
func (e *Engine) catalog() *store.Catalog {
	g := &store.Catalog{Identity: e.store.Identity(), Names: make(map[string]uint64)}
	e.mu.RLock()
	g.LastID = e.lastID
	for name, ns := range e.buckets {
		if id := ns.fileID.Load(); id != 0 {
			g.Names[name] = id
		}
	}
	e.mu.RUnlock()
	g.Tags, g.TagFloor = e.tags.clone()
	if e.commits != nil {
		g.Mark, g.Highest = e.commits.committed(), e.writer.lastRevision()
	}
	return g
}

// fileIDs returns the ids of all buckets that the file has.
func (e *Engine) fileIDs() map[uint64]bool {
	ids := make(map[uint64]bool)
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, ns := range e.buckets {
		ids[ns.fileID.Load()] = true
	}
	delete(ids, 0)
	return ids
}

// HealthStats says whether the file can be used, see keepcache.HealthStats.
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
