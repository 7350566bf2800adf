package keepcache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keepcache/keepcache/internal/format"
)

// LoadOptions say how GetOrLoad keeps what it loads, and when it loads anew. The zero value is a plain cache:
// the default lifetime of the bucket, nothing served stale, no time limits. docs/loading.md draws the timeline.
type LoadOptions struct {
	// TTL is for how long a loaded value is fresh. Default: 0, the default of the bucket.
	TTL time.Duration

	// StaleFor is for how long after that the value may still be served, while it is loaded anew or because
	// that fails (RFC 5861: stale-while-revalidate and stale-if-error in one). Default: 0, not at all.
	StaleFor time.Duration

	// RetryAfter is how long after a failed load nobody tries again. Meanwhile the value that is there is served; that
	// survives a restart. Where there is none, the error is remembered, in memory, and returned as a *RememberedError.
	// -1 tries with every request. Default: 0, which means 30 s where there is a value to serve, and 1 s where there is none.
	RetryAfter time.Duration

	// RefreshAhead is the part of the lifetime, between 0 and 1, after which the first request for a fresh
	// value has it loaded anew in the background. Default: 0, off.
	RefreshAhead float64

	// SoftTimeout is for how long a request waits for a load although it has a stale value to serve. The load
	// goes on, and what it brings is stored. Default: 0, the stale value is served at once.
	SoftTimeout time.Duration

	// HardTimeout is for how long a request waits for a load when it has nothing to serve; it then fails with
	// context.DeadlineExceeded. The load goes on, and what it brings is stored. Default: 0, as long as the
	// request's ctx and LoadTimeout let it.
	HardTimeout time.Duration

	// LoadTimeout is for how long a loader may run. After that its ctx ends, and the load has failed with
	// context.DeadlineExceeded, whether the loader heeds that or not: those who wait get the error, another load of the
	// key can begin, and what the loader still brings is dropped. -1 sets no limit. Default: 0, which means 2 minutes.
	LoadTimeout time.Duration

	// NegativeTTL is for how long it is remembered that the loader returned ErrNotFound. Default: 0, not at all.
	NegativeTTL time.Duration

	// Jitter is the part of the lifetime, between 0 and 1, by which it is shortened at random at most, so that
	// what was loaded together does not expire together. Default: 0, off.
	Jitter float64
}

const (
	// retryStale lets a source that is down have two requests a minute for each key that has a value to serve.
	retryStale = 30 * time.Second

	// retryAbsent is short, because each error that is remembered is one that somebody sees. It is the least that RFC 9520
	// demands of those who remember that a name could not be resolved, and still bounds what a source that is down has to bear.
	retryAbsent = time.Second

	// defaultLoadTimeout is longer than what clients of sources wait for by themselves, which is a minute at most as a rule, so that
	// their error comes first, which says more.
	defaultLoadTimeout = 2 * time.Minute
)

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
	if f.LoadTimeout == 0 {
		f.LoadTimeout = defaultLoadTimeout
	}
	if min(f.RetryAfter, f.LoadTimeout) < -1 || min(f.StaleFor, f.SoftTimeout, f.HardTimeout, f.NegativeTTL) < 0 {
		return f, fmt.Errorf("%w: a load option is negative", ErrInvalidTTL)
	}
	if !(f.RefreshAhead >= 0 && f.RefreshAhead <= 1 && f.Jitter >= 0 && f.Jitter <= 1) {
		return f, fmt.Errorf("%w: RefreshAhead or Jitter is not between 0 and 1", ErrInvalidTTL)
	}
	return f, nil
}

// retryAfter returns for how long a failure holds, where there is a value to serve or none; 0 is not at all.
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

// waitsAfter reports whether an entry with those options is not to be loaded anew yet, because a load of it has failed.
func (o *LoadOptions) waitsAfter(options []byte, now int64) bool {
	return o.RetryAfter >= 0 && format.ReadOptions(options).RetryAt > now
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
// not its end, because others may wait too; it ends with Close, and after LoadOptions.LoadTimeout, with
// context.DeadlineExceeded. An error that is ErrNotFound says that there is no such thing.
//
// A loader may use the cache, also GetOrLoad of other keys, of any cache. It has to hand its ctx on to that: by it
// loads that wait for each other are found, and the one that would close such a ring gets ErrLoadCycle.
type Loader = func(ctx context.Context, l *Load) (any, error)

// shorten takes a random part of a lifetime off.
func shorten(ttl time.Duration, jitter float64) time.Duration {
	if jitter == 0 || ttl == NoExpiry {
		return ttl
	}
	return max(ttl-time.Duration(min(rand.Float64()*jitter, 1-1e-9)*float64(ttl)), 1)
}
