package keepcache

import (
	"context"
	"errors"
	"iter"
	"time"
)

// View is a bucket whose values are all of one type. It is a thin coat: what its methods do is what the
// methods of Bucket with the same name do, and a bucket may be used through views and directly at one time.
// A View is as cheap as a pointer. All its methods may be called from any goroutine.
//
// T is any type that encoding/json can handle. Where a stored value does not fit it, methods that read
// return an error; where T is a pointer, a stored null is a nil one.
type View[T any] struct{ b *Bucket }

// Of returns a view of b, which must not be nil.
func Of[T any](b *Bucket) View[T] { return View[T]{b} }

// Bucket returns the bucket of the view.
func (v View[T]) Bucket() *Bucket { return v.b }

// Get returns the value of key. It returns false and the zero value if the key is absent or expired. See
// Bucket.Get.
func (v View[T]) Get(key string) (value T, found bool, err error) {
	found, err = v.b.Get(key, &value)
	return value, found, err
}

// Set stores value under key for the given lifetime. See Bucket.Set.
func (v View[T]) Set(key string, value T, ttl time.Duration) error { return v.b.Set(key, value, ttl) }

// SetUntil stores value under key until a point in time. See Bucket.SetUntil.
func (v View[T]) SetUntil(key string, value T, until time.Time) error {
	return v.b.SetUntil(key, value, until)
}

// AddUntil is Add with a point in time. See Bucket.AddUntil.
func (v View[T]) AddUntil(key string, value T, until time.Time) (added bool, err error) {
	return v.b.AddUntil(key, value, until)
}

// Add stores value only if key is absent or expired, and reports whether it did. See Bucket.Add.
func (v View[T]) Add(key string, value T, ttl time.Duration) (added bool, err error) {
	return v.b.Add(key, value, ttl)
}

// Swap stores value and returns the one it replaced, if there was one. See Bucket.Swap.
func (v View[T]) Swap(key string, value T, ttl time.Duration) (old T, found bool, err error) {
	found, err = v.b.Swap(key, value, ttl, &old)
	return old, found, err
}

// Take removes key and returns what was there, if there was something. See Bucket.Take.
func (v View[T]) Take(key string) (value T, found bool, err error) {
	found, err = v.b.Take(key, &value)
	return value, found, err
}

// Update replaces the value of key by what fn makes of it, and keeps the lifetime of a live entry. fn gets
// the zero value and false if the key is absent or expired. It may run several times. See Bucket.Update.
func (v View[T]) Update(key string, fn func(old T, found bool) (T, error)) error {
	return v.b.Update(key, func(e Entry, found bool) (any, error) {
		var old T
		if found {
			if err := e.Decode(&old); err != nil {
				return nil, err
			}
		}
		return fn(old, found)
	})
}

// GetMany returns the values of the live ones among keys. Absent keys are absent from the result, which is
// never nil unless there is an error.
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

// SetMany stores all values under their keys for the given lifetime, or none of them. See Bucket.SetMany.
func (v View[T]) SetMany(values map[string]T, ttl time.Duration) error {
	return setMany(v.b, values, ttl)
}

// Item is one entry with its value, as View.All yields it.
type Item[T any] struct {
	Entry
	Value T
}

// All ranges over the live entries in the byte order of their keys, as Bucket.All does. An entry whose
// value does not fit T comes with the zero value and an error, and the range goes on.
func (v View[T]) All() iter.Seq2[Item[T], error] {
	return func(yield func(Item[T], error) bool) {
		for e, err := range v.b.All() {
			item := Item[T]{Entry: e}
			if err == nil {
				err = v.b.fail("iterate", e.Key, e.Decode(&item.Value))
			}
			if !yield(item, err) {
				return
			}
		}
	}
}

// GetOrLoad returns the value of key, and has it loaded if it is absent. nil opts are the defaults. See
// Bucket.GetOrLoad; that one also says whether the value is stale.
func (v View[T]) GetOrLoad(ctx context.Context, key string, load func(ctx context.Context, l *Load) (T, error), opts *LoadOptions) (value T, err error) {
	r, done, err := v.b.hit(key, opts)
	spoiled := false
	if done && err == nil {
		if err = decodeValue(r.Value, &value); !errors.Is(err, ErrMismatch) {
			v.b.counted(key, &r)
			v.b.slid(key, &r)
			return value, v.b.fail(opLoad, key, err)
		}
		v.b.mismatched(key, &r, err)
		spoiled, err = true, nil
	}
	if err != nil {
		return value, v.b.fail(opLoad, key, err)
	}
	_, err = v.b.load(ctx, key, r, &target{dst: &value, spoiled: spoiled}, func(ctx context.Context, l *Load) (any, error) { return load(ctx, l) }, opts)
	return value, err
}
