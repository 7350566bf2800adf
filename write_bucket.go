package keepcache

import (
	"errors"
	"maps"
	"slices"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/store"
)

// What brings writes into their buckets.

// write writes drafts, all of them or nothing, under the bucket's current id. It returns errMissed if one of
// them depends on a reading that is no longer true.
func (e *engine) write(at *ref, drafts ...*draft) error {
	ns, id := e.enter(at.name, e.find(at))
	if id != 0 {
		defer ns.turn.RUnlock()
		return e.writeAs(ns, id, nil, drafts)
	}
	// The first write brings the bucket itself into being, in the same piece.
	err := e.create(ns, drafts)
	ns.turn.Unlock()
	if err != nil {
		e.lapse(ns)
	}
	return err
}

// create is write for a bucket that does not exist. The caller has its turn exclusively.
func (e *engine) create(ns *namespace, drafts []*draft) error {
	id := e.nextID()
	for _, d := range drafts {
		if d.expects && d.id != 0 {
			return errMissed
		}
		d.expects = false
	}
	err := e.writeAs(ns, id, []store.NameOp{{Name: ns.name, ID: id}}, drafts)
	if err == nil || errors.Is(err, errs.ErrUnknownOutcome) {
		e.point(ns, id)
	}
	return err
}

func (e *engine) writeAs(ns *namespace, id uint64, names []store.NameOp, drafts []*draft) error {
	for _, d := range drafts {
		if d.expects && d.id != id {
			return errMissed
		}
		if err := e.admit(ns, id, d); err != nil {
			return err
		}
		e.evictor.use(d.hash)
	}
	return e.writer.write(names, drafts...)
}

// admit makes a draft one of a bucket, unless it can be in no file within the budgets.
func (e *engine) admit(ns *namespace, id uint64, d *draft) error {
	if err := e.evictor.admit(ns.name, d); err != nil {
		return err
	}
	d.ns, d.id, d.sum, d.hash = ns, id, ns.sum, e.memory.Hash(id, d.key)
	return nil
}

// writeAll writes drafts for several buckets, by their names, all of them or nothing.
func (e *engine) writeAll(buckets map[string][]*draft) error {
	var names []store.NameOp
	var drafts []*draft
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
			own = slices.DeleteFunc(own, func(d *draft) bool {
				if d.stored == nil {
					d.ns = ns
					e.writer.tell(nil, []*draft{d})
				}
				return d.stored == nil
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
		drafts = append(drafts, own...)
	}
	if len(drafts) == 0 {
		return nil
	}
	err := e.writer.write(names, drafts...)
	if err == nil || errors.Is(err, errs.ErrUnknownOutcome) {
		for ns, id := range created {
			e.point(ns, id)
		}
	}
	if err != nil {
		return err
	}
	for _, d := range drafts {
		e.evictor.use(d.hash)
	}
	return nil
}

// invalidateTag has every entry with the tag that was written before count as absent.
func (e *engine) invalidateTag(tag string) error {
	return e.writer.write([]store.NameOp{{Name: tag, Tag: true}})
}
