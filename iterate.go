package keepcache

import (
	"bytes"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/jsonpack"
	"github.com/keepcache/keepcache/internal/store"
)

// Entry is one entry of a bucket: what is known of it, and its value. It is the caller's own and does not
// change when the cache does.
type Entry struct {
	Key        string
	Size       int       // of the encoded value, in bytes
	Written    time.Time // when the value was set
	FreshUntil time.Time // when the entry expires; zero if never
	GoneAt     time.Time // until when GetOrLoad may serve it stale, not before FreshUntil; zero if never
	Revision   uint64    // rises with every write to the cache, and so tells two writes of one key apart
	Loaded     time.Time // when a loader fetched the value or found it unchanged; zero if none did
	ETag       string    // what the loader left in Load.ETag
	Tags       []string  // see Bucket.WithTags; nil if there are none
	RetryAt    time.Time // until when GetOrLoad does not try again, because a load has failed; zero if none has

	Sliding  time.Duration // the lifetime that a read gives it anew, see BucketOptions.Sliding; 0 if reads do not
	Negative bool          // a loader found that there is no such thing; only Bucket.Kept yields such entries

	value []byte
}

// Decode reads the entry's value into dst as Bucket.Get does.
func (e Entry) Decode(dst any) error {
	if encoded, ok := dst.(*jsonpack.Encoded); ok { // the project's own readers take it as it is
		*encoded = e.value
		return nil
	}
	return decodeValue(e.value, dst)
}

// AppendJSON appends the entry's value to dst as compact JSON text, for a reader of JSON: the members of objects are in
// byte order, integers exact, a float without a fraction has one (1.0), and bytes are their base64 text. It is made
// straight from what is stored. The error is ErrCorrupt, and dst is returned as it was.
func (e Entry) AppendJSON(dst []byte) ([]byte, error) { return appendJSON(dst, e.value) }

func newEntry(key string, h *format.Header, options, value []byte) Entry {
	e := Entry{
		Key:        key,
		Size:       len(value),
		Written:    format.Time(h.Written),
		FreshUntil: format.Time(h.FreshUntil),
		GoneAt:     format.Time(h.GoneAt),
		Revision:   h.Revision,
		value:      value,
	}
	if len(options) > 0 {
		t := format.ReadOptions(options)
		if t.Loaded != 0 {
			e.Loaded = format.Time(t.Loaded)
		}
		if t.Retry != 0 {
			e.RetryAt = format.Time(t.Retry)
		}
		e.ETag, e.Tags = string(t.ETag), t.Tags.Strings()
		e.Sliding, e.Negative = format.Duration(t.Lifetime), t.Negative
	}
	return e
}

// All ranges over the live entries of the bucket in the byte order of their keys.
//
// The range is weakly consistent: it sees each entry that lives from its beginning to its end exactly
// once, and entries that come or go meanwhile or not. The loop may write to the bucket, take its time and
// be left early: no transaction is open while its body runs. After an error, which is yielded with a zero
// Entry, the range ends; a damaged entry yields ErrCorrupt with its Key alone, and the range goes on.
func (b *Bucket) All() iter.Seq2[Entry, error] { return b.Prefix("") }

// Prefix ranges as All does over the entries whose key begins with prefix. The prefix is literal.
func (b *Bucket) Prefix(prefix string) iter.Seq2[Entry, error] { return b.After("", prefix) }

// After ranges as Prefix does over the entries behind a key, which need not be there: a page of a long list begins
// where the last one ended, at the cost of one look-up.
func (b *Bucket) After(key, prefix string) iter.Seq2[Entry, error] {
	return b.rangeOver(key, prefix, func(s state) bool { return s.live })
}

// Kept ranges as After does over all entries that GetOrLoad sees: the live ones, those that it may still serve stale, and
// the negative ones. With Restore it makes a copy of a bucket.
func (b *Bucket) Kept(key, prefix string) iter.Seq2[Entry, error] {
	return b.rangeOver(key, prefix, func(s state) bool { return s.held })
}

// rangeOver is After for the entries whose state is wanted.
func (b *Bucket) rangeOver(key, prefix string, wanted func(state) bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		from := prefix
		if key >= prefix {
			from = key + "\x00" // the least key behind it
		}
		err := b.scanFrom(from, prefix, func(found []stored) bool {
			for _, f := range found {
				if f.damage != nil {
					b.damaged(f.key, f.damage)
					if !yield(Entry{Key: f.key}, b.fail("iterate", f.key, f.damage)) {
						return false
					}
					continue
				}
				now, err := b.stateNow(&f)
				if err != nil {
					yield(Entry{}, b.fail("iterate", f.key, err))
					return false
				}
				if wanted(now) && !yield(newEntry(f.key, &f.header, f.options, f.value), nil) {
					return false
				}
			}
			return true
		})
		if err != nil {
			yield(Entry{}, b.fail("iterate", "", err))
		}
	}
}

// Len returns the number of live entries. It is exact, and costs a walk over the bucket; DB.Stats has an
// estimate that costs nothing.
func (b *Bucket) Len() (int, error) {
	n := 0
	var looked error
	err := b.scan("", func(found []stored) bool {
		for _, f := range found {
			var now state
			if f.damage == nil && looked == nil {
				now, looked = b.stateNow(&f)
			}
			if now.live {
				n++
			}
		}
		return looked == nil
	})
	if err = errors.Join(err, looked); err != nil {
		return 0, b.fail("count", "", err)
	}
	return n, nil
}

// stored is an entry of a scan, expired and damaged ones included.
type stored struct {
	key     string
	header  format.Header
	options []byte
	value   []byte
	damage  error
	expired bool // its deadline had been reached before the scan came to it
}

// stateNow returns the state of an entry of a scan. The scan may have come to it long ago: where its deadline was reached
// since, somebody may have prolonged its life before that, and f becomes what it is now.
func (b *Bucket) stateNow(f *stored) (state, error) {
	now := b.db.stateOf(&f.header, f.options)
	if now.fresh || f.expired && !b.sliding {
		return now, nil
	}
	r, err := b.peek(f.key)
	if err == nil && r.held {
		*f = stored{key: f.key, header: r.header, options: r.options, value: r.value}
	}
	return r.state, err
}

// scan hands what is stored under keys that begin with prefix to fn, in the order of the keys, a page at a
// time and outside of any transaction, until fn returns false.
func (b *Bucket) scan(prefix string, fn func([]stored) bool) error {
	return b.scanFrom(prefix, prefix, fn)
}

// scanFrom is scan for keys that are not less than first.
//
// It merges the keys that are pinned when it begins into the pages of the file: a key that lives all the
// while is in one of the two, because what is unpinned is in the file.
func (b *Bucket) scanFrom(first, prefix string, fn func([]stored) bool) error {
	if err := b.canRead(); err != nil {
		return err
	}
	if b.db.live != nil {
		return b.scanLive(first, prefix, fn)
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
	pinned := b.db.memory.PinnedKeys(id, first, prefix)
	from := []byte(first)
	for more := true; more || len(pinned) > 0; {
		if b.db.closed.Load() {
			return ErrClosed
		}
		asOf := format.Millis(b.db.clock.Now())
		var items []store.Item
		var err error
		if more {
			if items, more, err = b.db.store.Page(id, from, []byte(prefix)); err != nil {
				return err
			}
		}
		if n := len(items); n > 0 {
			// The least key after the last one is that key with a zero byte.
			from = append(bytes.Clone(items[n-1].Key), 0)
		}
		n := len(pinned) // how many pinned keys belong into this page
		switch {
		case more:
			n, _ = slices.BinarySearch(pinned, string(from))
		case len(items) == 0:
			n = min(n, store.PageItems)
		}
		page, err := b.merge(ns, id, items, pinned[:n], asOf)
		if err != nil {
			return err
		}
		pinned = pinned[n:]
		if ns.id.Load() != id || !fn(page) {
			return nil
		}
	}
	return nil
}

// merge makes one page of a scan out of a page of the file and of the pinned keys that belong to it. Where
// memory knows a key it is right, and the file may be late. asOf is a moment before all of this was read.
func (b *Bucket) merge(ns *namespace, id uint64, items []store.Item, pinned []string, asOf int64) ([]stored, error) {
	page := make([]stored, 0, len(items)+len(pinned))
	for len(items) > 0 || len(pinned) > 0 {
		var key string
		var rec []byte
		order := firstOf(items, pinned)
		if order <= 0 {
			key, rec, items = string(items[0].Key), items[0].Record, items[1:]
		}
		if order >= 0 {
			// What the page says of a pinned key is late. If a commit has unpinned it meanwhile, the file knows now.
			key, pinned, rec = pinned[0], pinned[1:], nil
		}
		known := b.db.memory.Peek(b.db.memory.Hash(id, key), id, key)
		if known.Known {
			if known.Record != nil {
				page = append(page, storedAs(key, known.Record, known.Slid, asOf))
			}
			continue
		}
		if rec == nil { // pinned when the scan began, and in the file by now
			var err error
			if rec, err = b.db.store.Record(id, key); err != nil {
				return nil, err
			}
			if rec == nil {
				continue
			}
		}
		if _, _, err := format.OpenStored(rec, ns.sum, key); err != nil {
			page = append(page, stored{key: key, damage: err})
			continue
		}
		page = append(page, storedAs(key, rec, 0, asOf))
	}
	return page, nil
}

// storedAs takes apart a record that has been proved, of an entry that reads keep fresh until slid. asOf is a moment before it
// was read.
func storedAs(key string, rec []byte, slid, asOf int64) stored {
	f := stored{key: key, header: format.ReadHeader(rec), options: format.OptionBytes(rec), value: format.Value(rec)}
	f.header.Slide(slid)
	f.expired = asOf >= f.header.FreshUntil
	return f
}

// firstOf compares the first item with the first pinned key. The end of a list comes after everything.
func firstOf(items []store.Item, pinned []string) int {
	switch {
	case len(pinned) == 0:
		return -1
	case len(items) == 0:
		return 1
	}
	return strings.Compare(string(items[0].Key), pinned[0])
}
