package keepcache

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/keepcache/keepcache/internal/engine"
)

// ManyLoader fetches the values of several keys from their source in one call. Keys that are missing in the result do
// not exist, as if a Loader had returned ErrNotFound for them. An error is one for all keys.
type ManyLoader = func(ctx context.Context, keys []string) (map[string]any, error)

// GetOrLoadMany returns the entries of keys. It loads those that are absent in one call of load, and waits for those
// that somebody else is loading. Stale entries are returned as they are, and loaded again in the background in one
// call. Nil opts are the defaults.
//
// Keys that do not exist are missing in the result, which is never nil. If a key cannot be loaded and there is nothing
// to serve, there is an error, and the result has the other keys.
func (b *Bucket) GetOrLoadMany(
	ctx context.Context, keys []string, load ManyLoader, opts *LoadOptions,
) (map[string]Entry, error) {
	o, err := opts.resolve(b)
	if err != nil {
		return map[string]Entry{}, b.fail(opLoad, "", err)
	}
	return b.loadMany(ctx, keys, &o, func(ctx context.Context, r *run) { r.loadAll(ctx, &o, load) }, nil, false)
}

// loadMany is GetOrLoadMany. fits, if not nil, reports whether the caller can use a stored value; a mismatch is a miss.
// anew is true for the second try, after what somebody else wrote meanwhile did not fit. There is no third.
func (b *Bucket) loadMany(
	ctx context.Context, keys []string, o *LoadOptions, start starter, fits func([]byte) error, anew bool,
) (entries map[string]Entry, err error) {
	ctx = orBackground(ctx)
	entries = make(map[string]Entry, len(keys))
	if err := b.canRead(); err != nil {
		return entries, b.fail(opLoad, "", err)
	}
	var missing, served []waiting
	var failed error
	var stale []*flight
	for _, key := range slices.Compact(slices.Sorted(slices.Values(keys))) {
		r, err := b.look(key)
		if err != nil {
			return entries, b.fail(opLoad, key, err)
		}
		if fits != nil && r.Held && !r.Negative {
			if err := fits(r.Value); errors.Is(err, ErrMismatch) {
				b.mismatched(key, &r, err)
			}
		}
		switch b.plan(key, &r, o) {
		case serveFresh:
			b.counted(key, &r)
			b.slid(key, &r)
			entries[key] = entryOf(key, &r)
		case serveNegative:
			b.negativeHit(key)
		case serveAndLoad:
			stale = append(stale, &flight{b: b, key: key, stale: r, caller: ctx})
			fallthrough
		case serveAnyway:
			b.served(key, &r, nil)
			entries[key] = entryOf(key, &r)
			if !r.Live {
				served = append(served, waiting{key: key, seen: r})
			}
		default:
			if !b.isStale(&r) {
				b.counted(eventKey(key), &engine.Reading{})
				if err := b.failedLately(key, o, false); err != nil {
					b.db.counts.remembered.Add(1)
					if failed == nil {
						failed = b.fail(opLoad, key, err)
					}
					continue
				}
			}
			missing = append(missing, waiting{key: key, seen: r})
		}
	}
	if len(stale) > 0 {
		b.refresh(ctx, b.newRun(ctx), stale, start)
	}
	if len(missing) == 0 {
		return entries, failed
	}
	if err = b.fetchMany(ctx, missing, entries, o, start, fits, anew); err == nil {
		err = failed
	}
	// What was stale may be gone by now.
	for _, w := range served {
		if b.isStale(&w.seen) {
			continue
		}
		delete(entries, w.key)
		many, late := b.loadMany(ctx, []string{w.key}, o, start, fits, anew)
		maps.Copy(entries, many)
		if err == nil {
			err = late
		}
	}
	return entries, err
}

// waiting is a key that a request waits for, with what the request found.
type waiting struct {
	key    string
	seen   engine.Reading
	flight *flight
}

// fetchMany loads the missing keys, in one call for those that nobody loads already, and adds them to entries.
func (b *Bucket) fetchMany(ctx context.Context, missing []waiting, entries map[string]Entry, o *LoadOptions,
	start starter, fits func([]byte) error, anew bool) error {
	err := ctx.Err()
	if err == nil {
		err = canNest(ctx, missing[0].key)
	}
	if err != nil {
		return b.fail(opLoad, "", err)
	}
	r := b.newRun(ctx)
	for i := range missing {
		w := &missing[i]
		var mine bool
		f := &flight{b: b, key: w.key, stale: w.seen, caller: ctx, run: r}
		if w.flight, mine = f.join(); mine {
			r.flights = append(r.flights, f)
		}
	}
	if len(r.flights) > 0 {
		if caller := runOf(ctx); caller != nil { // before the loader begins
			_ = caller.await(r.flights[0]) // no ring: it waits for nothing yet
			defer caller.leave(r.flights[0])
		}
		r.launch(ctx, start)
	}
	var failed error
	began := time.Now()
	for i := range missing {
		w := &missing[i]
		wasStale := b.isStale(&w.seen)
		_, result, again, err := b.wait(ctx, w.flight, &w.seen, o, began)
		if wasStale && !result.Stale {
			b.counted(w.key, &engine.Reading{})
		}
		unfit := !again && !anew && fits != nil && err == nil && !result.Stale && w.flight.quicker &&
			errors.Is(fits(w.flight.value), ErrMismatch)
		if again || unfit {
			// This is rare enough to be done one by one.
			many, err := b.loadMany(ctx, []string{w.key}, o, start, fits, anew || unfit)
			maps.Copy(entries, many)
			if failed == nil {
				failed = err
			}
			continue
		}
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			if failed == nil {
				failed = b.fail(opLoad, w.key, err)
			}
		case result.Stale:
			entries[w.key] = entryOf(w.key, &w.seen)
		default:
			f := w.flight
			entries[w.key] = newEntry(w.key, &f.header, f.options, f.value)
		}
	}
	return failed
}

// loadAll runs a loader of many keys for its flights, and lands them.
func (r *run) loadAll(request context.Context, o *LoadOptions, load ManyLoader) {
	r.flights = slices.DeleteFunc(r.flights, func(f *flight) bool { return f.superseded(o) })
	if len(r.flights) == 0 {
		return
	}
	ctx, end := r.watch(request, o)
	defer end()
	keys := make([]string, len(r.flights))
	for i, f := range r.flights {
		keys[i] = f.key
	}
	var all answer // of those without one of their own
	answers := make([]answer, len(r.flights))
	r.contain(&all, func() {
		values, err := load(ctx, keys)
		if all.judge(ctx, r.flights[0], err); err != nil {
			return
		}
		for i, f := range r.flights {
			value, ok := values[f.key]
			if !ok {
				answers[i] = answer{err: ErrNotFound, verdict: verdict{notFound: true}}
				continue
			}
			a := &answers[i]
			a.encoded, a.unfit, err = r.b.encode(value)
			a.judge(ctx, f, err)
		}
	}, func() {
		// The loader was in time, however long it takes to store the result.
		end()
		claimed := make([]bool, len(r.flights))
		for i, f := range r.flights {
			claimed[i] = f.claim()
		}
		var told laterEvents
		for i, f := range r.flights {
			a := answers[i]
			if all.err != nil {
				a = all
			}
			if claimed[i] {
				f.finish(f.newLoad(o), o, a, &told)
			} else {
				f.drop(&a)
			}
		}
		r.send(told)
	})
}

// GetOrLoadMany returns the values of keys, and loads those that are absent in one call. See Bucket.GetOrLoadMany.
func (v View[T]) GetOrLoadMany(ctx context.Context, keys []string, load func(ctx context.Context,
	keys []string) (map[string]T, error), opts *LoadOptions) (map[string]T, error) {
	o, err := opts.resolve(v.b)
	if err != nil {
		return map[string]T{}, v.b.fail(opLoad, "", err)
	}
	loader := func(ctx context.Context, keys []string) (map[string]any, error) {
		loaded, err := load(ctx, keys)
		values := make(map[string]any, len(loaded))
		for key, value := range loaded {
			values[key] = value
		}
		return values, err
	}
	start := func(ctx context.Context, r *run) { r.loadAll(ctx, &o, loader) }
	entries, err := v.b.loadMany(ctx, keys, &o, start, func(value []byte) error { return decodeValue(value, new(T)) },
		false)
	values := make(map[string]T, len(entries))
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		var value T
		if decodeErr := entries[key].Decode(&value); decodeErr != nil {
			if err == nil {
				err = v.b.fail(opLoad, key, decodeErr)
			}
			continue
		}
		values[key] = value
	}
	return values, err
}
