package engine

import (
	"errors"
	"sync/atomic"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
)

// Reading is the result of reading a key.
type Reading struct {
	Header  format.Header // zero if there is no entry
	Value   []byte        // part of a record, which must not be modified
	Options []byte        // part of the same record
	State
	recordedUntil int64 // ExpiresAt of the record; in Header, reads may have prolonged it
	File          bool  // the file was read, because memory did not know the key
	Own           bool  // nobody else has the value
	Damage        error // why it cannot be read: errs.ErrCorrupt or errs.ErrUnavailable; then there is no header

	shard *memory.Shard // the shard that was asked; nil if none was

	ID   uint64 // of the bucket at the time, for a write that depends on the reading
	Seen memory.Lookup
}

// deadline returns until when the entry was fresh when it was found. The header may have a later time, after a read has
// prolonged its life.
func (r *Reading) deadline() int64 { return max(r.recordedUntil, r.Seen.Slid) }

// IsStored reports whether anything is stored under the key, even if it has expired or is damaged.
func (r *Reading) IsStored() bool { return r.Header.Revision != 0 || r.Damage != nil }

// ParseOptions parses the record's options.
func (r *Reading) ParseOptions() format.Options { return format.ReadOptions(r.Options) }

// Fill sets the fields that follow from a record. The state is as of asOf; 0 is now.
func (r *Reading) Fill(j *Judge, rec []byte, asOf int64) {
	r.Header, r.Options, r.Value = format.ReadHeader(rec), format.OptionBytes(rec), format.Value(rec)
	r.recordedUntil = r.Header.ExpiresAt
	r.Header.Slide(r.Seen.Slid)
	if asOf == 0 && r.Header.ExpiresAt != format.Never {
		asOf = j.clock.At(r.Header.ExpiresAt, r.Header.StaleUntil)
	}
	r.State = stateByTime(asOf, &r.Header)
	if len(r.Options) > 0 && r.Held {
		r.State = j.withOptions(r.State, &r.Header, r.Options)
	}
}

// Expect makes the write conditional: the key must still be as r found it, and its deadline must still be reached, or
// not reached, as it was then.
func (d *Write) Expect(r *Reading) {
	d.expects, d.id, d.expected = true, r.ID, memory.Expectation{Lookup: r.Seen, Until: format.Never, Fresh: true}
	if r.Header.Revision != 0 {
		d.expected.Until, d.expected.Fresh = r.deadline(), r.Fresh
	}
}

// Ref is a reference to a bucket by name. It caches where the bucket was found.
type Ref struct {
	Name   string
	shared atomic.Pointer[namespace] // nil until the bucket is known; it may be gone
}

// newRef returns a reference to the bucket with the given name.
func newRef(name string) *Ref { return &Ref{Name: name} }

// Become makes at refer to the same bucket as other.
func (at *Ref) Become(other *Ref) {
	at.Name = other.Name
	at.shared.Store(other.shared.Load())
}

// find returns the shared state of a bucket, or nil if there is no such bucket.
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

// Read reads a key. A damaged entry reads as absent, with Damage set. sliding says that reads of the bucket prolong
// lives.
func (e *Engine) Read(at *Ref, key string, sliding bool) (r Reading, err error) {
	err = e.ReadInto(&r, at, key, sliding)
	return r, err
}

// ReadInto is Read into r, which must be zero. It saves copying a Reading, which shows in the time of a hit.
func (e *Engine) ReadInto(r *Reading, at *Ref, key string, sliding bool) (err error) {
	switch {
	case e.closed.Load():
		return errs.ErrClosed
	case !format.ValidName(at.Name):
		return errs.ErrInvalidName
	case !format.ValidKey(key):
		return errs.ErrInvalidKey
	}
	err = e.readAt(at, key, sliding, r, 0)
	if !r.Fresh && r.Header.Revision != 0 && err == nil && e.isDoubtful(key, sliding, r) {
		asOf := e.readTime(key, sliding, r.ID)
		*r = Reading{}
		err = e.readAt(at, key, sliding, r, asOf)
	}
	return err
}

// isDoubtful reports whether an entry that was found expired may have been written again, or its life prolonged, before
// its deadline: between the look-up of the key and the look at the clock.
func (e *Engine) isDoubtful(key string, sliding bool, r *Reading) bool {
	return sliding || !e.memory.Unchanged(e.memory.Hash(r.ID, key), r.ID, key, &r.Seen)
}

// readTime returns the time for a second read of a key. A look-up after it sees everything that was published under the
// old deadline, so finding the entry expired then is final. Prolonging lives only takes the shared lock of a shard, so
// with sliding readTime waits for the holders of that lock.
func (e *Engine) readTime(key string, sliding bool, id uint64) int64 {
	now := format.Millis(e.clock.Now())
	if sliding {
		e.memory.Await(e.memory.Hash(id, key))
	}
	return now
}

// readAt is Read as of an earlier time, into r, which must be zero. An asOf of 0 is the time after the look-up.
func (e *Engine) readAt(at *Ref, key string, sliding bool, r *Reading, asOf int64) (err error) {
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
			r.Fill(&e.Judge, r.Seen.Record, asOf)
			if r.Live {
				e.evictor.use(hash)
			}
		}
		return nil
	}
	r.File = true
	own, stored, err := e.store.Get(r.ID, key)
	if errors.Is(err, errs.ErrUnavailable) {
		r.Damage = err // a miss for a plain read, but no answer for a caller that depends on it
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
	r.Fill(&e.Judge, rec, asOf)
	r.Seen.Revision = r.Header.Revision
	if r.Live {
		e.evictor.use(hash)
	}
	if r.Held {
		r.Own = !e.memory.Keep(hash, r.ID, own, stored, r.Header, r.Seen.Version, sliding)
	}
	return nil
}

// Peek is Read, but does not count as a use of the entry and brings nothing into memory.
func (e *Engine) Peek(at *Ref, key string, sliding bool) (r Reading, err error) {
	r, err = e.peekAt(at, key, 0)
	if !r.Fresh && r.Header.Revision != 0 && err == nil && e.isDoubtful(key, sliding, &r) {
		r, err = e.peekAt(at, key, e.readTime(key, sliding, r.ID))
	}
	return r, err
}

func (e *Engine) peekAt(at *Ref, key string, asOf int64) (r Reading, err error) {
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
		r.Fill(&e.Judge, rec, asOf)
		r.Seen.Revision = r.Header.Revision
	}
	return r, nil
}

// Same reports whether two readings of a key found the same entry. It may have been something else in between: what was
// decided on the one is right for the other.
func (r *Reading) Same(o *Reading) bool {
	return r.ID == o.ID && r.Header.Revision == o.Header.Revision && r.Live == o.Live && r.Damage == nil && o.Damage == nil
}

// CountHit counts the reading as a hit in its shard. It returns false if no shard was asked.
func (r *Reading) CountHit() bool {
	if r.shard == nil {
		return false
	}
	r.shard.Hit()
	return true
}
