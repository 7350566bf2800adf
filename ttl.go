package keepcache

import (
	"fmt"
	"math"
	"time"

	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
)

// KeepTTL as the lifetime of an Update or a CompareAndSwap keeps that of a live entry. Everywhere else it is
// ErrInvalidTTL, as any negative lifetime.
const KeepTTL = time.Duration(math.MinInt64)

// lifetime resolves the ttl argument of a call: 0 is the default of the bucket.
func lifetime(ttl, byDefault time.Duration) (time.Duration, error) {
	switch {
	case ttl == KeepTTL:
		return 0, fmt.Errorf("%w: KeepTTL is for Update and CompareAndSwap", ErrInvalidTTL)
	case ttl < 0:
		return 0, fmt.Errorf("%w: %v is negative", ErrInvalidTTL, ttl)
	case ttl == 0:
		return byDefault, nil
	}
	return ttl, nil
}

// slidingMillis returns the lifetime that reads give an entry anew, in milliseconds, or 0 if they do not.
func (b *Bucket) slidingMillis(ttl time.Duration) int64 {
	if !b.sliding || ttl == NoExpiry {
		return 0
	}
	return format.Span(ttl)
}

// slid prolongs the life of a live entry that was read.
func (b *Bucket) slid(key string, r *engine.Reading) {
	if b.sliding && !b.db.options.ReadOnly {
		b.db.engine.Slide(&b.at, key, r)
	}
}
