package keepcache

import (
	"errors"

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
	damage error // why what is stored cannot be read, ErrCorrupt or ErrUnavailable; then there is no header

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

// entry is what was read, as a caller gets it.
func (r *reading) entry(key string) Entry { return newEntry(key, &r.header, r.options, r.value) }

// take fills in what a record says, as of a moment; 0 is now.
func (r *reading) take(db *DB, rec []byte, asOf int64) {
	r.header, r.options, r.value = format.ReadHeader(rec), format.OptionBytes(rec), format.Value(rec)
	r.saved = r.header.FreshUntil
	r.header.Slide(r.seen.Slid)
	if asOf == 0 && r.header.FreshUntil != format.Never {
		asOf = db.clock.At(r.header.FreshUntil, r.header.GoneAt)
	}
	r.state = timely(asOf, &r.header)
	if len(r.options) > 0 && r.held {
		r.state = db.regard(r.state, &r.header, r.options)
	}
}

// expect makes the draft one for a key that is still as r found it, and whose deadline has been reached, or has not, as it
// had been then.
func (d *draft) expect(r reading) {
	d.expects, d.id, d.basis = true, r.id, memory.Basis{Lookup: r.seen, Until: format.Never, Fresh: true}
	if r.header.Revision != 0 {
		d.basis.Until, d.basis.Fresh = r.deadline(), r.fresh
	}
}

// read looks at a key. A damaged entry reads as absent, with the damage beside it.
func (b *Bucket) read(key string) (r reading, err error) {
	err = b.readQuietly(&r, key)
	if err == nil && r.damage != nil && !errors.Is(r.damage, ErrUnavailable) {
		b.damaged(key, r.damage)
	}
	return r, err
}

// readQuietly is read, into an empty r, without a word of damage, for one for whom others wait.
func (b *Bucket) readQuietly(r *reading, key string) (err error) {
	if err = b.readAsOf(r, key, 0); !r.fresh && r.header.Revision != 0 && err == nil && b.isDoubtful(key, r) {
		asOf := b.moment(key, r.id)
		*r = reading{}
		err = b.readAsOf(r, key, asOf)
	}
	return err
}

// isDoubtful reports whether an entry that was found at its end may have been written anew, or its life prolonged,
// before that: between the look at the key and the one at the clock.
func (b *Bucket) isDoubtful(key string, r *reading) bool {
	return b.db.live == nil && (b.sliding || !b.db.memory.Unchanged(b.db.memory.Hash(r.id, key), r.id, key, &r.seen))
}

// moment returns the time for a look at a key that is yet to come. Who finds then that a deadline had been reached need
// not look twice: what others publish under the old deadline they have published before. That takes a lock where lives are prolonged
// under a lock that is shared.
func (b *Bucket) moment(key string, id uint64) int64 {
	now := format.Millis(b.db.clock.Now())
	if b.sliding {
		b.db.memory.Await(b.db.memory.Hash(id, key))
	}
	return now
}

// readAsOf is read as of a moment before it, into an empty r; 0 is the moment after the look at the key.
func (b *Bucket) readAsOf(r *reading, key string, asOf int64) (err error) {
	switch {
	case b.db.closed.Load():
		return ErrClosed
	case !format.ValidName(b.name):
		return ErrInvalidName
	case !format.ValidKey(key):
		return ErrInvalidKey
	}
	if b.db.live != nil {
		*r, err = b.readLive(key)
		return err
	}
	ns := b.namespace()
	if ns == nil {
		return nil
	}
	if r.id = ns.id.Load(); r.id == 0 {
		return nil
	}
	hash := b.db.memory.Hash(r.id, key)
	r.shard = b.db.memory.ShardOf(hash)
	r.shard.Look(hash, r.id, key, &r.seen)
	if r.seen.Known {
		if r.seen.Record != nil {
			r.take(b.db, r.seen.Record, asOf)
			if r.live {
				b.db.evictor.use(hash)
			}
		}
		return nil
	}
	r.file = true
	own, stored, err := b.db.store.Get(r.id, key)
	if errors.Is(err, ErrUnavailable) {
		r.damage = err // a miss to who only reads, and no answer to who depends on it
		return nil
	}
	if err != nil {
		return err
	}
	rec := format.RecordIn(stored)
	if rec == nil {
		b.db.memory.KeepAbsent(hash, r.seen.Version)
		return nil
	}
	if _, _, r.damage = format.OpenStored(rec, ns.sum, key); r.damage != nil {
		return nil
	}
	r.take(b.db, rec, asOf)
	r.seen.Revision = r.header.Revision
	if r.live {
		b.db.evictor.use(hash)
	}
	if r.held {
		r.own = !b.db.memory.Keep(hash, r.id, own, stored, r.header, r.seen.Version, b.sliding)
	}
	return nil
}

// damaged counts and tells that a read met a damaged entry.
func (b *Bucket) damaged(key string, err error) {
	b.db.counts.damaged.Add(1)
	b.db.events.tell(Event{Kind: EventCorrupt, Bucket: b.name, Key: key, Err: err})
}
