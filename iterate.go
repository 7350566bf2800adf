package keepcache

import (
	"context"
	"errors"
	"iter"
	"time"
)

// Entry is one entry of a bucket: what is known of it, and its value. It is the caller's own and does not
// change when the cache does.
type Entry struct {
	Key        string
	Size       int       // of the encoded value, in bytes
	Written    time.Time // when the value was set
	FreshUntil time.Time // when the entry expires; zero if never
	GoneAt     time.Time // when the last trace of it goes, not before FreshUntil; zero if never
	Revision   uint64    // rises with every write to the cache, and so tells two writes of one key apart

	value []byte
}

// Decode reads the entry's value into dst as Bucket.Get does.
func (e Entry) Decode(dst any) error { return decodeValue(e.value, dst) }

func newEntry(key string, h header, value []byte) Entry {
	return Entry{
		Key:        key,
		Size:       len(value),
		Written:    timeOf(h.written),
		FreshUntil: timeOf(h.freshUntil),
		GoneAt:     timeOf(h.goneAt),
		Revision:   h.revision,
		value:      value,
	}
}

// All ranges over the live entries of the bucket in the byte order of their keys.
//
// The range is weakly consistent: it sees each entry that lives from its beginning to its end exactly
// once, and entries that come or go meanwhile or not. The loop may write to the bucket, take its time and
// be left early: no transaction is open while its body runs. After an error, which is yielded with a zero
// Entry, the range ends; a damaged entry yields ErrCorrupt with its Key alone, and the range goes on.
func (b *Bucket) All() iter.Seq2[Entry, error] { return b.Prefix("") }

// Prefix ranges as All does over the entries whose key begins with prefix. The prefix is literal.
func (b *Bucket) Prefix(prefix string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		err := b.scan([]byte(prefix), func(items []item, ns *namespace, _ uint64) bool {
			for _, it := range items {
				h, value, err := openStored(it.record, ns.sum, it.key)
				switch {
				case err != nil:
					b.db.counts.damaged.Add(1)
					if !yield(Entry{Key: string(it.key)}, b.fail("iterate", string(it.key), err)) {
						return false
					}
				case millis(time.Now()) < h.freshUntil:
					if !yield(newEntry(string(it.key), h, value), nil) {
						return false
					}
				}
			}
			return true
		})
		if err != nil {
			yield(Entry{}, b.fail("iterate", "", err))
		}
	}
}

// scan hands the stored entries whose key begins with prefix to fn, a page at a time and outside of any
// transaction, until fn returns false.
func (b *Bucket) scan(prefix []byte, fn func(items []item, ns *namespace, id uint64) bool) error {
	if b.db.closed.Load() {
		return ErrClosed
	}
	if !validName(b.name) {
		return ErrInvalidName
	}
	ns := b.namespace()
	if ns == nil {
		return nil
	}
	// One id for the whole range: a Clear in the middle ends it, and entries set after it are not seen.
	id := ns.id.Load()
	if id == 0 {
		return nil
	}
	from := prefix
	for more := true; more; {
		var items []item
		var err error
		if items, more, err = b.db.store.page(id, from, prefix); err != nil {
			return err
		}
		if ns.id.Load() != id || !fn(items, ns, id) {
			return nil
		}
		if len(items) > 0 {
			// The least key after the last one is that key with a zero byte.
			from = append(items[len(items)-1].key, 0)
		}
	}
	return nil
}

// Len returns the number of live entries. It is exact, and costs a walk over the bucket; DB.Stats has an
// estimate that costs nothing.
func (b *Bucket) Len() (int, error) {
	n := 0
	err := b.scan(nil, func(items []item, ns *namespace, _ uint64) bool {
		now := millis(time.Now())
		for _, it := range items {
			if h, _, err := openRecord(it.record, ns.sum, it.key); err == nil && now < h.freshUntil {
				n++
			}
		}
		return true
	})
	if err != nil {
		return 0, b.fail("count", "", err)
	}
	return n, nil
}

// DeletePrefix removes the entries whose key begins with prefix and returns how many were live. The prefix
// is literal; an empty one removes everything, entry by entry, where Clear is quicker. It works in chunks
// and is not atomic: when ctx ends it early, or it fails, the entries counted so far are gone. Entries
// that are set while it runs may stay.
func (b *Bucket) DeletePrefix(ctx context.Context, prefix string) (deleted int, err error) {
	if err = b.db.writable(); err != nil {
		return 0, b.fail("delete prefix", prefix, err)
	}
	scanErr := b.scan([]byte(prefix), func(items []item, ns *namespace, id uint64) bool {
		if err = ctx.Err(); err != nil {
			return false
		}
		var n int
		n, err = b.deleteItems(items, ns, id)
		deleted += n
		return err == nil
	})
	if err = errors.Join(scanErr, err); err != nil {
		return deleted, b.fail("delete prefix", prefix, err)
	}
	return deleted, nil
}

// deleteItems removes entries as they were seen, in one transaction, and returns how many of them lived.
// One that was overwritten meanwhile stays.
func (b *Bucket) deleteItems(items []item, ns *namespace, id uint64) (deleted int, err error) {
	ns.turn.RLock()
	defer ns.turn.RUnlock()
	if ns.id.Load() != id || len(items) == 0 {
		return 0, nil
	}
	now := millis(time.Now())
	r := &request{}
	var live []bool
	for _, it := range items {
		h, _, err := openRecord(it.record, ns.sum, it.key)
		r.changes = append(r.changes, &change{
			id: id, key: it.key, expects: expectation{set: err == nil, revision: h.revision},
		})
		live = append(live, err == nil && now < h.freshUntil)
	}
	if err := b.db.commit.do(r); err != nil {
		return 0, err
	}
	for i, c := range r.changes {
		if live[i] && !c.missed {
			deleted++
		}
	}
	return deleted, nil
}
