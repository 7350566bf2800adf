package keepcache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/ground"
)

// GetOrLoad reads the value of key into dst, as Get does. If the key is absent, GetOrLoad calls load and stores the
// result for the lifetime in opts. Nil opts are the defaults. However many callers wait for a key, the loader runs
// once. A stale value is returned at once, and loaded again in the background. If the key is set or deleted while the
// loader runs, those who wait get the result, but it is not stored: it may be older.
//
// If there is nothing to serve, the error is one of these:
//
//   - ErrNotFound, if the loader returned it, or did so within NegativeTTL.
//   - The error of ctx. That ends the wait and not the load.
//   - The error of the loader. It is found by errors.Is, and its text comes first.
//   - A *RememberedError, if an earlier load failed within RetryAfter.
//   - A *PanicError, if the loader panicked. A loader that calls runtime.Goexit has failed too.
//   - context.DeadlineExceeded, if the loader ran for longer than LoadTimeout.
//   - ErrLoadCycle, if the key is loaded by a loader that waits for this call.
//
// A cache that cannot be read, or that cannot store what was loaded, is not an error. Nor is a key that is too long or
// empty. Such failures are counted in LoadStats and reported as EventLoadFailed. A stored value that does not fit dst
// is loaded again, and dst is as it was before. A loaded value that does not fit dst is stored, and GetOrLoad returns
// an error; dst may then hold a part of it. A nil ctx is context.Background.
//
// A DB that is open for reading only stores nothing.
func (b *Bucket) GetOrLoad(
	ctx context.Context, key string, dst any, load Loader, opts *LoadOptions,
) (LoadResult, error) {
	r, done, err := b.hit(key, opts)
	prefilled, spoiled := isPrefilled(dst), false
	switch {
	case err != nil:
	case !done:
		return b.load(ctx, key, r, &target{dst, prefilled, false}, load, opts)
	default:
		if spoiled, err = decodeInto(r.Value, dst, prefilled, false); errors.Is(err, ErrMismatch) {
			b.mismatched(key, &r, err)
			return b.load(ctx, key, r, &target{dst, prefilled, spoiled}, load, opts)
		}
		b.counted(key, &r)
		b.slid(key, &r)
	}
	return LoadResult{}, b.fail(opLoad, key, err)
}

// orBackground returns ctx, or context.Background if it is nil.
func orBackground(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// hit reads key. done is true if the value is fresh and nothing more has to be decided, apart from whether it fits, and
// if there is an error.
func (b *Bucket) hit(key string, opts *LoadOptions) (r engine.Reading, done bool, err error) {
	if r, err = b.look(key); err != nil {
		return r, true, err
	}
	return r, r.Live && (opts == nil || opts.RefreshAhead == 0), nil
}

// mismatched counts and reports a stored value that did not fit its destination, and turns r into a miss.
func (b *Bucket) mismatched(key string, r *engine.Reading, err error) {
	r.State = engine.State{Fresh: r.Fresh}
	b.db.counts.loadsMismatched.Add(1)
	b.db.events.tell(Event{Kind: EventLoadFailed, Bucket: b.at.Name, Key: key,
		Detail: "what is stored does not fit and is loaded anew", Err: err})
}

// look reads a key. A cache that cannot be read is a miss, and so is an invalid key.
func (b *Bucket) look(key string) (r engine.Reading, err error) {
	if r, err = b.read(key); errors.Is(r.Damage, ErrUnavailable) {
		err = r.Damage
	}
	switch {
	case err == nil, errors.Is(err, ErrClosed), errors.Is(err, ErrInvalidName):
		return r, err
	case errors.Is(err, ErrInvalidKey): // reported when it has been loaded
		return engine.Reading{}, nil
	}
	b.loadFailed(key, "the cache cannot be read", err)
	return engine.Reading{}, nil
}

// load is GetOrLoad after hit. r is what was found.
func (b *Bucket) load(
	ctx context.Context, key string, r engine.Reading, dst *target, load Loader, opts *LoadOptions,
) (LoadResult, error) {
	o, err := opts.resolve(b)
	if err != nil {
		return LoadResult{}, b.fail(opLoad, key, err)
	}
	start := func(ctx context.Context, r *run) { r.loadOne(ctx, &o, load) }
	result, err := b.fetch(orBackground(ctx), key, r, &o, start, dst)
	return result, b.fail(opLoad, key, err)
}

// fetch serves one key: from what was found, or from a flight. It joins the flight of the key that is under way, or
// begins one with start. A stored value that does not fit dst is a miss.
func (b *Bucket) fetch(
	ctx context.Context, key string, r engine.Reading, o *LoadOptions, start starter, dst *target,
) (LoadResult, error) {
	missed, anew := false, false
	for {
		switch plan := b.plan(key, &r, o); plan {
		case serveNegative:
			b.negativeHit(key)
			return LoadResult{}, ErrNotFound
		case serveFresh, serveAnyway, serveAndLoad:
			err := dst.take(r.Value)
			if errors.Is(err, ErrMismatch) {
				b.mismatched(key, &r, err)
				break
			}
			switch plan {
			case serveFresh:
				b.counted(key, &r)
				b.slid(key, &r)
				return LoadResult{}, err
			case serveAndLoad:
				b.refresh(ctx, b.newRun(ctx), []*flight{{b: b, key: key, stale: r, caller: ctx}}, start)
			}
			b.served(key, &r, nil)
			return LoadResult{Stale: !r.Live}, err
		default:
			if b.isStale(&r) { // it may be served after all
				held := r
				held.Live = true
				if err := fits(&held, dst.dst); errors.Is(err, ErrMismatch) {
					b.mismatched(key, &r, err)
				}
			}
		}
		err := ctx.Err()
		if err == nil {
			err = canNest(ctx, key)
		}
		if err != nil {
			b.missed(key, &missed)
			return LoadResult{}, err
		}
		if !b.isStale(&r) {
			b.missed(key, &missed)
			if err = b.failedLately(key, o, false); err != nil {
				b.db.counts.remembered.Add(1)
				return LoadResult{}, err
			}
		}
		f, own := (&flight{b: b, key: key, stale: r, caller: ctx, run: b.newRun(ctx)}).join()
		if own {
			f.run.flights = []*flight{f}
			if caller := runOf(ctx); caller != nil { // before the loader begins
				_ = caller.await(f) // no ring: f waits for nothing yet
				defer caller.leave(f)
			}
			f.run.launch(ctx, start)
		}
		value, result, again, err := b.wait(ctx, f, &r, o, time.Now())
		if !again {
			if !result.Stale {
				b.missed(key, &missed)
			}
			if err == nil {
				err = dst.take(value)
			}
			if !errors.Is(err, ErrMismatch) || !f.quicker || anew {
				return result, err
			}
			anew = true // what somebody else wrote does not fit either
		}
		b.missed(key, &missed)
		if r, err = b.look(key); err != nil {
			return LoadResult{}, err
		}
	}
}

// missed counts a request that found nothing. It counts a request once: before is its flag.
func (b *Bucket) missed(key string, before *bool) {
	if !*before {
		*before = true
		b.counted(eventKey(key), &engine.Reading{})
	}
}

// servePlan is what a request does with what it found.
type servePlan int

const (
	serveNothing  servePlan = iota // wait for a load
	serveFresh                     // it is fresh
	serveNegative                  // ErrNotFound
	serveAnyway                    // and load nothing: a load failed lately
	serveAndLoad                   // and load in the background
)

func (b *Bucket) plan(key string, r *engine.Reading, o *LoadOptions) servePlan {
	if r.Live && o.RefreshAhead == 0 {
		return serveFresh
	}
	if !r.Held {
		return serveNothing
	}
	t := r.ParseOptions()
	now := format.Millis(b.db.engine.Now())
	switch {
	case r.Negative:
		return serveNegative
	case r.Live:
		since := t.LoadedAt
		if since == 0 {
			since = r.Header.WrittenAt
		}
		if o.waitsAfter(r.Options, now) || !format.IsPast(since, r.Header.ExpiresAt, now, o.RefreshAhead) ||
			b.failedLately(key, o, true) != nil {
			return serveFresh
		}
		return serveAndLoad
	case o.waitsAfter(r.Options, now), b.failedLately(key, o, true) != nil:
		return serveAnyway
	case o.SoftTimeout > 0:
		return serveNothing // but not without end
	}
	return serveAndLoad
}

// wait waits for a flight. It falls back on what was found before, as long as that may be served. The time limits count
// from began.
//
// again is true if the caller must start over: what the flight brought was invalidated before this request came, or the
// flight failed because the request that began it has ended.
func (b *Bucket) wait(
	ctx context.Context, f *flight, r *engine.Reading, o *LoadOptions, began time.Time,
) (value []byte, result LoadResult, again bool, err error) {
	joined := b.db.engine.Revision()
	landed := f.landed() // before the time is checked
	done := f.done
	poll := time.Duration(0)
	if !landed && ground.InBubble(f.began, time.Now()) {
		done, poll = nil, ground.PollMost // a channel of another bubble must not be touched
	}
	if caller := runOf(ctx); caller != nil && !landed {
		switch err := caller.await(f); {
		case err == nil:
			defer caller.leave(f)
		case b.isStale(r):
			b.served(f.key, r, err)
			return r.Value, LoadResult{Stale: true, Err: err}, false, nil
		default:
			return nil, result, false, err
		}
	}
	for !landed {
		stale := b.isStale(r)
		limit, left := o.HardTimeout, NoExpiry
		if stale {
			limit, left = o.SoftTimeout, format.Remaining(b.db.engine.Now(), r.Header.StaleUntil)
		}
		if limit > 0 {
			left = min(left, limit-time.Since(began))
		}
		switch {
		case left > 0:
		case stale && b.isStale(r):
			b.served(f.key, r, nil)
			return r.Value, LoadResult{Stale: true}, false, nil
		case !stale:
			return nil, result, false, fmt.Errorf("the load takes longer than %v: %w", limit, context.DeadlineExceeded)
		}
		if poll > 0 {
			left = min(left, poll)
		}
		landed, err = f.await(ctx, done, left)
		if err != nil {
			return nil, result, false, err
		}
	}
	switch {
	case f.err == nil && f.outdated(joined), f.callerGone && ctx.Err() == nil:
		return nil, result, true, nil
	// an earlier failure counts for the request that began it, not for this one
	case f.err != nil && f.quicker && o.RetryAfter < 0:
		return nil, result, true, nil
	case f.err == errFailedLately && !b.isStale(r): // there is a stale value that this request has not seen
		return nil, result, true, nil
	case f.closing:
		return nil, result, false, ErrClosed
	case f.err == nil, f.notFound:
		return f.value, result, false, f.err
	case b.isStale(r):
		b.served(f.key, r, f.err)
		return r.Value, LoadResult{Stale: true, Err: f.err}, false, nil
	}
	return nil, result, false, f.err
}

// await waits until done is closed, ctx ends, or the time is over. It reports whether the flight has landed. The error
// is that of ctx.
func (f *flight) await(ctx context.Context, done <-chan struct{}, most time.Duration) (landed bool, err error) {
	var over <-chan time.Time
	if most != NoExpiry {
		timer := time.NewTimer(max(most, 0))
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-done:
	case <-ctx.Done():
		return false, ctx.Err()
	case <-over:
	}
	return f.landed(), nil
}

// isStale reports whether what was found before may be served if there is nothing better.
func (b *Bucket) isStale(r *engine.Reading) bool {
	return r.Held && !r.Negative && b.db.engine.StateOf(&r.Header, r.Options).Held
}

// negativeHit counts and reports a request that was answered with a remembered ErrNotFound.
func (b *Bucket) negativeHit(key string) {
	b.db.counts.negativeHits.Add(1)
	b.note(EventNegative, key)
}

// served counts and reports a value that was served although it is stale, or about to be.
func (b *Bucket) served(key string, r *engine.Reading, err error) {
	b.counted(key, &engine.Reading{State: engine.State{Live: true}, File: r.File})
	if r.Live {
		return
	}
	b.db.counts.stale.Add(1)
	if b.db.events.wants(EventStale) {
		b.db.events.tell(Event{Kind: EventStale, Bucket: b.at.Name, Key: key, Err: err})
	}
}

// loadFailed counts and reports a failure of the cache that a load went on without.
func (b *Bucket) loadFailed(key, detail string, err error) {
	b.db.counts.loadCacheErrors.Add(1)
	b.db.events.tell(Event{Kind: EventLoadFailed, Bucket: b.at.Name, Key: eventKey(key), Detail: detail, Err: err})
}
