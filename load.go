package keepcache

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// LoadOptions say how GetOrLoad keeps what it loads, and when it loads anew. The zero value is a plain cache:
// the default lifetime of the bucket, nothing served stale, no time limits. docs/loading.md draws the timeline.
type LoadOptions struct {
	// TTL is for how long a loaded value is fresh. Default: 0, the default of the bucket.
	TTL time.Duration

	// StaleFor is for how long after that the value may still be served, while it is loaded anew or because
	// that fails (RFC 5861: stale-while-revalidate and stale-if-error in one). Default: 0, not at all.
	StaleFor time.Duration

	// RetryAfter is how long after a failed load the value that is there is served without trying again. It
	// survives a restart. -1 tries with every request. Default: 0, which means 30 s.
	RetryAfter time.Duration

	// RefreshAhead is the part of the lifetime, between 0 and 1, after which the first request for a fresh
	// value has it loaded anew in the background. Default: 0, off.
	RefreshAhead float64

	// SoftTimeout is for how long a request waits for a load although it has a stale value to serve. The load
	// goes on, and what it brings is stored. Default: 0, the stale value is served at once.
	SoftTimeout time.Duration

	// HardTimeout is for how long a request waits for a load when it has nothing to serve; it then fails with
	// context.DeadlineExceeded. The load goes on, and what it brings is stored. Default: 0, as long as the
	// request's ctx lets it.
	HardTimeout time.Duration

	// NegativeTTL is for how long it is remembered that the loader returned ErrNotFound. Default: 0, not at all.
	NegativeTTL time.Duration

	// Jitter is the part of the lifetime, between 0 and 1, by which it is shortened at random at most, so that
	// what was loaded together does not expire together. Default: 0, off.
	Jitter float64
}

// defaultRetryAfter lets a source that is down have two requests a minute for each key.
const defaultRetryAfter = 30 * time.Second

// MaxETagBytes is how long an ETag can be.
const MaxETagBytes = 1024

// resolve returns a filled and validated copy of o, which may be nil.
func (o *LoadOptions) resolve(b *Bucket) (f LoadOptions, err error) {
	if o != nil {
		f = *o
	}
	if f.TTL, err = lifetime(f.TTL, b.defaultTTL); err != nil {
		return f, err
	}
	if f.RetryAfter == 0 {
		f.RetryAfter = defaultRetryAfter
	}
	if f.RetryAfter < -1 || min(f.StaleFor, f.SoftTimeout, f.HardTimeout, f.NegativeTTL) < 0 {
		return f, fmt.Errorf("%w: a load option is negative", ErrInvalidTTL)
	}
	if !(f.RefreshAhead >= 0 && f.RefreshAhead <= 1 && f.Jitter >= 0 && f.Jitter <= 1) {
		return f, fmt.Errorf("%w: RefreshAhead or Jitter is not between 0 and 1", ErrInvalidTTL)
	}
	return f, nil
}

// Load is one run of a loader: what the loader can know, and what it can say beside its result. It belongs to
// the loader while that runs.
type Load struct {
	Key string

	// Old is the entry that is to be replaced, stale or about to be, if Found. Its ETag, Written and Loaded
	// serve a conditional request to the source.
	Old   Entry
	Found bool

	// NotModified, set to true, says that Old is still right: its value is fresh from now on, and what the
	// loader returns does not matter. It is an error if nothing was Found.
	NotModified bool

	// NoStore, set to true, hands the result to those who wait and does not store it.
	NoStore bool

	// TTL and StaleFor are those of the LoadOptions, with defaults filled in; the loader may change them.
	TTL, StaleFor time.Duration

	// ETag is kept with the value for the next run. At most MaxETagBytes bytes. With NotModified the old one
	// stays if this is empty.
	ETag string

	// Tags are kept with the value; see Bucket.WithTags, whose tags they are at first. The tags hold as of
	// the beginning of the load: an InvalidateTag that comes while it runs is not lost.
	Tags []string
}

// LoadResult says where the value of a GetOrLoad comes from.
type LoadResult struct {
	Stale bool  // the value is not fresh any more: it is being loaded anew, or that failed
	Err   error // why the last load failed, if the value is served because of that and this call waited for it
}

// Loader fetches the value of l.Key from its source. ctx carries the values of the first caller's context but
// not its end, because others may wait too; it ends with Close. An error that is ErrNotFound says that there
// is no such thing.
//
// A loader may use the cache, but not GetOrLoad of the same key, which would wait for itself.
type Loader = func(ctx context.Context, l *Load) (any, error)

// GetOrLoad reads the value of key into dst, as Get does. If it is absent it is loaded, and stored for the
// lifetime that opts say; nil opts are the defaults. However many callers wait for a key, the loader runs
// once. A value that is stale is served at once and loaded anew in the background. A result that came after
// a Set or Delete of the same key is handed to those who wait but not stored: it may be older.
//
// The error is ErrNotFound if the loader says so, or said so within NegativeTTL; that of ctx, which ends the
// waiting but not the load; or that of the loader, for which errors.Is works, if there is nothing to serve
// instead. A loader that panics or calls runtime.Goexit has failed. That the cache itself cannot be read or
// written is no error: it is a miss, counted in LoadStats and told as EventLoadFailed. If dst does not fit,
// the value is stored and there is an error. A stored value that does not fit dst is taken for absent; after an error dst may
// hold a part of it. A nil ctx is context.Background.
//
// In a DB that is open for reading only nothing is stored.
func (b *Bucket) GetOrLoad(ctx context.Context, key string, dst any, load Loader, opts *LoadOptions) (LoadResult, error) {
	r, done, err := b.hit(key, opts)
	switch {
	case err != nil:
	case !done:
		return b.load(ctx, key, r, dst, decodeValue, load, opts)
	default:
		if err = decodeValue(r.value, dst); errors.Is(err, ErrMismatch) {
			b.mismatched(key, &r, err)
			return b.load(ctx, key, r, dst, decodeAnew, load, opts)
		}
		b.counted(key, &r)
		b.slid(key, &r)
	}
	return LoadResult{}, b.fail("load", key, err)
}

// given returns ctx, or the background where it is nil.
func given(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// hit is the way of a value that is fresh and need not be looked at further, but for whether it fits.
func (b *Bucket) hit(key string, opts *LoadOptions) (r reading, done bool, err error) {
	if r, err = b.look(key); err != nil {
		return r, true, err
	}
	return r, r.live && (opts == nil || opts.RefreshAhead == 0), nil
}

// mismatched counts and tells that a value did not fit, and makes a miss of it.
func (b *Bucket) mismatched(key string, r *reading, err error) {
	r.state = state{fresh: r.fresh}
	b.db.counts.loadsMismatched.Add(1)
	b.db.events.tell(Event{Kind: EventLoadFailed, Bucket: b.name, Key: key, Detail: "what is stored does not fit and is loaded anew", Err: err})
}

// look reads a key. That the cache cannot be read is a miss.
func (b *Bucket) look(key string) (r reading, err error) {
	if r, err = b.read(key); errors.Is(r.damage, ErrUnavailable) {
		err = r.damage
	}
	if err == nil || errors.Is(err, ErrClosed) || errors.Is(err, ErrInvalidKey) || errors.Is(err, ErrInvalidName) {
		return r, err
	}
	b.loadFailed(key, "the cache cannot be read", err)
	return reading{}, nil
}

// load is GetOrLoad beyond hit. r is what was found, and decode reads a value into dst.
func (b *Bucket) load(ctx context.Context, key string, r reading, dst any, decode func([]byte, any) error, load Loader, opts *LoadOptions) (LoadResult, error) {
	o, err := opts.resolve(b)
	if err != nil {
		return LoadResult{}, b.fail("load", key, err)
	}
	start := func(ctx context.Context, fs []*flight) { fs[0].run(ctx, &o, load) }
	take := func(value []byte) error {
		err := decode(value, dst)
		if errors.Is(err, ErrMismatch) {
			decode = decodeAnew
		}
		return err
	}
	result, err := b.fetch(given(ctx), key, r, &o, start, take, func(r *reading) error { return r.fits(dst) })
	return result, b.fail("load", key, err)
}

// fetch serves one key: with what was found, or by a flight that start begins, or by one that is under way. take gets the
// value, and fits says whether it could. A stored value that take refuses as a mismatch is a miss.
func (b *Bucket) fetch(ctx context.Context, key string, r reading, o *LoadOptions, start func(context.Context, []*flight),
	take func([]byte) error, fits func(*reading) error) (LoadResult, error) {
	missed, anew := false, false
	for {
		switch plan := b.plan(&r, o); plan {
		case serveNegative:
			b.negativeHit(key)
			return LoadResult{}, ErrNotFound
		case serveFresh, serveAnyway, serveAndLoad:
			err := take(r.value)
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
				b.refresh(ctx, []*flight{{b: b, key: key, stale: r}}, start)
			}
			b.served(key, &r, nil)
			return LoadResult{Stale: !r.live}, err
		default:
			if b.isStale(&r) { // it may have to be served after all
				held := r
				held.live = true
				if err := fits(&held); errors.Is(err, ErrMismatch) {
					b.mismatched(key, &r, err)
				}
			}
		}
		if err := ctx.Err(); err != nil {
			b.missed(key, &missed)
			return LoadResult{}, err
		}
		if !b.isStale(&r) {
			b.missed(key, &missed)
		}
		f, own := b.board(ctx, key, r)
		if own {
			if !b.db.loads.begin(func() { start(b.db.loads.ctxOf(ctx), []*flight{f}) }) {
				f.land(nil, ErrClosed)
			}
		}
		value, result, again, err := b.wait(ctx, f, &r, o, time.Now())
		if !again {
			if !result.Stale {
				b.missed(key, &missed)
			}
			if err == nil {
				err = take(value)
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
		b.counted(key, &reading{})
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

func (b *Bucket) plan(r *reading, o *LoadOptions) servePlan {
	if r.live && o.RefreshAhead == 0 {
		return serveFresh
	}
	if !r.held {
		return serveNothing
	}
	t := r.traits()
	now := millis(b.db.clock.now())
	switch {
	case r.negative:
		return serveNegative
	case r.live:
		since := t.loaded
		if since == 0 {
			since = r.header.written
		}
		if t.retry > now || !isPast(since, r.header.freshUntil, now, o.RefreshAhead) {
			return serveFresh
		}
		return serveAndLoad
	case t.retry > now:
		return serveAnyway
	case o.SoftTimeout > 0:
		return serveNothing // but not without end
	}
	return serveAndLoad
}

// wait waits for a flight, and falls back upon what was found before, as long as that may be served. again means that what
// the flight brought was invalidated before this request came, or that it failed because the request that began it has ended. The time limits count from began.
func (b *Bucket) wait(ctx context.Context, f *flight, r *reading, o *LoadOptions, began time.Time) (value []byte, result LoadResult, again bool, err error) {
	joined := b.db.revision()
	landed := false
	select {
	case <-f.done: // first of all, also where the time is over
		landed = true
	default:
	}
	for !landed {
		stale := b.isStale(r)
		limit, left := o.HardTimeout, NoExpiry
		if stale {
			limit, left = o.SoftTimeout, remaining(b.db.clock.now(), r.header.goneAt)
		}
		if limit > 0 {
			left = min(left, limit-time.Since(began))
		}
		switch {
		case left > 0:
		case stale && b.isStale(r):
			b.served(f.key, r, nil)
			return r.value, LoadResult{Stale: true}, false, nil
		case !stale:
			return nil, result, false, fmt.Errorf("the load takes longer than %v: %w", limit, context.DeadlineExceeded)
		}
		var over <-chan time.Time
		if left != NoExpiry {
			timer := time.NewTimer(max(left, 0))
			defer timer.Stop() // the loop runs three times at most
			over = timer.C
		}
		select {
		case <-f.done:
			landed = true
		case <-ctx.Done():
			return nil, result, false, ctx.Err()
		case <-over:
		}
	}
	switch {
	case f.err == nil && f.outdated(joined), f.strange && ctx.Err() == nil:
		return nil, result, true, nil
	case errors.Is(f.err, context.Canceled) && b.db.loads.ctx.Err() != nil:
		return nil, result, false, ErrClosed
	case f.err == nil, errors.Is(f.err, ErrNotFound):
		return f.value, result, false, f.err
	case b.isStale(r):
		b.served(f.key, r, f.err)
		return r.value, LoadResult{Stale: true, Err: f.err}, false, nil
	}
	return nil, result, false, f.err
}

// isStale reports whether what was found before may be served for want of something better.
func (b *Bucket) isStale(r *reading) bool {
	return r.held && !r.negative && b.db.stateOf(&r.header, r.options).held
}

// negativeHit counts and tells that a request was answered by what is remembered of ErrNotFound.
func (b *Bucket) negativeHit(key string) {
	b.db.counts.negativeHits.Add(1)
	b.note(EventNegative, key)
}

// served counts and tells that a value was served that is not known to be right any more.
func (b *Bucket) served(key string, r *reading, err error) {
	b.counted(key, &reading{state: state{live: true}, file: r.file})
	if r.live {
		return
	}
	b.db.counts.stale.Add(1)
	if b.db.events.wants(EventStale) {
		b.db.events.tell(Event{Kind: EventStale, Bucket: b.name, Key: key, Err: err})
	}
}

// loadFailed tells of a failure of the cache that a load went on without.
func (b *Bucket) loadFailed(key, detail string, err error) {
	b.db.counts.loadCacheErrors.Add(1)
	b.db.events.tell(Event{Kind: EventLoadFailed, Bucket: b.name, Key: key, Detail: detail, Err: err})
}
