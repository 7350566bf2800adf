package keepcache

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/store"
)

// Batch gathers writes to any number of buckets, which DB.Apply then makes all together or not at all. The zero
// value is an empty batch. Of several writes to one key the last one counts. A Batch is for one goroutine.
type Batch struct {
	writes map[spot]batched
	err    error // of the first write that cannot be made
}

type batched struct {
	bucket *Bucket
	draft  *draft
}

// Set adds what Bucket.Set does. The value is encoded now, and the lifetime begins now. That it cannot be
// stored is reported by Apply.
func (t *Batch) Set(b *Bucket, key string, value any, ttl time.Duration) {
	d, err := b.prepare(key, value, ttl)
	t.add(b, key, d, b.fail("set", key, err))
}

// Delete adds the removal of key, which need not be there. As nobody looks whether it was, it counts neither in
// Stats.Deletes nor as an EventDelete.
func (t *Batch) Delete(b *Bucket, key string) {
	var err error
	switch {
	case !format.ValidName(b.name):
		err = ErrInvalidName
	case !format.ValidKey(key):
		err = ErrInvalidKey
	}
	t.add(b, key, &draft{key: key}, b.fail("delete", key, err))
}

func (t *Batch) add(b *Bucket, key string, d *draft, err error) {
	if err != nil {
		if t.err == nil {
			t.err = err
		}
		return
	}
	if t.writes == nil {
		t.writes = make(map[spot]batched)
	}
	t.writes[spot{b.name, key}] = batched{b, d}
}

// Len returns how many keys the batch writes.
func (t *Batch) Len() int { return len(t.writes) }

var errForeignBatch = errors.New("the batch has a bucket of another DB")

// Apply makes the writes of a batch, all of them or none: also through a crash no part of them is there without
// the rest. Other goroutines may see part of them for an instant. If one of them cannot be made the error
// says which, and nothing was changed. Whatever the outcome, the batch is empty afterwards and can be used
// again; an empty one is nothing to do.
func (db *DB) Apply(t *Batch) error {
	writes, err := t.writes, t.err
	*t = Batch{}
	if err != nil {
		return err
	}
	if err = db.writable(); err == nil {
		err = db.apply(writes)
	}
	if err != nil {
		return db.fail("apply batch", "", err)
	}
	return nil
}

func (db *DB) apply(writes map[spot]batched) error {
	if err := db.applyDrafts(writes); err != nil {
		return err
	}
	for at, w := range writes { // outside of the buckets' turns: who is told may write
		if w.draft.stored != nil {
			db.counts.sets.Add(1)
			w.bucket.note(EventSet, at.key) // not the draft's, which would keep its record alive
		}
	}
	return nil
}

func (db *DB) applyDrafts(writes map[spot]batched) error {
	buckets := make(map[string][]*draft)
	for _, w := range writes {
		if w.bucket.db != db {
			return errForeignBatch
		}
		buckets[w.bucket.name] = append(buckets[w.bucket.name], w.draft)
	}
	var names []store.NameOp
	var drafts []*draft
	created := make(map[*namespace]uint64)
	// Locks are taken in the order of the names, so that two batches cannot wait for each other.
	for _, name := range slices.Sorted(maps.Keys(buckets)) {
		ns, id := db.enter(name, nil)
		if id != 0 {
			defer ns.turn.RUnlock()
		} else {
			defer db.lapse(ns) // where it does not come into being
			defer ns.turn.Unlock()
		}
		own := buckets[name]
		if id == 0 {
			// There is nothing to remove, and a bucket comes into being with its first entry.
			own = slices.DeleteFunc(own, func(d *draft) bool {
				if d.stored == nil {
					db.loads.flights.void(ns.name, d.key, nil)
					db.loads.failures.forget(ns.name, d.key)
				}
				return d.stored == nil
			})
			if len(own) == 0 {
				continue
			}
			id = db.nextID()
			created[ns] = id
			names = append(names, store.NameOp{Name: ns.name, ID: id})
		}
		for _, d := range own {
			if err := db.evictor.admit(ns.name, d); err != nil {
				return err
			}
			d.ns, d.id, d.sum, d.hash = ns, id, ns.sum, db.memory.Hash(id, d.key)
		}
		drafts = append(drafts, own...)
	}
	if len(drafts) == 0 {
		return nil
	}
	err := db.writer.write(names, drafts...)
	if err == nil || errors.Is(err, ErrUnknownOutcome) {
		for ns, id := range created {
			db.point(ns, id)
		}
	}
	if err != nil {
		return err
	}
	for _, d := range drafts {
		db.evictor.use(d.hash)
	}
	return nil
}
