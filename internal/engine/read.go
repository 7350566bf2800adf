package engine

import (
	"errors"
	"sync/atomic"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
)

// Reading is what a look at a key found.
type Reading struct {
	Header  format.Header // zero if there is no entry
	Value   []byte        // part of a record that does not change; not to be written to
	Options []byte        // part of it too
	State
	saved  int64 // until when the record says that it is fresh; the header has what reads made of it
	File   bool  // the file was asked, because memory did not know
	Own    bool  // nobody else has the value
	Damage error // why what is stored cannot be read, errs.ErrCorrupt or errs.ErrUnavailable; then there is no header

	shard *memory.Shard // of memory, where it was looked for; nil if it was not

	ID   uint64 // of the bucket at the time, for a write that depends on the reading
	Seen memory.Lookup
}

// deadline returns the moment until which the entry was fresh as it was found. The header may say more, after a read has
// prolonged its life.
func (r *Reading) deadline() int64 { return max(r.saved, r.Seen.Slid) }

// IsStored reports whether there is anything under the key, be it expired or damaged.
func (r *Reading) IsStored() bool { return r.Header.Revision != 0 || r.Damage != nil }

// ParseOptions reads the options of what was read.
func (r *Reading) ParseOptions() format.Options { return format.ReadOptions(r.Options) }

// Take fills in what a record says, as of a moment; 0 is now.
func (r *Reading) Take(j *Judge, rec []byte, asOf int64) {
	r.Header, r.Options, r.Value = format.ReadHeader(rec), format.OptionBytes(rec), format.Value(rec)
	r.saved = r.Header.ExpiresAt
	r.Header.Slide(r.Seen.Slid)
	if asOf == 0 && r.Header.ExpiresAt != format.Never {
		asOf = j.clock.At(r.Header.ExpiresAt, r.Header.StaleUntil)
	}
	r.State = timely(asOf, &r.Header)
	if len(r.Options) > 0 && r.Held {
		r.State = j.regard(r.State, &r.Header, r.Options)
	}
}

// Expect makes the write one for a key that is still as r found it, and whose deadline has been reached, or has not, as
// it had been then.
func (d *Write) Expect(r *Reading) {
	d.expects, d.id, d.basis = true, r.ID, memory.Basis{Lookup: r.Seen, Until: format.Never, Fresh: true}
	if r.Header.Revision != 0 {
		d.basis.Until, d.basis.Fresh = r.deadline(), r.Fresh
	}
}

// Ref names a bucket, and remembers where it was found.
type Ref struct {
	Name   string
	shared atomic.Pointer[namespace] // nil until the bucket is known; it may be gone
}

// newRef returns a ref of the bucket with the given name.
func newRef(name string) *Ref { return &Ref{Name: name} }

// Become has at name the same bucket as another ref.
func (at *Ref) Become(other *Ref) {
	at.Name = other.Name
	at.shared.Store(other.shared.Load())
}

// find returns what the handles of a bucket share, or nil if there is no such bucket.
func (e *Engine) find(at *Ref) *namespace {
	if ns := at.shared.Load(); ns != nil && !ns.gone.Load() {
		return ns
	}
	ns := e.namespace(at.Name)
	if ns != nil {
		at.shared.Store(ns)
	}
	return ns
}

// Read looks at a key. A damaged entry reads as absent, with the damage beside it. sliding says that reads of the bucket prolong lives.
func (e *Engine) Read(at *Ref, key string, sliding bool) (r Reading, err error) {
	err = e.ReadInto(&r, at, key, sliding)
	return r, err
}

// ReadInto is Read into an empty r, for callers whom copies of it would cost a part of the time.
func (e *Engine) ReadInto(r *Reading, at *Ref, key string, sliding bool) (err error) {
	switch {
	case e.closed.Load():
		return errs.ErrClosed
	case !format.ValidName(at.Name):
		return errs.ErrInvalidName
	case !format.ValidKey(key):
		return errs.ErrInvalidKey
	}
	if err = e.readAsOf(at, key, sliding, r, 0); !r.Fresh && r.Header.Revision != 0 && err == nil && e.isDoubtful(key, sliding, r) {
		asOf := e.moment(key, sliding, r.ID)
		*r = Reading{}
		err = e.readAsOf(at, key, sliding, r, asOf)
	}
	return err
}

// isDoubtful reports whether an entry that was found at its end may have been written anew, or its life prolonged,
// before that: between the look at the key and the one at the clock.
func (e *Engine) isDoubtful(key string, sliding bool, r *Reading) bool {
	return sliding || !e.memory.Unchanged(e.memory.Hash(r.ID, key), r.ID, key, &r.Seen)
}

// moment returns the time for a look at a key that is yet to come. Who finds then that a deadline had been reached need
// not look twice: what others publish under the old deadline they have published before. That takes a lock where lives are prolonged
// under a lock that is shared.
func (e *Engine) moment(key string, sliding bool, id uint64) int64 {
	now := format.Millis(e.clock.Now())
	if sliding {
		e.memory.Await(e.memory.Hash(id, key))
	}
	return now
}

// readAsOf is Read as of a moment before it, into an empty r; 0 is the moment after the look at the key.
func (e *Engine) readAsOf(at *Ref, key string, sliding bool, r *Reading, asOf int64) (err error) {
	ns := e.find(at)
	if ns == nil {
		return nil
	}
	if r.ID = ns.id.Load(); r.ID == 0 {
		return nil
	}
	hash := e.memory.Hash(r.ID, key)
	r.shard = e.memory.ShardOf(hash)
	r.shard.Look(hash, r.ID, key, &r.Seen)
	if r.Seen.Known {
		if r.Seen.Record != nil {
			r.Take(&e.Judge, r.Seen.Record, asOf)
			if r.Live {
				e.evictor.use(hash)
			}
		}
		return nil
	}
	r.File = true
	own, stored, err := e.store.Get(r.ID, key)
	if errors.Is(err, errs.ErrUnavailable) {
		r.Damage = err // a miss to who only reads, and no answer to who depends on it
		return nil
	}
	if err != nil {
		return err
	}
	rec := format.RecordIn(stored)
	if rec == nil {
		e.memory.KeepAbsent(hash, r.Seen.Version)
		return nil
	}
	if _, _, r.Damage = format.OpenStored(rec, ns.sum, key); r.Damage != nil {
		return nil
	}
	r.Take(&e.Judge, rec, asOf)
	r.Seen.Revision = r.Header.Revision
	if r.Live {
		e.evictor.use(hash)
	}
	if r.Held {
		r.Own = !e.memory.Keep(hash, r.ID, own, stored, r.Header, r.Seen.Version, sliding)
	}
	return nil
}

// Peek is Read for those who only look: it is no use of the entry, and brings nothing into memory.
func (e *Engine) Peek(at *Ref, key string, sliding bool) (r Reading, err error) {
	r, err = e.peekAsOf(at, key, 0)
	if !r.Fresh && r.Header.Revision != 0 && err == nil && e.isDoubtful(key, sliding, &r) {
		r, err = e.peekAsOf(at, key, e.moment(key, sliding, r.ID))
	}
	return r, err
}

func (e *Engine) peekAsOf(at *Ref, key string, asOf int64) (r Reading, err error) {
	ns := e.find(at)
	if ns == nil {
		return r, nil
	}
	if r.ID = ns.id.Load(); r.ID == 0 {
		return r, nil
	}
	r.Seen = e.memory.Peek(e.memory.Hash(r.ID, key), r.ID, key)
	rec := r.Seen.Record
	if !r.Seen.Known {
		if rec, err = e.store.Record(r.ID, key); err != nil || rec == nil {
			return r, err
		}
		if _, _, r.Damage = format.OpenStored(rec, ns.sum, key); r.Damage != nil {
			return r, nil
		}
	}
	if rec != nil {
		r.Take(&e.Judge, rec, asOf)
		r.Seen.Revision = r.Header.Revision
	}
	return r, nil
}

// Same reports whether two looks at a key found the same. That it was something else in between is no
// matter: what was decided on the one is right for the other.
func (r *Reading) Same(o *Reading) bool {
	return r.ID == o.ID && r.Header.Revision == o.Header.Revision && r.Live == o.Live && r.Damage == nil && o.Damage == nil
}

// CountHit has memory count the reading as one that found the key, and reports false if it was not looked for there.
func (r *Reading) CountHit() bool {
	if r.shard == nil {
		return false
	}
	r.shard.Hit()
	return true
}
