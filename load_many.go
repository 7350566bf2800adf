package keepcache

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// ManyLoader fetches the values of several keys from their source in one call. Keys that are not in what it
// returns do not exist, as if a Loader had returned ErrNotFound for them. An error is one for all keys.
type ManyLoader = func(ctx context.Context, keys []string) (map[string]any, error)

// GetOrLoadMany returns the entries of keys and loads, in one call, those that are absent; keys that somebody
// else is loading it waits for. Stale ones it returns as they are and has loaded anew in the background, in one
// call. opts are as for GetOrLoad; nil are the defaults. Keys that do not exist are absent from the result, which
// is never nil. When a key cannot be loaded, and there is nothing to serve instead, the error says so, and the
// result has the others.
func (b *Bucket) GetOrLoadMany(ctx context.Context, keys []string, load ManyLoader, opts *LoadOptions) (map[string]Entry, error) {
	o, err := opts.resolve(b)
	if err != nil {
		return map[string]Entry{}, b.fail("load", "", err)
	}
	return b.loadMany(ctx, keys, &o, func(ctx context.Context, fs []*flight) { runMany(ctx, fs, &o, load) }, nil)
}

// loadMany is GetOrLoadMany. fits, if there is one, says whether a stored value is what the caller can use; a mismatch is a miss.
func (b *Bucket) loadMany(ctx context.Context, keys []string, o *LoadOptions, start func(context.Context, []*flight), fits func([]byte) error) (entries map[string]Entry, err error) {
	ctx = given(ctx)
	entries = make(map[string]Entry, len(keys))
	if err := b.canRead(); err != nil {
		return entries, b.fail("load", "", err)
	}
	var missing, served []waiting
	var stale []*flight
	for _, key := range slices.Compact(slices.Sorted(slices.Values(keys))) {
		r, err := b.look(key)
		if err != nil {
			return entries, b.fail("load", key, err)
		}
		if fits != nil && r.held && !r.negative {
			if err := fits(r.value); errors.Is(err, ErrMismatch) {
				b.mismatched(key, &r, err)
			}
		}
		switch b.plan(&r, o) {
		case serveFresh:
			b.counted(key, &r)
			b.slid(key, &r)
			entries[key] = r.entry(key)
		case serveNegative:
			b.negativeHit(key)
		case serveAndLoad:
			stale = append(stale, &flight{b: b, key: key, stale: r})
			fallthrough
		case serveAnyway:
			b.served(key, &r, nil)
			entries[key] = r.entry(key)
			if !r.live {
				served = append(served, waiting{key: key, seen: r})
			}
		default:
			if !b.isStale(&r) {
				b.counted(key, &reading{})
			}
			missing = append(missing, waiting{key: key, seen: r})
		}
	}
	if len(stale) > 0 {
		b.refresh(ctx, stale, start)
	}
	if len(missing) == 0 {
		return entries, nil
	}
	err = b.fetchMany(ctx, missing, entries, o, start, fits)
	// What was stale may be gone by now.
	for _, w := range served {
		if b.isStale(&w.seen) {
			continue
		}
		delete(entries, w.key)
		many, late := b.loadMany(ctx, []string{w.key}, o, start, fits)
		maps.Copy(entries, many)
		if err == nil {
			err = late
		}
	}
	return entries, err
}

// waiting is a key for which a request waits, with what the request found.
type waiting struct {
	key    string
	seen   reading
	flight *flight
}

// fetchMany loads what is missing, in one call as far as nobody does so already, and adds it to entries.
func (b *Bucket) fetchMany(ctx context.Context, missing []waiting, entries map[string]Entry, o *LoadOptions, start func(context.Context, []*flight), fits func([]byte) error) error {
	if err := ctx.Err(); err != nil {
		return b.fail("load", "", err)
	}
	var own []*flight
	for i := range missing {
		w := &missing[i]
		var mine bool
		if w.flight, mine = b.board(ctx, w.key, w.seen); mine {
			own = append(own, w.flight)
		}
	}
	if len(own) > 0 && !b.db.loads.begin(func() { start(b.db.loads.ctxOf(ctx), own) }) {
		for _, f := range own {
			f.land(nil, ErrClosed)
		}
	}
	var failed error
	began := time.Now()
	for i := range missing {
		w := &missing[i]
		wasStale := b.isStale(&w.seen)
		_, result, again, err := b.wait(ctx, w.flight, &w.seen, o, began)
		if wasStale && !result.Stale {
			b.counted(w.key, &reading{})
		}
		if again {
			// Rare enough to be done one by one.
			var many map[string]Entry
			if many, err = b.loadMany(ctx, []string{w.key}, o, start, fits); err == nil {
				maps.Copy(entries, many)
				continue
			}
		}
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			if failed == nil {
				failed = b.fail("load", w.key, err)
			}
		case result.Stale:
			entries[w.key] = w.seen.entry(w.key)
		default:
			f := w.flight
			entries[w.key] = newEntry(w.key, &f.header, f.options, f.value)
		}
	}
	return failed
}

// runMany lets a loader of many keys run for its flights, and lands them.
func runMany(ctx context.Context, fs []*flight, o *LoadOptions, load ManyLoader) {
	fs = slices.DeleteFunc(fs, func(f *flight) bool { return f.superseded() })
	if len(fs) == 0 {
		return
	}
	keys := make([]string, len(fs))
	for i, f := range fs {
		keys[i] = f.key
	}
	encoded := make(map[string][]byte, len(fs))
	failed := make(map[string]error) // why one of the values cannot be stored
	land := func(err error) {
		for _, f := range fs {
			own := err
			if own == nil {
				own = failed[f.key]
			}
			if _, ok := encoded[f.key]; own == nil && !ok {
				own = ErrNotFound
			}
			f.finish(f.newLoad(o), o, encoded[f.key], own)
		}
	}
	land(contain(func() error {
		values, err := load(ctx, keys)
		if err != nil {
			return err
		}
		for _, f := range fs {
			value, ok := values[f.key]
			if !ok {
				continue
			}
			if encoded[f.key], err = f.encode(value); err != nil {
				failed[f.key] = err
			}
		}
		return nil
	}, land))
}

// GetOrLoadMany returns the values of keys and loads, in one call, those that are absent. See
// Bucket.GetOrLoadMany.
func (v View[T]) GetOrLoadMany(ctx context.Context, keys []string, load func(ctx context.Context, keys []string) (map[string]T, error), opts *LoadOptions) (map[string]T, error) {
	o, err := opts.resolve(v.b)
	if err != nil {
		return map[string]T{}, v.b.fail("load", "", err)
	}
	loader := func(ctx context.Context, keys []string) (map[string]any, error) {
		loaded, err := load(ctx, keys)
		values := make(map[string]any, len(loaded))
		for key, value := range loaded {
			values[key] = value
		}
		return values, err
	}
	start := func(ctx context.Context, fs []*flight) { runMany(ctx, fs, &o, loader) }
	entries, err := v.b.loadMany(ctx, keys, &o, start, func(value []byte) error { return decodeValue(value, new(T)) })
	values := make(map[string]T, len(entries))
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		var value T
		if decodeErr := entries[key].Decode(&value); decodeErr != nil {
			if err == nil {
				err = v.b.fail("load", key, decodeErr)
			}
			continue
		}
		values[key] = value
	}
	return values, err
}
