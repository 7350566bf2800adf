package keepcache

import (
	"errors"
	"sync/atomic"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
)

// reading is what a look at a key found.
type reading struct {
	header  format.Header // zero if there is no entry
	value   []byte        // part of a record that does not change; not to be written to
	options []byte        // part of it too
	state
	saved  int64 // until when the record says that it is fresh; the header has what reads made of it
	file   bool  // the file was asked, because memory did not know
	own    bool  // nobody else has the value
	damage error // why what is stored cannot be read, errs.ErrCorrupt or errs.ErrUnavailable; then there is no header

	shard *memory.Shard // of memory, where it was looked for; nil if it was not

	id   uint64 // of the bucket at the time, for a write that depends on the reading
	seen memory.Lookup
}

// deadline returns the moment until which the entry was fresh as it was found. The header may say more, after a read has
// prolonged its life.
func (r *reading) deadline() int64 { return max(r.saved, r.seen.Slid) }

// stored reports whether there is anything under the key, be it expired or damaged.
func (r *reading) stored() bool { return r.header.Revision != 0 || r.damage != nil }

// traits reads the options of what was read.
func (r *reading) traits() format.Options { return format.ReadOptions(r.options) }

// take fills in what a record says, as of a moment; 0 is now.
func (r *reading) take(j *judge, rec []byte, asOf int64) {
	r.header, r.options, r.value = format.ReadHeader(rec), format.OptionBytes(rec), format.Value(rec)
	r.saved = r.header.FreshUntil
	r.header.Slide(r.seen.Slid)
	if asOf == 0 && r.header.FreshUntil != format.Never {
		asOf = j.clock.At(r.header.FreshUntil, r.header.GoneAt)
	}
	r.state = timely(asOf, &r.header)
	if len(r.options) > 0 && r.held {
		r.state = j.regard(r.state, &r.header, r.options)
	}
}

// expect makes the draft one for a key that is still as r found it, and whose deadline has been reached, or has not, as it
// had been then.
func (d *draft) expect(r *reading) {
	d.expects, d.id, d.basis = true, r.id, memory.Basis{Lookup: r.seen, Until: format.Never, Fresh: true}
	if r.header.Revision != 0 {
		d.basis.Until, d.basis.Fresh = r.deadline(), r.fresh
	}
}

// ref names a bucket, and remembers where it was found.
type ref struct {
	name   string
	shared atomic.Pointer[namespace] // nil until the bucket is known; it may be gone
}

// newRef returns a ref of the bucket with the given name.
func newRef(name string) *ref { return &ref{name: name} }

// become has at name the same bucket as another ref.
func (at *ref) become(other *ref) {
	at.name = other.name
	at.shared.Store(other.shared.Load())
}

// find returns what the handles of a bucket share, or nil if there is no such bucket.
func (e *engine) find(at *ref) *namespace {
	if ns := at.shared.Load(); ns != nil && !ns.gone.Load() {
		return ns
	}
	ns := e.namespace(at.name)
	if ns != nil {
		at.shared.Store(ns)
	}
	return ns
}

// read looks at a key. A damaged entry reads as absent, with the damage beside it. sliding says that reads of the bucket prolong lives.
func (e *engine) read(at *ref, key string, sliding bool) (r reading, err error) {
	switch {
	case e.closed.Load():
		return r, errs.ErrClosed
	case !format.ValidName(at.name):
		return r, errs.ErrInvalidName
	case !format.ValidKey(key):
		return r, errs.ErrInvalidKey
	}
	if err = e.readAsOf(at, key, sliding, &r, 0); !r.fresh && r.header.Revision != 0 && err == nil && e.isDoubtful(key, sliding, &r) {
		asOf := e.moment(key, sliding, r.id)
		r = reading{}
		err = e.readAsOf(at, key, sliding, &r, asOf)
	}
	return r, err
}

// isDoubtful reports whether an entry that was found at its end may have been written anew, or its life prolonged,
// before that: between the look at the key and the one at the clock.
func (e *engine) isDoubtful(key string, sliding bool, r *reading) bool {
	return sliding || !e.memory.Unchanged(e.memory.Hash(r.id, key), r.id, key, &r.seen)
}

// moment returns the time for a look at a key that is yet to come. Who finds then that a deadline had been reached need
// not look twice: what others publish under the old deadline they have published before. That takes a lock where lives are prolonged
// under a lock that is shared.
func (e *engine) moment(key string, sliding bool, id uint64) int64 {
	now := format.Millis(e.clock.Now())
	if sliding {
		e.memory.Await(e.memory.Hash(id, key))
	}
	return now
}

// readAsOf is read as of a moment before it, into an empty r; 0 is the moment after the look at the key.
func (e *engine) readAsOf(at *ref, key string, sliding bool, r *reading, asOf int64) (err error) {
	ns := e.find(at)
	if ns == nil {
		return nil
	}
	if r.id = ns.id.Load(); r.id == 0 {
		return nil
	}
	hash := e.memory.Hash(r.id, key)
	r.shard = e.memory.ShardOf(hash)
	r.shard.Look(hash, r.id, key, &r.seen)
	if r.seen.Known {
		if r.seen.Record != nil {
			r.take(&e.judge, r.seen.Record, asOf)
			if r.live {
				e.evictor.use(hash)
			}
		}
		return nil
	}
	r.file = true
	own, stored, err := e.store.Get(r.id, key)
	if errors.Is(err, errs.ErrUnavailable) {
		r.damage = err // a miss to who only reads, and no answer to who depends on it
		return nil
	}
	if err != nil {
		return err
	}
	rec := format.RecordIn(stored)
	if rec == nil {
		e.memory.KeepAbsent(hash, r.seen.Version)
		return nil
	}
	if _, _, r.damage = format.OpenStored(rec, ns.sum, key); r.damage != nil {
		return nil
	}
	r.take(&e.judge, rec, asOf)
	r.seen.Revision = r.header.Revision
	if r.live {
		e.evictor.use(hash)
	}
	if r.held {
		r.own = !e.memory.Keep(hash, r.id, own, stored, r.header, r.seen.Version, sliding)
	}
	return nil
}

// peek is read for those who only look: it is no use of the entry, and brings nothing into memory.
func (e *engine) peek(at *ref, key string, sliding bool) (r reading, err error) {
	r, err = e.peekAsOf(at, key, 0)
	if !r.fresh && r.header.Revision != 0 && err == nil && e.isDoubtful(key, sliding, &r) {
		r, err = e.peekAsOf(at, key, e.moment(key, sliding, r.id))
	}
	return r, err
}

func (e *engine) peekAsOf(at *ref, key string, asOf int64) (r reading, err error) {
	ns := e.find(at)
	if ns == nil {
		return r, nil
	}
	if r.id = ns.id.Load(); r.id == 0 {
		return r, nil
	}
	r.seen = e.memory.Peek(e.memory.Hash(r.id, key), r.id, key)
	rec := r.seen.Record
	if !r.seen.Known {
		if rec, err = e.store.Record(r.id, key); err != nil || rec == nil {
			return r, err
		}
		if _, _, r.damage = format.OpenStored(rec, ns.sum, key); r.damage != nil {
			return r, nil
		}
	}
	if rec != nil {
		r.take(&e.judge, rec, asOf)
		r.seen.Revision = r.header.Revision
	}
	return r, nil
}

// same reports whether two looks at a key found the same. That it was something else in between is no
// matter: what was decided on the one is right for the other.
func (r *reading) same(o *reading) bool {
	return r.id == o.id && r.header.Revision == o.header.Revision && r.live == o.live && r.damage == nil && o.damage == nil
}

// hit has memory count the reading as one that found the key, and reports false if it was not looked for there.
func (r *reading) hit() bool {
	if r.shard == nil {
		return false
	}
	r.shard.Hit()
	return true
}
