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
	// vacantInterval is the least time between two looks for buckets without entries: a look reads the counts of all buckets, and
	// what it wins is a name.
	vacantInterval = time.Minute

	// vacantStep is how many buckets are dropped by one write, which locks each of them out for its time.
	vacantStep = 256
)

// vacancy is a bucket that had no entries when it was looked at.
type vacancy struct {
	ns *namespace
	id uint64
}

// sweepVacant drops the buckets that have no entries any more, so that what comes and goes under names of its own leaves no names
// behind. Without force it does so only if vacantInterval has passed since the last time.
func (e *Engine) sweepVacant(ctx context.Context, force bool) error {
	if !force && time.Since(e.vacantSwept) < vacantInterval {
		return nil
	}
	all, err := e.vacancies()
	for len(all) > 0 && err == nil {
		if err = ctx.Err(); err == nil {
			step := all[:min(len(all), vacantStep)]
			all = all[len(step):]
			err = e.dropVacant(step)
		}
	}
	if err == nil {
		e.vacantSwept = time.Now()
	}
	return err
}

// vacancies returns the buckets of which the file counts no entries, by name.
func (e *Engine) vacancies() (all []vacancy, err error) {
	_, used, err := e.store.Size()
	if err != nil {
		return nil, err
	}
	e.mu.RLock()
	for _, ns := range e.buckets {
		if id := ns.id.Load(); id != 0 && ns.filed.Load() == id && used[id].Entries == 0 {
			all = append(all, vacancy{ns, id})
		}
	}
	e.mu.RUnlock()
	slices.SortFunc(all, func(a, b vacancy) int { return cmp.Compare(a.ns.name, b.ns.name) })
	return all, nil
}

// dropVacant drops those of the buckets that nobody uses at the moment and that still have no entries. Loads that are under way
// go on: what they bring makes the bucket anew.
func (e *Engine) dropVacant(some []vacancy) error {
	vacant := make(map[uint64]bool, len(some))
	some = slices.DeleteFunc(some, func(v vacancy) bool {
		if !v.ns.turn.TryLock() {
			return true
		}
		if v.ns.id.Load() != v.id {
			v.ns.turn.Unlock()
			return true
		}
		vacant[v.id] = true
		return false
	})
	defer func() {
		for _, v := range some {
			v.ns.turn.Unlock()
			e.lapse(v.ns)
		}
	}()
	// Nobody writes to them now. Memory is asked first: what it has not pinned any more is in the file.
	dropPinned := func() { e.memory.EachPinned(func(p *memory.Pin) { delete(vacant, p.ID) }) }
	dropPinned()
	if err := e.store.DropNonEmpty(vacant); err != nil || len(vacant) == 0 {
		return err
	}
	dropPinned() // again: another file may have come, and what it lacks been pinned for it
	var names []store.NameOp
	for _, v := range some {
		if vacant[v.id] {
			names = append(names, store.NameOp{Name: v.ns.name, Old: v.id})
		}
	}
	err := e.writer.write(names)
	if err == nil || errors.Is(err, errs.ErrUnknownOutcome) {
		for _, v := range some {
			if vacant[v.id] {
				e.point(v.ns, 0)
			}
		}
	}
	return err
}
