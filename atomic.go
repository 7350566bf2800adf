package keepcache

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/keepcache/keepcache/internal/contend"
	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
)

// Swap stores value under key for the given lifetime, as Set does, and reads the old value into dst, as Get does. It
// reports whether there was one; if not, it leaves dst alone. A nil dst reads nothing. If the old value does not fit
// dst, there is an error and nothing is changed. If it is damaged, the error is ErrCorrupt.
func (b *Bucket) Swap(key string, value any, ttl time.Duration, dst any) (found bool, err error) {
	d, err := b.prepare(key, value, ttl)
	var old []byte
	if err == nil {
		_, err = b.modify(key, func(r engine.Reading) (*engine.Write, error) {
			found, old = r.Live, r.Value
			return d, fits(&r, dst)
		})
	}
	if err != nil {
		return false, b.fail("swap", key, err)
	}
	b.countSet(key)
	if found && dst != nil {
		err = decodeValue(old, dst)
	}
	return found, b.fail("swap", key, err)
}

// Take removes key and reads its value into dst, as Get does. Of many callers exactly one gets it. Take reports false,
// and leaves dst alone, if the key is absent or expired. A nil dst reads nothing. A value that does not fit dst is an
// error, and stays. A damaged one is ErrCorrupt.
func (b *Bucket) Take(key string, dst any) (found bool, err error) {
	var old []byte
	if err = b.db.writable(); err == nil {
		b.voidFlights(key)
		_, err = b.modify(key, func(r engine.Reading) (*engine.Write, error) {
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

// Increment adds delta, which may be negative, to the integer of key and returns the sum. An absent or expired key
// counts as 0, and is created with the given lifetime; a live one keeps its own. No increment is lost, however many
// callers there are.
//
// The error is ErrNotInteger if the value is not a signed integer of 64 bits, as null and 1.0 are not, and ErrOverflow
// if the sum is none. Nothing is changed then. A damaged value is ErrCorrupt.
func (b *Bucket) Increment(key string, delta int64, ttl time.Duration) (sum int64, err error) {
	return b.increment(key, delta, ttl, func(int64) bool { return true })
}

// increment is Increment for a sum that fits.
func (b *Bucket) increment(key string, delta int64, ttl time.Duration, fits func(int64) bool) (sum int64, err error) {
	var encoded [9]byte // as long as an integer can be
	ttl, err = b.canWrite(ttl)
	if err == nil {
		_, err = b.modify(key, func(r engine.Reading) (*engine.Write, error) {
			n, err := integerOf(&r)
			if err != nil {
				return nil, err
			}
			sum = n + delta
			if delta > 0 && n > math.MaxInt64-delta || delta < 0 && n < math.MinInt64-delta || !fits(sum) {
				return nil, fmt.Errorf("%w: %d and %d", ErrOverflow, n, delta)
			}
			value, err := appendValue(encoded[:0], sum, b.db.options.MaxValueBytes)
			if err != nil {
				return nil, err
			}
			if r.Live {
				return b.rewrite(&r, key, value, KeepTTL), nil
			}
			return b.rewrite(&r, key, value, ttl), nil
		})
	}
	if err != nil {
		return 0, b.fail("increment", key, err)
	}
	b.countSet(key)
	return sum, nil
}

// integerOf returns the integer that was read, 0 if there is none.
func integerOf(r *engine.Reading) (int64, error) {
	if r.Damage != nil || !r.Live {
		return 0, r.Damage
	}
	// Read into an int64, null would be 0, and a float without a fraction an integer.
	var old any
	if err := decodeValue(r.Value, &old); err != nil {
		return 0, err
	}
	n, ok := old.(int64)
	if !ok {
		return 0, ErrNotInteger
	}
	return n, nil
}

// Update replaces the value of key by the result of fn and returns the entry as it was written. fn gets the old entry,
// or found = false if the key is absent or expired.
//
// With KeepTTL a live entry keeps its lifetime, and a new one gets the default of the bucket. Any other ttl is the new
// lifetime, as for Set; for how long the entry may be served stale after that does not change. A live entry keeps its
// tags. An error of fn ends Update and changes nothing; errors.Is finds it. If the entry is damaged the error is
// ErrCorrupt, and fn does not run.
//
// Update is atomic: nobody changes the key between what fn sees and what it returns. To that end fn may run several
// times, so it must do nothing but compute. It runs without a lock, and may use the cache, but must not write the key
// itself. Then its result would be late each time: after a dozen runs Update gives up with ErrContended, and what fn
// wrote stays.
func (b *Bucket) Update(key string, fn func(old Entry, found bool) (any, error), ttl time.Duration) (Entry, error) {
	ttl, err := b.canRewrite(ttl)
	var d *engine.Write
	if err == nil {
		d, err = b.modify(key, func(r engine.Reading) (*engine.Write, error) {
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
			return b.rewrite(&r, key, encoded, ttl), nil
		})
	}
	if err != nil {
		return Entry{}, b.fail("update", key, err)
	}
	b.countSet(key)
	return entryWritten(key, d), nil
}

// CompareAndSwap replaces the value of key if its entry still has the given revision, and reports whether it did. It
// returns the entry as it was written, whose Revision serves for the next call; if nothing was written, a zero Entry.
//
// Revisions are in Entry.Revision, which GetEntry, SetEntry, Update, Stat, GetMany and ranges return. An entry that was
// written since has another revision, even if the value is the same. Revision 0 stands for an absent or expired key,
// which CompareAndSwap then creates.
//
// With KeepTTL a live entry keeps its lifetime, and a new one gets the default of the bucket. Any other ttl is the new
// lifetime, as for Set. A live entry keeps its tags. A damaged entry is ErrCorrupt.
func (b *Bucket) CompareAndSwap(
	key string, revision uint64, value any, ttl time.Duration,
) (written Entry, swapped bool, err error) {
	ttl, err = b.canRewrite(ttl)
	var encoded []byte
	if err == nil {
		encoded, err = appendValue(nil, value, b.db.options.MaxValueBytes)
	}
	var d *engine.Write
	if err == nil {
		d, err = b.modify(key, func(r engine.Reading) (*engine.Write, error) {
			same := r.Live && r.Header.Revision == revision || !r.Live && revision == 0
			if !same || r.Damage != nil {
				return nil, r.Damage
			}
			return b.rewrite(&r, key, encoded, ttl), nil
		})
	}
	if err != nil {
		return Entry{}, false, b.fail("compare and swap", key, err)
	}
	if d == nil {
		return Entry{}, false, nil
	}
	b.countSet(key)
	return entryWritten(key, d), true, nil
}

// canRewrite is canWrite for operations that take KeepTTL.
func (b *Bucket) canRewrite(ttl time.Duration) (time.Duration, error) {
	if ttl == KeepTTL {
		_, err := b.canWrite(0)
		return ttl, err
	}
	return b.canWrite(ttl)
}

// rewrite returns a write of a new value in the place of what was read. A live entry keeps its tags.
func (b *Bucket) rewrite(r *engine.Reading, key string, value []byte, ttl time.Duration) *engine.Write {
	now := b.db.engine.Now()
	h, t := r.Header, format.Options{Tags: b.tags}
	window := int64(0) // for how long it may be served stale
	if r.Live {
		old := r.ParseOptions()
		t.Tags, t.AsOf, t.Lifetime = old.Tags, old.Since(h.Revision), old.Lifetime
		window = format.Between(h.ExpiresAt, h.StaleUntil)
	}
	if !r.Live || ttl != KeepTTL {
		if ttl == KeepTTL {
			ttl = b.defaultTTL
		}
		h.ExpiresAt = format.Deadline(now, ttl)
		h.StaleUntil = format.Prolong(h.ExpiresAt, window)
		t.Lifetime = b.slidingMillis(ttl)
	}
	h.WrittenAt = format.Millis(now)
	return &engine.Write{Key: key, Header: h, Stored: format.Frame(h, &t, value)}
}

// fits says why what was read cannot be read into dst, or nil. It decodes into another value of dst's type: an
// operation that finds its key changed decodes again, and dst must be written once only.
func fits(r *engine.Reading, dst any) error {
	if r.Damage != nil || !r.Live || dst == nil {
		return r.Damage
	}
	if t := reflect.TypeOf(dst); t.Kind() == reflect.Pointer && !reflect.ValueOf(dst).IsNil() {
		dst = reflect.New(t.Elem()).Interface()
	}
	return decodeValue(r.Value, dst)
}

const (
	// conflictTries bounds how often an operation starts over because others changed its key between its read and its
	// write. Each conflict means that another writer got through.
	conflictTries = 10_000

	// queueAfter is the number of conflicts after which callers queue for a key, so that of n callers one runs and not
	// n-1 in vain. Before that a queue would cost more than it saves.
	queueAfter = 3

	// suspectAfter is how often the function of an Update runs before it is suspected of changing its key itself. Where
	// many change a key they take turns long before that.
	suspectAfter = 8

	// backoffAfter is the number of conflicts after which each attempt begins with a pause of a random time up to
	// backoffMost. Where memory is so small that it has one shard, a writer of other keys that takes its lock again and
	// again can come between each read and each write: the two keep step, and only chance ends that.
	backoffAfter = 64
	backoffMost  = 200 * time.Microsecond
)

// errOwnWrites is ErrContended of an Update that contends with itself.
var errOwnWrites = fmt.Errorf("%w: the function of the call writes the key itself, so its result is always late",
	ErrContended)

// modify reads a key, lets decide make a write from what it found, and writes that if the key is still as it was.
// Otherwise it starts over. It returns the write, or nil if decide returned nil: nothing was written then, and what
// decide saw is as durable as a write would be. decide runs again only if what it saw has changed, and outside of all
// locks and transactions.
func (b *Bucket) modify(key string, decide func(engine.Reading) (*engine.Write, error)) (*engine.Write, error) {
	var before engine.Reading
	var d *engine.Write
	var leave func()
	var self *contend.Suspect
	runs := 0 // of decide
	for try := range conflictTries {
		if try >= queueAfter && leave == nil {
			if leave = b.db.turns.Enter(b.at.Name, key); leave != nil {
				defer leave()
			}
		}
		if try >= backoffAfter {
			time.Sleep(rand.N(backoffMost))
		}
		r, err := b.read(key)
		if err != nil {
			return nil, err
		}
		if d == nil || !r.Same(&before) {
			if runs++; runs > suspectAfter && self == nil {
				self = b.db.suspects.Add(b.at.Name, key)
				defer b.db.suspects.Remove(self)
			}
			if d, err = decide(r); err != nil {
				return nil, err
			}
			if d == nil {
				return nil, b.db.engine.WaitDurable()
			}
			if self != nil && b.db.suspects.Convicts(self) {
				return nil, errOwnWrites
			}
		}
		before = r
		d.Expect(&r)
		if err = b.write(d); err != engine.ErrMissed {
			return d, err
		}
	}
	return nil, ErrContended
}
