package keepcache

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/store"
)

// Limits of tags.
const (
	MaxTags     = 16  // of one entry
	MaxTagBytes = 255 // of one tag; the least is 1
)

// WithTags returns a handle of the same bucket whose writes give their entries these tags, in the place of any
// that the handle has: Set, SetBytes, SetMany, Add, Swap, Increment and Update where they create, Batch.Set, and
// loads. InvalidateTag makes all entries with a tag absent. Where a tag is empty or longer than MaxTagBytes, or
// there are more than MaxTags, the writes give ErrInvalidTag. Without arguments it returns a handle without tags.
func (b *Bucket) WithTags(tags ...string) *Bucket {
	t := &Bucket{db: b.db, name: b.name, defaultTTL: b.defaultTTL, sliding: b.sliding}
	t.shared.Store(b.shared.Load())
	t.tags, t.tagsErr = packTags(tags)
	return t
}

// packTags makes a list of tags, each once and in their byte order.
func packTags(tags []string) (list format.Tags, err error) {
	if len(tags) == 0 {
		return nil, nil
	}
	if !slices.IsSorted(tags) {
		tags = slices.Sorted(slices.Values(tags))
	}
	n, last := 0, ""
	for _, tag := range tags {
		if len(tag) < 1 || len(tag) > MaxTagBytes {
			return nil, fmt.Errorf("%w: %s", ErrInvalidTag, errs.Quote(tag))
		}
		if tag == last {
			continue
		}
		last = tag
		if n++; n > MaxTags {
			return nil, fmt.Errorf("%w: more than %d of them", ErrInvalidTag, MaxTags)
		}
		list = append(append(list, byte(len(tag))), tag...)
	}
	return list, nil
}

// InvalidateTag makes every entry with the tag that was written before it absent, in all buckets, at the cost
// of one write, whatever the number of entries. A load that is under way has read its source before: what it
// brings counts as written when it began. Order is decided by revisions and never by the clock. The room of the
// entries is freed by the sweeper, later.
func (db *DB) InvalidateTag(tag string) error {
	err := db.writable()
	if err == nil {
		if _, err = packTags([]string{tag}); err == nil {
			err = db.writer.write([]store.NameOp{{Name: tag, Tag: true}})
		}
	}
	if err != nil {
		return db.fail("invalidate tag", "", err)
	}
	return nil
}

// Tagged ranges as All does over the live entries that have the tag. It costs a walk over the bucket.
func (b *Bucket) Tagged(tag string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range b.All() {
			if err == nil && !slices.Contains(e.Tags, tag) {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

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

// sweepTags removes the entries whose tag was invalidated, bucket by bucket and in short steps. Without force
// it does so only if tagSweepInterval has passed since the last time.
func (db *DB) sweepTags(ctx context.Context, force bool) error {
	last := db.tags.last.Load()
	if last == 0 || last <= db.tags.swept.Load() || !force && time.Since(db.tagsSwept) < tagSweepInterval {
		return nil
	}
	names, err := db.Buckets()
	for _, name := range names {
		b := db.Bucket(name)
		scanErr := b.scan("", func(found []stored) bool {
			for _, f := range found {
				if err = ctx.Err(); err == nil && db.invalid(&f.header, f.options) {
					err = b.removeInvalid(f.key)
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
	db.tags.swept.Store(last)
	db.tagsSwept = time.Now()
	return err
}

// removeInvalid removes the entry of key if one of its tags was invalidated.
func (b *Bucket) removeInvalid(key string) error {
	removed := false
	err := b.settle(key, func(r reading) (*draft, error) {
		if removed = r.stored() && r.damage == nil && b.db.invalid(&r.header, r.options); !removed {
			return nil, nil
		}
		// It is no Delete: the load of a fresh value that may be under way is to be stored.
		return &draft{key: key, quiet: true}, nil
	})
	if removed && err == nil {
		b.db.sweeper.spared(1, 0)
	}
	return err
}

// invalid reports whether an entry is absent because one of its tags was invalidated.
func (db *DB) invalid(h *format.Header, options []byte) bool {
	if len(options) == 0 || db.tags.last.Load() == 0 {
		return false
	}
	t := format.ReadOptions(options)
	return db.tags.invalidated(t.Tags) >= t.Since(h.Revision) && len(t.Tags) > 0
}
