package engine

import (
	"errors"
	"maps"
	"slices"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/store"
)

// What brings writes into their buckets.

// Write writes writes, all of them or nothing, under the bucket's current id. It returns ErrMissed if one of
// them depends on a reading that is no longer true.
func (e *Engine) Write(at *Ref, writes ...*Write) error {
	ns, id := e.enter(at.Name, e.find(at))
	if id != 0 {
		defer ns.turn.RUnlock()
		return e.writeAs(ns, id, nil, writes)
	}
	// The first write brings the bucket itself into being, in the same piece.
	err := e.create(ns, writes)
	ns.turn.Unlock()
	if err != nil {
		e.lapse(ns)
	}
	return err
}

// create is Write for a bucket that does not exist. The caller has its turn exclusively.
func (e *Engine) create(ns *namespace, writes []*Write) error {
	id := e.nextID()
	for _, d := range writes {
		if d.expects && d.id != 0 {
			return ErrMissed
		}
		d.expects = false
	}
	err := e.writeAs(ns, id, []store.NameOp{{Name: ns.name, ID: id}}, writes)
	if err == nil || errors.Is(err, errs.ErrUnknownOutcome) {
		e.point(ns, id)
	}
	return err
}

func (e *Engine) writeAs(ns *namespace, id uint64, names []store.NameOp, writes []*Write) error {
	for _, d := range writes {
		if d.expects && d.id != id {
			return ErrMissed
		}
		if err := e.admit(ns, id, d); err != nil {
			return err
		}
		e.evictor.use(d.hash)
	}
	return e.writer.write(names, writes...)
}

// admit makes a write one of a bucket, unless it can be in no file within the budgets.
func (e *Engine) admit(ns *namespace, id uint64, d *Write) error {
	if err := e.evictor.admit(ns.name, d); err != nil {
		return err
	}
	d.ns, d.id, d.sum, d.hash = ns, id, ns.sum, e.memory.Hash(id, d.Key)
	return nil
}

// WriteAll writes writes for several buckets, by their names, all of them or nothing.
func (e *Engine) WriteAll(buckets map[string][]*Write) error {
	var names []store.NameOp
	var writes []*Write
	created := make(map[*namespace]uint64)
	// Locks are taken in the order of the names, so that two batches cannot wait for each other.
	for _, name := range slices.Sorted(maps.Keys(buckets)) {
		ns, id := e.enter(name, nil)
		if id != 0 {
			defer ns.turn.RUnlock()
		} else {
			defer e.lapse(ns) // where it does not come into being
			defer ns.turn.Unlock()
		}
		own := buckets[name]
		if id == 0 {
			// There is nothing to remove, and a bucket comes into being with its first entry.
			own = slices.DeleteFunc(own, func(d *Write) bool {
				if d.Stored == nil {
					d.ns = ns
					e.writer.tell(nil, []*Write{d})
				}
				return d.Stored == nil
			})
			if len(own) == 0 {
				continue
			}
			id = e.nextID()
			created[ns] = id
			names = append(names, store.NameOp{Name: ns.name, ID: id})
		}
		for _, d := range own {
			if err := e.admit(ns, id, d); err != nil {
				return err
			}
		}
		writes = append(writes, own...)
	}
	if len(writes) == 0 {
		return nil
	}
	err := e.writer.write(names, writes...)
	if err == nil || errors.Is(err, errs.ErrUnknownOutcome) {
		for ns, id := range created {
			e.point(ns, id)
		}
	}
	if err != nil {
		return err
	}
	for _, d := range writes {
		e.evictor.use(d.hash)
	}
	return nil
}

// InvalidateTags makes every entry with one of the tags that was written before absent.
func (e *Engine) InvalidateTags(tags []string) error {
	ops := make([]store.NameOp, len(tags))
	for i, tag := range tags {
		ops[i] = store.NameOp{Name: tag, Tag: true}
	}
	return e.writer.write(ops)
}
