package keepcache

import (
	"errors"
	"iter"
	"time"

	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/jsonpack"
)

// Entry is one entry of a bucket: what is known of it, and its value. It is the caller's own and does not
// change when the cache does.
type Entry struct {
	Key        string
	Size       int       // of the encoded value, in bytes
	WrittenAt  time.Time // when the value was set
	ExpiresAt  time.Time // when the entry expires; zero if never
	StaleUntil time.Time // until when GetOrLoad may serve it stale, not before ExpiresAt; zero if never
	Revision   uint64    // rises with every write to the cache, and so tells two writes of one key apart
	LoadedAt   time.Time // when a loader fetched the value or found it unchanged; zero if none did
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

// entryOf is what was read, as a caller gets it.
func entryOf(key string, r *engine.Reading) Entry {
	return newEntry(key, &r.Header, r.Options, r.Value)
}

// entryWritten is what was written, as a caller gets it.
func entryWritten(key string, d *engine.Write) Entry {
	rec := d.Record()
	return newEntry(key, &d.Header, format.OptionBytes(rec), format.Value(rec))
}

func newEntry(key string, h *format.Header, options, value []byte) Entry {
	e := Entry{
		Key:        key,
		Size:       len(value),
		WrittenAt:  format.Time(h.WrittenAt),
		ExpiresAt:  format.Time(h.ExpiresAt),
		StaleUntil: format.Time(h.StaleUntil),
		Revision:   h.Revision,
		value:      value,
	}
	if len(options) > 0 {
		t := format.ReadOptions(options)
		if t.LoadedAt != 0 {
			e.LoadedAt = format.Time(t.LoadedAt)
		}
		if t.RetryAt != 0 {
			e.RetryAt = format.Time(t.RetryAt)
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
	return b.rangeOver(key, prefix, func(s engine.State) bool { return s.Live })
}

// Kept ranges as After does over all entries that GetOrLoad sees: the live ones, those that it may still serve stale, and
// the negative ones. With Restore it makes a copy of a bucket.
func (b *Bucket) Kept(key, prefix string) iter.Seq2[Entry, error] {
	return b.rangeOver(key, prefix, func(s engine.State) bool { return s.Held })
}

// rangeOver is After for the entries whose state is wanted.
func (b *Bucket) rangeOver(key, prefix string, wanted func(engine.State) bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		from := prefix
		if key >= prefix {
			from = key + "\x00" // the least key behind it
		}
		err := b.scanFrom(from, prefix, func(found []engine.ScanEntry) bool {
			for _, f := range found {
				if f.Damage != nil {
					b.damaged(f.Key, f.Damage)
					if !yield(Entry{Key: f.Key}, b.fail("iterate", f.Key, f.Damage)) {
						return false
					}
					continue
				}
				now, err := b.stateNow(&f)
				if err != nil {
					yield(Entry{}, b.fail("iterate", f.Key, err))
					return false
				}
				if wanted(now) && !yield(newEntry(f.Key, &f.Header, f.Options, f.Value), nil) {
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
	err := b.scan("", func(found []engine.ScanEntry) bool {
		for _, f := range found {
			var now engine.State
			if f.Damage == nil && looked == nil {
				now, looked = b.stateNow(&f)
			}
			if now.Live {
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

// stateNow returns the state of an entry of a scan. The scan may have come to it long ago: where its deadline was reached
// since, somebody may have prolonged its life before that, and f becomes what it is now.
func (b *Bucket) stateNow(f *engine.ScanEntry) (engine.State, error) {
	now := b.db.engine.StateOf(&f.Header, f.Options)
	if now.Fresh || f.Expired && !b.sliding {
		return now, nil
	}
	r, err := b.db.engine.Peek(&b.at, f.Key, b.sliding)
	if err == nil && r.Held {
		*f = engine.ScanEntry{Key: f.Key, Header: r.Header, Options: r.Options, Value: r.Value}
	}
	return r.State, err
}

// scan hands what is stored under keys that begin with prefix to fn, in the order of the keys, a page at a
// time and outside of any transaction, until fn returns false.
func (b *Bucket) scan(prefix string, fn func([]engine.ScanEntry) bool) error {
	return b.scanFrom(prefix, prefix, fn)
}

// scanFrom is scan for keys that are not less than first.
func (b *Bucket) scanFrom(first, prefix string, fn func([]engine.ScanEntry) bool) error {
	return b.db.engine.Scan(&b.at, first, prefix, fn)
}
