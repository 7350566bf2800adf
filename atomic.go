package keepcache

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"

	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
)

// Swap stores value under key for the given lifetime, as Set does, and reads what it replaced into dst, as Get
// does. It reports whether there was something; if not, dst is left alone. A nil dst reads nothing. A replaced
// value that does not fit dst is an error, and nothing is changed; a damaged one is ErrCorrupt.
func (b *Bucket) Swap(key string, value any, ttl time.Duration, dst any) (found bool, err error) {
	d, err := b.prepare(key, value, ttl)
	var old []byte
	if err == nil {
		err = b.modify(key, func(r engine.Reading) (*engine.Write, error) {
			found, old = r.Live, r.Value
			return d, fits(&r, dst)
		})
	}
	if err != nil {
		return false, b.fail("swap", key, err)
	}
	b.db.counts.sets.Add(1)
	b.note(EventSet, key)
	if found && dst != nil {
		err = decodeValue(old, dst)
	}
	return found, b.fail("swap", key, err)
}

// Take removes key and reads what was there into dst, as Get does: of many callers exactly one gets it. It
// reports false, and leaves dst alone, if the key is absent or expired. A value that does not fit dst is an
// error, and stays; a damaged one is ErrCorrupt. A nil dst reads nothing.
func (b *Bucket) Take(key string, dst any) (found bool, err error) {
	var old []byte
	if err = b.db.writable(); err == nil {
		b.voidFlights(key)
		err = b.modify(key, func(r engine.Reading) (*engine.Write, error) {
			if found, old = r.Live, r.Value; !r.IsStored() {
				return nil, nil
			}
			return &engine.Write{Key: key}, fits(&r, dst)
		})
	}
	if err != nil {
		return false, b.fail("take", key, err)
	}
	if found {
		b.db.counts.deletes.Add(1)
		b.note(EventDelete, key)
		if dst != nil {
			err = decodeValue(old, dst)
		}
	}
	return found, b.fail("take", key, err)
}

var (
	errNotInteger = errors.New("the value is not an integer of 64 bits")
	errOverflow   = errors.New("the sum does not fit into 64 bits")
)

// Increment adds delta, which may be negative, to the integer of key and returns the sum. An absent or
// expired key counts as 0 and comes into being with the given lifetime; a live one keeps its own. No
// increment is lost, however many callers there are. A sum that does not fit an int64, and a value that is
// not a signed integer of 64 bits, null and 1.0 included, are errors that change nothing; a damaged value is ErrCorrupt.
func (b *Bucket) Increment(key string, delta int64, ttl time.Duration) (sum int64, err error) {
	var encoded [9]byte // as long as an integer can be
	if err = b.db.writable(); err == nil {
		ttl, err = lifetime(ttl, b.defaultTTL)
	}
	if err == nil {
		err = b.tagsErr
	}
	if err == nil {
		err = b.modify(key, func(r engine.Reading) (*engine.Write, error) {
			if r.Damage != nil {
				return nil, r.Damage
			}
			var n int64
			if r.Live {
				// Into an int64 a null would read as 0, and a float without a fraction as an integer.
				var old any
				if err := decodeValue(r.Value, &old); err != nil {
					return nil, err
				}
				var ok bool
				if n, ok = old.(int64); !ok {
					return nil, errNotInteger
				}
			}
			if delta > 0 && n > math.MaxInt64-delta || delta < 0 && n < math.MinInt64-delta {
				return nil, fmt.Errorf("%w: %d and %d", errOverflow, n, delta)
			}
			sum = n + delta
			value, err := appendValue(encoded[:0], sum, b.db.options.MaxValueBytes)
			if err != nil {
				return nil, err
			}
			return b.renewed(&r, key, value, ttl), nil
		})
	}
	if err != nil {
		return 0, b.fail("increment", key, err)
	}
	b.db.counts.sets.Add(1)
	b.note(EventSet, key)
	return sum, nil
}

// Update replaces the value of key by what fn makes of it. fn gets the entry, or found = false if the key is
// absent or expired, and returns the new value. A live entry keeps its lifetime; a new one gets the default of
// the bucket. An error of fn ends Update, changes nothing, and is found in Update's error by errors.Is; a
// damaged entry is ErrCorrupt, and fn does not run.
//
// Update is atomic: between what fn saw and what it returned nobody else changed the key. To that end fn may
// run several times, without a lock or transaction being held, so it must do nothing but compute. It may
// use the cache, but not write the key itself: its result would be late each time, which is ErrContended after a dozen runs,
// of which what fn wrote stays.
func (b *Bucket) Update(key string, fn func(old Entry, found bool) (any, error)) error {
	ttl, err := lifetime(0, b.defaultTTL)
	if err == nil {
		err = b.db.writable()
	}
	if err == nil {
		err = b.tagsErr
	}
	if err == nil {
		err = b.modify(key, func(r engine.Reading) (*engine.Write, error) {
			if r.Damage != nil {
				return nil, r.Damage
			}
			var old Entry
			if r.Live {
				old = entryOf(key, &r)
			}
			value, err := fn(old, r.Live)
			if err != nil {
				return nil, err
			}
			encoded, err := appendValue(nil, value, b.db.options.MaxValueBytes)
			if err != nil {
				return nil, err
			}
			return b.renewed(&r, key, encoded, ttl), nil
		})
	}
	if err != nil {
		return b.fail("update", key, err)
	}
	b.db.counts.sets.Add(1)
	b.note(EventSet, key)
	return nil
}

// CompareAndSwap replaces the value of key if its entry still has the given revision, as Stat, GetMany or a
// range reported it in Entry.Revision, and reports whether it did. The entry keeps its lifetime. An entry that
// was written since, if with the same value, that expired or that is absent has another revision; Add is the
// operation that wants a key to be absent. A damaged entry is ErrCorrupt.
func (b *Bucket) CompareAndSwap(key string, revision uint64, value any) (swapped bool, err error) {
	var encoded []byte
	if err = b.db.writable(); err == nil {
		encoded, err = appendValue(nil, value, b.db.options.MaxValueBytes)
	}
	if err == nil {
		err = b.modify(key, func(r engine.Reading) (*engine.Write, error) {
			if swapped = r.Live && r.Header.Revision == revision; !swapped || r.Damage != nil {
				return nil, r.Damage
			}
			return b.renewed(&r, key, encoded, 0), nil
		})
	}
	if err != nil {
		return false, b.fail("compare and swap", key, err)
	}
	if swapped {
		b.db.counts.sets.Add(1)
		b.note(EventSet, key)
	}
	return swapped, nil
}

// renewed drafts a new value for what was read. It keeps the times and the tags of a live entry; otherwise it
// is one of the given lifetime.
func (b *Bucket) renewed(r *engine.Reading, key string, value []byte, ttl time.Duration) *engine.Write {
	now := b.db.engine.Now()
	h, t := r.Header, format.Options{}
	if r.Live {
		old := r.ParseOptions()
		t.Lifetime, t.Tags, t.AsOf = old.Lifetime, old.Tags, old.Since(h.Revision)
	} else {
		h.ExpiresAt = format.Deadline(now, ttl)
		h.StaleUntil = h.ExpiresAt
		t.Tags, t.Lifetime = b.tags, b.slidingMillis(ttl)
	}
	h.WrittenAt = format.Millis(now)
	return &engine.Write{Key: key, Header: h, Stored: format.Frame(h, &t, value)}
}

// fits says why what was read cannot be read into dst, or nil. It decodes into another value of dst's type,
// because an operation that finds its key changed may have to decode again, and a destination is to be
// written once.
func fits(r *engine.Reading, dst any) error {
	if r.Damage != nil || !r.Live || dst == nil {
		return r.Damage
	}
	if t := reflect.TypeOf(dst); t.Kind() == reflect.Pointer && !reflect.ValueOf(dst).IsNil() {
		dst = reflect.New(t.Elem()).Interface()
	}
	return decodeValue(r.Value, dst)
}
