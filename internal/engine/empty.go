package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
)

const (
	// emptyInterval is the least time between two searches for empty buckets: each reads the counts of all buckets, and
	// gains only names.
	emptyInterval = time.Minute

	// emptyStep is how many buckets one write drops. All of them are locked meanwhile.
	emptyStep = 256
)

// emptyBucket is a bucket that had no entries when it was looked at.
type emptyBucket struct {
	ns *namespace
	id uint64
}

// sweepEmpty drops the buckets that have no entries any more, so that short-lived buckets leave no names behind. Unless
// force is set, it does nothing before emptyInterval has passed.
func (e *Engine) sweepEmpty(ctx context.Context, force bool) error {
	if !force && time.Since(e.emptySwept) < emptyInterval {
		return nil
	}
	all, err := e.emptyBuckets()
	for len(all) > 0 && err == nil {
		if err = ctx.Err(); err == nil {
			step := all[:min(len(all), emptyStep)]
			all = all[len(step):]
			err = e.dropEmpty(step)
		}
	}
	if err == nil {
		e.emptySwept = time.Now()
	}
	return err
}

// emptyBuckets returns the buckets that have no entries in the file, sorted by name.
func (e *Engine) emptyBuckets() (all []emptyBucket, err error) {
	_, used, err := e.store.Size()
	if err != nil {
		return nil, err
	}
	e.mu.RLock()
	for _, ns := range e.buckets {
		if id := ns.id.Load(); id != 0 && ns.fileID.Load() == id && used[id].Entries == 0 {
			all = append(all, emptyBucket{ns, id})
		}
	}
	e.mu.RUnlock()
	slices.SortFunc(all, func(a, b emptyBucket) int { return cmp.Compare(a.ns.name, b.ns.name) })
	return all, nil
}

// dropEmpty drops those of the buckets that nobody uses at the moment and that are still empty. It does not stop loads:
// what they load creates the bucket again.
func (e *Engine) dropEmpty(step []emptyBucket) error {
	empty := make(map[uint64]bool, len(step))
	step = slices.DeleteFunc(step, func(v emptyBucket) bool {
		if !v.ns.mu.TryLock() {
			return true
		}
		if v.ns.id.Load() != v.id {
			v.ns.mu.Unlock()
			return true
		}
		empty[v.id] = true
		return false
	})
	defer func() {
		for _, v := range step {
			v.ns.mu.Unlock()
			e.dropIfUnused(v.ns)
		}
	}()
	// Nobody writes to the buckets now. Memory is checked first: what is no longer pinned is in the file.
	dropPinned := func() { e.memory.EachPinned(func(p *memory.Pin) { delete(empty, p.ID) }) }
	dropPinned()
	if err := e.store.DropNonEmpty(empty); err != nil || len(empty) == 0 {
		return err
	}
	dropPinned() // again: the file may have been replaced, and entries that the new one lacks have been pinned
	var names []store.NameOp
	for _, v := range step {
		if empty[v.id] {
			names = append(names, store.NameOp{Name: v.ns.name, Old: v.id})
		}
	}
	err := e.writer.write(names)
	if err == nil || errors.Is(err, errs.ErrUnknownOutcome) {
		for _, v := range step {
			if empty[v.id] {
				e.setID(v.ns, 0)
			}
		}
	}
	return err
}
