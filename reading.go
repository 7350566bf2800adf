package keepcache

import (
	"errors"
	"fmt"
)

// reading is what a look at a key found.
type reading struct {
	header  header // zero if there is no entry
	value   []byte // part of a record that does not change; not to be written to
	options []byte // part of it too
	state
	saved  int64 // until when the record says that it is fresh; the header has what reads made of it
	file   bool  // the file was asked, because memory did not know
	own    bool  // nobody else has the value
	damage error // why what is stored cannot be read, ErrCorrupt or ErrUnavailable; then there is no header

	shard *shard // of memory, where it was looked for; nil if it was not

	id   uint64 // of the bucket at the time, for a write that depends on the reading
	seen sight
}

// stored reports whether there is anything under the key, be it expired or damaged.
func (r *reading) stored() bool { return r.header.revision != 0 || r.damage != nil }

// traits reads the options of what was read.
func (r *reading) traits() traits { return readTraits(r.options) }

// entry is what was read, as a caller gets it.
func (r *reading) entry(key string) Entry { return newEntry(key, &r.header, r.options, r.value) }

// take fills in what a record says.
func (r *reading) take(db *DB, rec []byte) {
	r.header, r.options, r.value = readHeader(rec), recordOptions(rec), recordValue(rec)
	r.saved = r.header.freshUntil
	r.header.slide(r.seen.slid)
	r.state = db.stateOf(&r.header, r.options)
}

// expect makes the draft one for a key that is still as r found it.
func (d *draft) expect(r reading) { d.expects, d.id, d.seen = true, r.id, r.seen }

// read looks at a key. A damaged entry reads as absent, with the damage beside it.
func (b *Bucket) read(key string) (r reading, err error) {
	switch {
	case b.db.closed.Load():
		return r, ErrClosed
	case !validName(b.name):
		return r, ErrInvalidName
	case !validKey(key):
		return r, ErrInvalidKey
	}
	if b.db.live != nil {
		return b.readLive(key)
	}
	ns := b.namespace()
	if ns == nil {
		return r, nil
	}
	if r.id = ns.id.Load(); r.id == 0 {
		return r, nil
	}
	hash := b.db.memory.hash(r.id, key)
	r.shard = b.db.memory.shardOf(hash)
	r.seen = b.db.memory.look(hash, r.id, key)
	if r.seen.known {
		if r.seen.record != nil {
			r.take(b.db, r.seen.record)
			if r.live {
				b.db.evictor.use(hash)
			}
		}
		return r, nil
	}
	r.file = true
	own, stored, err := b.db.store.get(r.id, key)
	if errors.Is(err, ErrUnavailable) {
		r.damage = err // a miss to who only reads, and no answer to who depends on it
		return r, nil
	}
	if err != nil {
		return r, err
	}
	rec := recordIn(stored)
	if rec == nil {
		b.db.memory.lacks(hash, r.seen.version)
		return r, nil
	}
	if _, _, r.damage = openStored(rec, ns.sum, key); r.damage != nil {
		b.damaged(key, r.damage)
		return r, nil
	}
	r.take(b.db, rec)
	r.seen.revision = r.header.revision
	if r.live {
		b.db.evictor.use(hash)
	}
	if r.held {
		r.own = !b.db.memory.keep(hash, r.id, own, stored, r.header, r.seen.version, b.sliding)
	}
	return r, nil
}

// damaged counts and tells that a read met a damaged entry.
func (b *Bucket) damaged(key string, err error) {
	b.db.counts.damaged.Add(1)
	b.db.events.tell(Event{Kind: EventCorrupt, Bucket: b.name, Key: key, Err: err})
}

// openStored opens a record that comes from the file and proves its value. The error is ErrCorrupt.
func openStored(rec []byte, sum uint32, key string) (header, []byte, error) {
	h, value, err := openRecord(rec, sum, key)
	if err != nil {
		return header{}, nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := checkValue(value); err != nil {
		return header{}, nil, err
	}
	return h, value, nil
}
