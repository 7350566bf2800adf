package keepcache

import (
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/jsonpack"
	"github.com/keepcache/keepcache/internal/keyrange"
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
	Negative bool          // a loader found that there is no such thing; only ScanOptions.Stale yields such entries

	value []byte
}

// Decode reads the entry's value into dst as Bucket.Get does. An entry without a value, as one of DB.Expiring or of a
// scan with KeysOnly, gives ErrNoValue.
func (e Entry) Decode(dst any) error {
	if e.value == nil {
		return ErrNoValue
	}
	if encoded, ok := dst.(*jsonpack.Encoded); ok { // the project's own readers take it as it is
		*encoded = e.value
		return nil
	}
	return decodeValue(e.value, dst)
}

// AppendJSON appends the entry's value to dst as compact JSON text, for a reader of JSON: the members of objects are in
// byte order, integers exact, a float without a fraction has one (1.0), and bytes are their base64 text. It is made
// straight from what is stored. An error is ErrNoValue or ErrCorrupt; then dst is returned as it was.
func (e Entry) AppendJSON(dst []byte) ([]byte, error) {
	if e.value == nil {
		return dst, ErrNoValue
	}
	return appendJSON(dst, e.value)
}

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

// ScanOptions say which entries Scan ranges over, and how. The zero value is that of All.
type ScanOptions struct {
	// Prefix limits the range to keys that begin with it, literally.
	Prefix string

	// From and To limit the range to keys that are not less than From, and less than To. An empty To is no limit.
	From, To string

	// After leaves out the entries up to this key and the key itself, in the direction of the range. The key need not be
	// there: a page of a long list begins where the last one ended, at the cost of one look-up. Empty, it leaves out
	// nothing.
	After string

	// Reverse ranges in the descending order of the keys.
	Reverse bool

	// Tag limits the range to entries that have it. The others are walked over.
	Tag string

	// Stale adds what only GetOrLoad sees: entries that it may still serve stale, and negative ones.
	Stale bool

	// KeysOnly leaves out the values: they are not copied. Entry.Decode of such an entry is ErrNoValue.
	KeysOnly bool
}

// keys returns the range of the keys.
func (o *ScanOptions) keys() keyrange.Range {
	r := keyrange.Prefix(o.Prefix)
	r.Reverse = o.Reverse
	r.Narrow(o.From, o.To)
	if o.After != "" {
		r.After(o.After)
	}
	return r
}

// All ranges over the live entries of the bucket in the byte order of their keys.
//
// The range is weakly consistent: it sees each entry that lives from its beginning to its end exactly
// once, and entries that come or go meanwhile or not. The loop may write to the bucket, take its time and
// be left early: no transaction is open while its body runs. After an error, which is yielded with a zero
// Entry, the range ends; a damaged entry yields ErrCorrupt with its Key alone, and the range goes on.
func (b *Bucket) All() iter.Seq2[Entry, error] { return b.Scan(nil) }

// Prefix ranges as All does over the entries whose key begins with prefix. The prefix is literal.
func (b *Bucket) Prefix(prefix string) iter.Seq2[Entry, error] {
	return b.Scan(&ScanOptions{Prefix: prefix})
}

// Range ranges as All does over the entries whose key is not less than from, and less than to. An empty to is no limit.
func (b *Bucket) Range(from, to string) iter.Seq2[Entry, error] {
	return b.Scan(&ScanOptions{From: from, To: to})
}

// Keys ranges as All does, over the keys alone. Values are not copied.
func (b *Bucket) Keys() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for e, err := range b.Scan(&ScanOptions{KeysOnly: true}) {
			if !yield(e.Key, err) {
				return
			}
		}
	}
}

// Tagged ranges as All does over the entries that have the tag. It costs a walk over the bucket.
func (b *Bucket) Tagged(tag string) iter.Seq2[Entry, error] {
	return b.Scan(&ScanOptions{Tag: tag})
}

// Scan ranges as All does over the entries that the options say. Nil options are all live entries.
func (b *Bucket) Scan(opts *ScanOptions) iter.Seq2[Entry, error] {
	var o ScanOptions
	if opts != nil {
		o = *opts
	}
	return func(yield func(Entry, error) bool) {
		err := b.scan(&o, func(found []engine.ScanEntry) bool {
			for i := range found {
				f := &found[i]
				if f.Damage != nil {
					b.damaged(f.Key, f.Damage)
					if !yield(Entry{Key: f.Key}, b.fail("iterate", f.Key, f.Damage)) {
						return false
					}
					continue
				}
				now, err := b.stateNow(f, o.KeysOnly)
				if err != nil {
					yield(Entry{}, b.fail("iterate", f.Key, err))
					return false
				}
				if !now.Live && !(o.Stale && now.Held) {
					continue
				}
				e := newEntry(f.Key, &f.Header, f.Options, f.Value)
				e.Size = f.Size
				if o.Tag != "" && !slices.Contains(e.Tags, o.Tag) {
					continue
				}
				if !yield(e, nil) {
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
	err := b.scan(&ScanOptions{KeysOnly: true}, func(found []engine.ScanEntry) bool {
		for i := range found {
			f := &found[i]
			var now engine.State
			if f.Damage == nil && looked == nil {
				now, looked = b.stateNow(f, true)
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

// stateNow returns the state of an entry of a scan. The scan may have come to it long ago: where its deadline was
// reached since, somebody may have prolonged its life before that, and f becomes what it is now.
func (b *Bucket) stateNow(f *engine.ScanEntry, keysOnly bool) (engine.State, error) {
	now := b.db.engine.StateOf(&f.Header, f.Options)
	if now.Fresh || f.Expired && !b.sliding {
		return now, nil
	}
	r, err := b.db.engine.Peek(&b.at, f.Key, b.sliding)
	if err == nil && r.Held {
		*f = engine.ScanEntry{Key: f.Key, Header: r.Header, Options: r.Options, Value: r.Value, Size: len(r.Value)}
		if keysOnly {
			f.DropValue()
		}
	}
	return r.State, err
}

// scan hands what is stored under the keys of a range to fn, in its order, a page at a time and outside of any
// transaction, until fn returns false.
func (b *Bucket) scan(o *ScanOptions, fn func([]engine.ScanEntry) bool) error {
	return b.db.engine.Scan(&b.at, engine.Scan{Keys: o.keys(), NoValues: o.KeysOnly}, fn)
}
