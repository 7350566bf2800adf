package engine

import (
	"errors"
	"maps"
	"slices"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/store"
)

// Writing to buckets by name.

// Write performs the writes, all or nothing, under the bucket's current id. It returns ErrMissed if one of them depends
// on a reading that is no longer true.
func (e *Engine) Write(at *Ref, writes ...*Write) error {
	ns, id := e.lockBucket(at.Name, e.find(at))
	if id != 0 {
		defer ns.mu.RUnlock()
		return e.writeAs(ns, id, nil, writes)
	}
	// The first write also creates the bucket, in the same log record.
	err := e.create(ns, writes)
	ns.mu.Unlock()
	if err != nil {
		e.dropIfUnused(ns)
	}
	return err
}

// create is Write for a bucket that does not exist. The caller holds its mu exclusively.
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
		e.setID(ns, id)
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

// admit prepares a write for a bucket. It fails if the record cannot be in any file within the budgets.
func (e *Engine) admit(ns *namespace, id uint64, d *Write) error {
	if err := e.evictor.admit(ns.name, d); err != nil {
		return err
	}
	d.ns, d.id, d.sum, d.hash = ns, id, ns.sum, e.memory.Hash(id, d.Key)
	return nil
}

// WriteAll performs writes to several buckets, by name, all or nothing.
func (e *Engine) WriteAll(buckets map[string][]*Write) error {
	var names []store.NameOp
	var writes []*Write
	created := make(map[*namespace]uint64)
	// Lock in the order of the names, so that two batches cannot deadlock.
	for _, name := range slices.Sorted(maps.Keys(buckets)) {
		ns, id := e.lockBucket(name, nil)
		if id != 0 {
			defer ns.mu.RUnlock()
		} else {
			defer e.dropIfUnused(ns) // in case it is not created
			defer ns.mu.Unlock()
		}
		own := buckets[name]
		if id == 0 {
			// There is nothing to delete, and a bucket is created with its first entry.
			own = slices.DeleteFunc(own, func(d *Write) bool {
				if d.Stored == nil {
					d.ns = ns
					e.writer.notify(nil, []*Write{d})
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
			e.setID(ns, id)
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
