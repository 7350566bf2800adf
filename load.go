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

// GetOrLoad reads the value of key into dst, as Get does. If it is absent it is loaded, and stored for the
// lifetime that opts say; nil opts are the defaults. However many callers wait for a key, the loader runs
// once. A value that is stale is served at once and loaded anew in the background. A result that came after
// a Set or Delete of the same key is handed to those who wait but not stored: it may be older.
//
// The error is ErrNotFound if the loader says so, or said so within NegativeTTL; that of ctx, which ends the
// waiting but not the load; or that of the loader, for which errors.Is works, if there is nothing to serve
// instead. If that was an earlier load, which failed within RetryAfter, it is a *RememberedError. A loader that panics,
// which is a *PanicError, or calls runtime.Goexit has failed. So has one that runs for longer than LoadTimeout. A loader that asks for
// a key whose loader waits for it gets ErrLoadCycle. The text of the error begins with what the loader said.
//
// That the cache itself cannot be read or written, or that what was loaded cannot be stored, also because key is too long or
// empty, is no error: it is counted in LoadStats and told as EventLoadFailed. A stored value that does not fit dst is taken for absent,
// and dst is as it was before. If what was loaded does not fit, it is stored and there is an error, after which dst may
// hold a part of it. A nil ctx is context.Background.
//
// In a DB that is open for reading only nothing is stored.
func (b *Bucket) GetOrLoad(ctx context.Context, key string, dst any, load Loader, opts *LoadOptions) (LoadResult, error) {
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

// given returns ctx, or the background where it is nil.
func given(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// hit is the way of a value that is fresh and need not be looked at further, but for whether it fits.
func (b *Bucket) hit(key string, opts *LoadOptions) (r engine.Reading, done bool, err error) {
	if r, err = b.look(key); err != nil {
		return r, true, err
	}
	return r, r.Live && (opts == nil || opts.RefreshAhead == 0), nil
}

// mismatched counts and tells that a value did not fit, and makes a miss of it.
func (b *Bucket) mismatched(key string, r *engine.Reading, err error) {
	r.State = engine.State{Fresh: r.Fresh}
	b.db.counts.loadsMismatched.Add(1)
	b.db.events.tell(Event{Kind: EventLoadFailed, Bucket: b.at.Name, Key: key, Detail: "what is stored does not fit and is loaded anew", Err: err})
}

// look reads a key. That the cache cannot be read is a miss, and so is a key that it cannot have.
func (b *Bucket) look(key string) (r engine.Reading, err error) {
	if r, err = b.read(key); errors.Is(r.Damage, ErrUnavailable) {
		err = r.Damage
	}
	switch {
	case err == nil, errors.Is(err, ErrClosed), errors.Is(err, ErrInvalidName):
		return r, err
	case errors.Is(err, ErrInvalidKey): // told when it has been loaded
		return engine.Reading{}, nil
	}
	b.loadFailed(key, "the cache cannot be read", err)
	return engine.Reading{}, nil
}

// load is GetOrLoad beyond hit. r is what was found.
func (b *Bucket) load(ctx context.Context, key string, r engine.Reading, dst *target, load Loader, opts *LoadOptions) (LoadResult, error) {
	o, err := opts.resolve(b)
	if err != nil {
		return LoadResult{}, b.fail(opLoad, key, err)
	}
	start := func(ctx context.Context, r *run) { r.one(ctx, &o, load) }
	result, err := b.fetch(given(ctx), key, r, &o, start, dst)
	return result, b.fail(opLoad, key, err)
}

// fetch serves one key: with what was found, or by a flight that start begins, or by one that is under way. A stored value
// that does not fit dst is a miss.
func (b *Bucket) fetch(ctx context.Context, key string, r engine.Reading, o *LoadOptions, start starter, dst *target) (LoadResult, error) {
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
			if b.isStale(&r) { // it may have to be served after all
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
		f, own := (&flight{b: b, key: key, stale: r, caller: ctx, run: b.newRun(ctx)}).board()
		if own {
			f.run.flights = []*flight{f}
			if caller := runOf(ctx); caller != nil { // before the loader can ask who waits for it
				_ = caller.await(f) // it waits for nothing yet
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
			anew = true // what somebody else has written does not fit either
		}
		b.missed(key, &missed)
		if r, err = b.look(key); err != nil {
			return LoadResult{}, err
		}
	}
}

// missed counts that a request found nothing, once.
func (b *Bucket) missed(key string, before *bool) {
	if !*before {
		*before = true
		b.counted(toldKey(key), &engine.Reading{})
	}
}

// What a request does with what it found.
type servePlan int

const (
	serveNothing  servePlan = iota // wait for a load
	serveFresh                     // it is fresh
	serveNegative                  // there is no such thing
	serveAnyway                    // and load nothing: a load has failed lately
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
		if o.waitsAfter(r.Options, now) || !format.IsPast(since, r.Header.ExpiresAt, now, o.RefreshAhead) || b.failedLately(key, o, true) != nil {
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

// wait waits for a flight, and falls back upon what was found before, as long as that may be served. again means that what
// the flight brought was invalidated before this request came, or that it failed because the request that began it has ended. The time limits count from began.
func (b *Bucket) wait(ctx context.Context, f *flight, r *engine.Reading, o *LoadOptions, began time.Time) (value []byte, result LoadResult, again bool, err error) {
	joined := b.db.engine.Revision()
	landed := f.landed() // first of all, also where the time is over
	done := f.done
	poll := time.Duration(0)
	if !landed && ground.InBubble(f.began, time.Now()) {
		done, poll = nil, ground.PollMost // its channel is not to be touched from here
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
	case f.err == nil && f.outdated(joined), f.strange && ctx.Err() == nil:
		return nil, result, true, nil
	case f.err != nil && f.quicker && o.RetryAfter < 0: // the request that began the flight goes by an earlier failure, and this one does not
		return nil, result, true, nil
	case f.err == errFailedLately && !b.isStale(r): // there is something to serve that this request has not seen
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

// await waits until a flight has landed, as done says, for as long as that; the error is that of ctx.
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

// isStale reports whether what was found before may be served for want of something better.
func (b *Bucket) isStale(r *engine.Reading) bool {
	return r.Held && !r.Negative && b.db.engine.StateOf(&r.Header, r.Options).Held
}

// negativeHit counts and tells that a request was answered by what is remembered of ErrNotFound.
func (b *Bucket) negativeHit(key string) {
	b.db.counts.negativeHits.Add(1)
	b.note(EventNegative, key)
}

// served counts and tells that a value was served that is not known to be right any more.
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

// loadFailed tells of a failure of the cache that a load went on without.
func (b *Bucket) loadFailed(key, detail string, err error) {
	b.db.counts.loadCacheErrors.Add(1)
	b.db.events.tell(Event{Kind: EventLoadFailed, Bucket: b.at.Name, Key: toldKey(key), Detail: detail, Err: err})
}
