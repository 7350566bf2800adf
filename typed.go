package keepcache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"
)

// View is a bucket whose values are all of one type. Its methods do what the methods of Bucket with the same name do,
// and a bucket may be used through views and directly at the same time. A View costs what a pointer costs. All methods
// may be called from any goroutine.
//
// T is any type that encoding/json can handle. If a stored value does not fit T, methods that read it return
// ErrMismatch. If T is a pointer, a stored null is a nil pointer.
//
// Where a method of Bucket returns an Entry, that of View returns an Item. GetMany and GetOrLoadMany return values
// alone.
type View[T any] struct{ b *Bucket }

// Item is an entry with its value.
type Item[T any] struct {
	Entry
	Value T
}

// Of returns a view of b, which must not be nil.
func Of[T any](b *Bucket) View[T] { return View[T]{b} }

// Bucket returns the bucket of the view.
func (v View[T]) Bucket() *Bucket { return v.b }

// Name returns the bucket's name.
func (v View[T]) Name() string { return v.b.Name() }

// WithTags returns a view of the same bucket whose writes give their entries these tags. See Bucket.WithTags.
func (v View[T]) WithTags(tags ...string) View[T] { return View[T]{v.b.WithTags(tags...)} }

// Get returns the value of key. It returns false and the zero value if the key is absent or expired. See Bucket.Get.
func (v View[T]) Get(key string) (value T, found bool, err error) {
	found, err = v.b.Get(key, &value)
	return value, found, err
}

// GetEntry returns the entry of key with its value. See Bucket.GetEntry.
func (v View[T]) GetEntry(key string) (item Item[T], found bool, err error) {
	e, found, err := v.b.GetEntry(key)
	if err != nil || !found {
		return item, false, err
	}
	item, err = v.item("get", e)
	return item, true, err
}

// item decodes an entry. op is the operation for the error.
func (v View[T]) item(op string, e Entry) (Item[T], error) {
	item := Item[T]{Entry: e}
	return item, v.b.fail(op, e.Key, e.Decode(&item.Value))
}

// GetMany returns the values of the live entries among keys. Absent keys are missing in the result, which is never nil
// unless there is an error.
func (v View[T]) GetMany(keys []string) (map[string]T, error) {
	entries, err := v.b.GetMany(keys)
	if err != nil {
		return nil, err
	}
	values := make(map[string]T, len(entries))
	for key, e := range entries {
		var value T
		if err := e.Decode(&value); err != nil {
			return nil, v.b.fail("get", key, err)
		}
		values[key] = value
	}
	return values, nil
}

// Exists reports whether key is present and not expired. See Bucket.Exists.
func (v View[T]) Exists(key string) (bool, error) { return v.b.Exists(key) }

// TTL returns how long the entry of key has to live, or NoExpiry. See Bucket.TTL.
func (v View[T]) TTL(key string) (ttl time.Duration, found bool, err error) { return v.b.TTL(key) }

// Stat returns the entry of key, with its value, without using it. See Bucket.Stat.
func (v View[T]) Stat(key string) (item Item[T], found bool, err error) {
	e, found, err := v.b.Stat(key)
	if err != nil || !found {
		return item, false, err
	}
	item, err = v.item("stat", e)
	return item, true, err
}

// Len returns the number of live entries. See Bucket.Len.
func (v View[T]) Len() (int, error) { return v.b.Len() }

// Set stores value under key for the given lifetime. See Bucket.Set.
func (v View[T]) Set(key string, value T, ttl time.Duration) error { return v.b.Set(key, value, ttl) }

// SetUntil stores value under key until a point in time. See Bucket.SetUntil.
func (v View[T]) SetUntil(key string, value T, until time.Time) error {
	return v.b.SetUntil(key, value, until)
}

// SetEntry stores value and returns the entry as it was written. See Bucket.SetEntry.
func (v View[T]) SetEntry(key string, value T, ttl time.Duration) (Item[T], error) {
	e, err := v.b.SetEntry(key, value, ttl)
	if err != nil {
		return Item[T]{}, err
	}
	return v.item("set", e)
}

// SetMany stores all values under their keys for the given lifetime, or none of them. See Bucket.SetMany.
func (v View[T]) SetMany(values map[string]T, ttl time.Duration) error {
	return setMany(v.b, values, ttl)
}

// Add stores value only if key is absent or expired, and reports whether it did. See Bucket.Add.
func (v View[T]) Add(key string, value T, ttl time.Duration) (added bool, err error) {
	return v.b.Add(key, value, ttl)
}

// AddUntil is Add with a point in time. See Bucket.AddUntil.
func (v View[T]) AddUntil(key string, value T, until time.Time) (added bool, err error) {
	return v.b.AddUntil(key, value, until)
}

// Touch gives a live entry a new lifetime. See Bucket.Touch.
func (v View[T]) Touch(key string, ttl time.Duration) (found bool, err error) {
	return v.b.Touch(key, ttl)
}

// TouchUntil is Touch with a point in time. See Bucket.TouchUntil.
func (v View[T]) TouchUntil(key string, until time.Time) (found bool, err error) {
	return v.b.TouchUntil(key, until)
}

// Delete removes key and reports whether it was there. See Bucket.Delete.
func (v View[T]) Delete(key string) (found bool, err error) { return v.b.Delete(key) }

// DeleteMany removes all keys, or none of them, and returns how many were there. See Bucket.DeleteMany.
func (v View[T]) DeleteMany(keys []string) (deleted int, err error) { return v.b.DeleteMany(keys) }

// DeletePrefix removes the entries whose key begins with prefix and returns how many were live. See
// Bucket.DeletePrefix.
func (v View[T]) DeletePrefix(ctx context.Context, prefix string) (deleted int, err error) {
	return v.b.DeletePrefix(ctx, prefix)
}

// Clear removes all entries of the bucket. See Bucket.Clear.
func (v View[T]) Clear(ctx context.Context) error { return v.b.Clear(ctx) }

// Swap stores value and returns the old one, if there was one. See Bucket.Swap.
func (v View[T]) Swap(key string, value T, ttl time.Duration) (old T, found bool, err error) {
	found, err = v.b.Swap(key, value, ttl, &old)
	return old, found, err
}

// Take removes key and returns its value, if it was there. See Bucket.Take.
func (v View[T]) Take(key string) (value T, found bool, err error) {
	found, err = v.b.Take(key, &value)
	return value, found, err
}

// Update replaces the value of key by the result of fn and returns the entry as it was written. fn gets the zero value
// and false if the key is absent or expired. It may run several times. See Bucket.Update for that, and for ttl.
func (v View[T]) Update(key string, fn func(old T, found bool) (T, error), ttl time.Duration) (Item[T], error) {
	e, err := v.b.Update(key, func(e Entry, found bool) (any, error) {
		var old T
		if found {
			if err := e.Decode(&old); err != nil {
				return nil, err
			}
		}
		return fn(old, found)
	}, ttl)
	if err != nil {
		return Item[T]{}, err
	}
	return v.item("update", e)
}

// CompareAndSwap replaces the value of key if its entry still has the given revision, and reports whether it did. It
// returns the entry as it was written. See Bucket.CompareAndSwap.
func (v View[T]) CompareAndSwap(
	key string, revision uint64, value T, ttl time.Duration,
) (written Item[T], swapped bool, err error) {
	e, swapped, err := v.b.CompareAndSwap(key, revision, value, ttl)
	if err != nil || !swapped {
		return written, false, err
	}
	written, err = v.item("compare and swap", e)
	return written, true, err
}

// Integer is the types of integers.
type Integer interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr
}

// Increment adds delta to the integer of key in a view and returns the sum. It does what Bucket.Increment does, and is
// a function because a method cannot exist for some types only. A sum that does not fit T or an int64 is ErrOverflow
// and changes nothing; so is a delta that does not fit an int64.
func Increment[T Integer](v View[T], key string, delta T, ttl time.Duration) (sum T, err error) {
	by := int64(delta)
	if (by < 0) != (delta < 0) {
		return 0, v.b.fail("increment", key, fmt.Errorf("%w: %d is above %d", ErrOverflow, delta, int64(math.MaxInt64)))
	}
	n, err := v.b.increment(key, by, ttl, func(n int64) bool { return int64(T(n)) == n && (n < 0) == (T(n) < 0) })
	return T(n), err
}

// All ranges over the live entries in the byte order of their keys, as Bucket.All does. An entry whose
// value does not fit T comes with the zero value and an error, and the range goes on.
func (v View[T]) All() iter.Seq2[Item[T], error] { return v.Scan(nil) }

// Prefix is All for the entries whose key begins with prefix. See Bucket.Prefix.
func (v View[T]) Prefix(prefix string) iter.Seq2[Item[T], error] {
	return v.Scan(&ScanOptions{Prefix: prefix})
}

// Range is All for the entries whose key is not less than from, and less than to. See Bucket.Range.
func (v View[T]) Range(from, to string) iter.Seq2[Item[T], error] {
	return v.Scan(&ScanOptions{From: from, To: to})
}

// Keys ranges over the keys. See Bucket.Keys.
func (v View[T]) Keys() iter.Seq2[string, error] { return v.b.Keys() }

// Tagged is All for the entries that have the tag. See Bucket.Tagged.
func (v View[T]) Tagged(tag string) iter.Seq2[Item[T], error] {
	return v.Scan(&ScanOptions{Tag: tag})
}

// Scan is All for the entries that the options say. With KeysOnly values are zero, and so are those of negative
// entries. See Bucket.Scan.
func (v View[T]) Scan(opts *ScanOptions) iter.Seq2[Item[T], error] {
	keysOnly := opts != nil && opts.KeysOnly
	return func(yield func(Item[T], error) bool) {
		for e, err := range v.b.Scan(opts) {
			item := Item[T]{Entry: e}
			if err == nil && !keysOnly && !e.Negative {
				err = v.b.fail("iterate", e.Key, e.Decode(&item.Value))
			}
			if !yield(item, err) {
				return
			}
		}
	}
}

// GetOrLoad returns the value of key, and loads it if it is absent. Nil opts are the defaults. See Bucket.GetOrLoad.
func (v View[T]) GetOrLoad(
	ctx context.Context, key string, load func(ctx context.Context, l *Load) (T, error), opts *LoadOptions,
) (value T, err error) {
	value, _, err = v.GetOrLoadResult(ctx, key, load, opts)
	return value, err
}

// GetOrLoadResult is GetOrLoad, and also says where the value comes from.
func (v View[T]) GetOrLoadResult(
	ctx context.Context, key string, load func(ctx context.Context, l *Load) (T, error), opts *LoadOptions,
) (value T, result LoadResult, err error) {
	r, done, err := v.b.hit(key, opts)
	spoiled := false
	if done && err == nil {
		if err = decodeValue(r.Value, &value); !errors.Is(err, ErrMismatch) {
			v.b.counted(key, &r)
			v.b.slid(key, &r)
			return value, LoadResult{}, v.b.fail(opLoad, key, err)
		}
		v.b.mismatched(key, &r, err)
		spoiled, err = true, nil
	}
	if err != nil {
		return value, LoadResult{}, v.b.fail(opLoad, key, err)
	}
	loader := func(ctx context.Context, l *Load) (any, error) { return load(ctx, l) }
	result, err = v.b.load(ctx, key, r, &target{dst: &value, spoiled: spoiled}, loader, opts)
	return value, result, err
}
