package engine

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/store"
)

// tagTable holds for each invalidated tag the revision at which that was done: entries of that tag from before
// are absent. The zero value is an empty table.
type tagTable struct {
	last  atomic.Uint64 // the revision of the last invalidation; 0 if there was none, and no look is needed
	swept atomic.Uint64 // up to which revision of an invalidation the entries were removed

	mu    sync.RWMutex      // protects what follows
	rows  map[string]uint64 // by tag
	floor uint64            // every tag counts as invalidated at this revision
}

// invalidated returns the revision at which the latest of the tags was invalidated, or 0.
func (t *tagTable) invalidated(tags format.Tags) (at uint64) {
	if len(tags) == 0 || t.last.Load() == 0 {
		return 0
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	at = t.floor
	for tag := range tags.All() {
		at = max(at, t.rows[string(tag)])
	}
	return at
}

// put enters an invalidation.
func (t *tagTable) put(tag string, revision uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows == nil {
		t.rows = make(map[string]uint64)
	}
	t.rows[tag] = max(t.rows[tag], revision)
	if len(t.rows) > store.MaxTagRows {
		t.floor = max(t.floor, store.FoldTags(t.rows))
	}
	t.last.Store(max(t.last.Load(), revision))
}

// raise has every tag count as invalidated at a revision.
func (t *tagTable) raise(floor uint64) {
	if floor == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.floor = max(t.floor, floor)
	t.last.Store(max(t.last.Load(), floor))
}

// load enters what the file has.
func (t *tagTable) load(rows map[string]uint64, floor uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows, t.floor = rows, floor
	last := floor
	for _, revision := range rows {
		last = max(last, revision)
	}
	t.last.Store(last)
}

// tagSweepInterval is the least time between two walks that look for entries whose tag was invalidated: a walk
// reads the whole file, and nobody waits for the room.
const tagSweepInterval = time.Minute

// clone returns a copy of the table.
func (t *tagTable) clone() (rows map[string]uint64, floor uint64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return maps.Clone(t.rows), t.floor
}

// sweepTags removes the entries whose tag was invalidated, bucket by bucket and in short steps. Without force
// it does so only if tagSweepInterval has passed since the last time.
func (e *Engine) sweepTags(ctx context.Context, force bool) error {
	last := e.tags.last.Load()
	if last == 0 || last <= e.tags.swept.Load() || !force && time.Since(e.tagsSwept) < tagSweepInterval {
		return nil
	}
	names, err := e.BucketNames()
	all := true
	for _, name := range names {
		r := &Ref{Name: name}
		scanErr := e.Scan(r, Scan{NoValues: true}, func(found []ScanEntry) bool {
			for _, f := range found {
				if err = ctx.Err(); err == nil && f.Damage == nil && e.invalid(&f.Header, f.Options) {
					var over bool
					over, err = e.removeInvalid(r, f.Key)
					all = all && over
				}
				if err != nil {
					return false
				}
			}
			return true
		})
		if err == nil {
			err = scanErr
		}
		if err != nil {
			return err
		}
	}
	if all { // or another sweep looks again
		e.tags.swept.Store(last)
	}
	e.tagsSwept = time.Now()
	return err
}

// invalidTries bounds how often the removal of an entry starts over because others have changed it meanwhile.
const invalidTries = 100

// removeInvalid removes the entry of a key if one of its tags was invalidated. It reports false where others write the
// key so often that it cannot tell.
func (e *Engine) removeInvalid(at *Ref, key string) (over bool, err error) {
	for range invalidTries {
		r, err := e.Read(at, key, false)
		if err != nil || r.Header.Revision == 0 || !e.invalid(&r.Header, r.Options) {
			return true, err
		}
		// It is no Delete of a caller's: the load of a fresh value that may be under way is to be stored.
		d := &Write{Key: key, quiet: true}
		d.Expect(&r)
		if err = e.Write(at, d); err != ErrMissed {
			if err == nil {
				e.sweeper.countUnwritten(1, 0)
			}
			return true, err
		}
	}
	return false, nil
}
