package keepcache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keepcache/keepcache/internal/format"
)

// LoadOptions configure GetOrLoad: how it keeps what it loads, and when it loads again. The zero value is a plain
// cache: the default lifetime of the bucket, nothing served stale, no time limit but LoadTimeout. docs/loading.md draws
// the timeline.
type LoadOptions struct {
	// TTL is how long a loaded value is fresh. Default: 0, the default of the bucket.
	TTL time.Duration

	// StaleFor is how long after that the value may still be served, while it is loaded again or because that fails (RFC
	// 5861: stale-while-revalidate and stale-if-error in one). Default: 0, not at all.
	StaleFor time.Duration

	// RetryAfter is how long after a failed load nobody tries again. Meanwhile requests get the stale value, also after a
	// restart. If there is none, they get the error, as a *RememberedError, which is kept in memory. -1 tries with every
	// request. Default: 0, which means 30 s where there is a value to serve, and 1 s where there is none.
	RetryAfter time.Duration

	// RefreshAhead is the fraction of the lifetime, between 0 and 1, after which the first request for a fresh value loads
	// it again in the background. Default: 0, off.
	RefreshAhead float64

	// SoftTimeout is how long a request waits for a load although it has a stale value to serve. After that it gets the
	// stale value. The load goes on, and its result is stored. Default: 0, the stale value is served at once.
	SoftTimeout time.Duration

	// HardTimeout is how long a request waits for a load when it has nothing to serve. After that it fails with
	// context.DeadlineExceeded. The load goes on, and its result is stored. Default: 0, as long as the request's ctx and
	// LoadTimeout allow.
	HardTimeout time.Duration

	// LoadTimeout is how long a loader may run. Then its ctx ends and the load has failed with context.DeadlineExceeded,
	// whether the loader heeds that or not. Those who wait get the error, the key can be loaded again, and what the loader
	// still returns is dropped. -1 sets no limit. Default: 0, which means 2 minutes.
	LoadTimeout time.Duration

	// NegativeTTL is how long an ErrNotFound of the loader is remembered. Default: 0, not at all.
	NegativeTTL time.Duration

	// Jitter is the fraction of the lifetime, between 0 and 1, by which it is shortened at random at most. So what was
	// loaded together does not expire together. Default: 0, off.
	Jitter float64
}

const (
	// retryStale lets a source that is down get two requests a minute for each key that has a value to serve.
	retryStale = 30 * time.Second

	// retryAbsent is short, because somebody sees each remembered error. It is the least that RFC 9520 demands of
	// resolvers that remember failures, and still bounds the load on a source that is down.
	retryAbsent = time.Second

	// defaultLoadTimeout is longer than the timeouts that clients of sources have, which are a minute at most as a rule.
	// So their error comes first, which says more.
	defaultLoadTimeout = 2 * time.Minute
)

// MaxETagBytes is the longest ETag, in bytes.
const MaxETagBytes = 1024

// resolve returns a filled and validated copy of o, which may be nil.
func (o *LoadOptions) resolve(b *Bucket) (f LoadOptions, err error) {
	if o != nil {
		f = *o
	}
	if f.TTL, err = lifetime(f.TTL, b.defaultTTL); err != nil {
		return f, err
	}
	if f.LoadTimeout == 0 {
		f.LoadTimeout = defaultLoadTimeout
	}
	if min(f.RetryAfter, f.LoadTimeout) < -1 || min(f.StaleFor, f.SoftTimeout, f.HardTimeout, f.NegativeTTL) < 0 {
		return f, fmt.Errorf("%w: a duration of LoadOptions is negative", ErrInvalidOption)
	}
	if !(f.RefreshAhead >= 0 && f.RefreshAhead <= 1 && f.Jitter >= 0 && f.Jitter <= 1) {
		return f, fmt.Errorf("%w: RefreshAhead or Jitter is not between 0 and 1", ErrInvalidOption)
	}
	return f, nil
}

// retryAfter returns how long a failure holds; 0 is not at all. stale is true if there is a value to serve.
func (o *LoadOptions) retryAfter(stale bool) time.Duration {
	switch {
	case o.RetryAfter > 0:
		return o.RetryAfter
	case o.RetryAfter < 0:
		return 0
	case stale:
		return retryStale
	}
	return retryAbsent
}

// waitsAfter reports whether an entry with these options must not be loaded again yet, because a load of it failed.
func (o *LoadOptions) waitsAfter(options []byte, now int64) bool {
	return o.RetryAfter >= 0 && format.ReadOptions(options).RetryAt > now
}

// Load is one run of a loader: what the loader can know, and what it can say besides its result. It belongs to the
// loader while that runs.
type Load struct {
	Key string

	// Old is the entry that the load replaces, stale or about to be, if Found. Its ETag, WrittenAt and LoadedAt serve a
	// conditional request to the source.
	Old   Entry
	Found bool

	// NotModified, if the loader sets it, means that Old is still right: its value is fresh again, and what the loader
	// returns is ignored. It is an error if Found is false.
	NotModified bool

	// NoStore, if the loader sets it, hands the result to those who wait and stores nothing.
	NoStore bool

	// TTL and StaleFor are those of the LoadOptions, with defaults filled in. The loader may change them.
	TTL, StaleFor time.Duration

	// ETag is kept with the value for the next run: at most MaxETagBytes bytes. With NotModified, an empty one keeps the
	// old one.
	ETag string

	// Tags are kept with the value. They start as those of Bucket.WithTags. They hold as of the beginning of the load, so
	// an invalidation that comes while the loader runs is not lost.
	Tags []string
}

// LoadResult says where the value of a GetOrLoad comes from.
type LoadResult struct {
	Stale bool  // the value is stale: it is being loaded again, or that failed
	Err   error // why the load failed, if this call waited for it and got the stale value instead
}

// Loader fetches the value of l.Key from its source. It returns ErrNotFound, as it is or wrapped, if there is no such
// thing.
//
// ctx has the values of the first caller's context. It does not end with that, because others may wait too. It ends
// with Close, and with context.DeadlineExceeded after LoadOptions.LoadTimeout.
//
// A loader may use the cache, and may call GetOrLoad for other keys of any cache. It must pass its ctx to that: so
// loads that wait for each other are found, and the one that would close the ring gets ErrLoadCycle.
type Loader = func(ctx context.Context, l *Load) (any, error)

// shorten takes a random fraction off a lifetime.
func shorten(ttl time.Duration, jitter float64) time.Duration {
	if jitter == 0 || ttl == NoExpiry {
		return ttl
	}
	return max(ttl-time.Duration(min(rand.Float64()*jitter, 1-1e-9)*float64(ttl)), 1)
}
