package keepcache

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// LoadStats say what loads did since Open.
type LoadStats struct {
	Loads        uint64        // runs of a loader that came to an end, the failed ones included; of GetOrLoadMany one a key
	Failures     uint64        // those of them that failed; ErrNotFound is no failure
	Time         time.Duration // spent in them
	Histogram    LoadHistogram // how long they took
	Refreshes    uint64        // loads begun in the background, for a value that was stale or about to be
	Stale        uint64        // requests served with a stale value
	NegativeHits uint64        // requests answered with ErrNotFound without a load
	Discarded    uint64        // results not stored, because the key was written or removed meanwhile, or they came after LoadTimeout
	Mismatched   uint64        // stored values that did not fit the destination, and were loaded anew
	CacheErrors  uint64        // times that the cache could not be read or written around a load, which went on
	Remembered   uint64        // requests answered with the error of a load that had failed within RetryAfter
	TimedOut     uint64        // loads that failed because they passed LoadTimeout, also where the loader said so itself; of GetOrLoadMany one a key
	Skipped      uint64        // refreshes not begun, of GetOrLoadMany one a key, because 64 loads in the background were under way, or 1,000 loaders of such were past LoadTimeout
	Running      int64         // loads under way now, of GetOrLoadMany one a key
	Abandoned    int64         // loaders that have not returned, although their load has passed LoadTimeout: each holds a goroutine
}

// LoadHistogram counts by duration. Element i counts what took less than LoadHistogramBound(i) and not less than the
// bound before it.
type LoadHistogram [24]uint64

// LoadHistogramBound returns the upper bound of element i of a LoadHistogram: 1 µs, and each the double of the one
// before it. The last element, from 4 s on, has none and gives NoExpiry.
func LoadHistogramBound(i int) time.Duration {
	if i >= len(LoadHistogram{})-1 {
		return NoExpiry
	}
	return time.Microsecond << i
}

// loadCounters are what loads count.
type loadCounters struct {
	loads, loadFailures, loadTime, refreshes, stale, negativeHits, loadsDiscarded, loadsMismatched, loadCacheErrors atomic.Uint64
	remembered, loadsTimedOut, refreshesSkipped                                                                     atomic.Uint64
	running, abandoned                                                                                              atomic.Int64

	loadHistogram [len(LoadHistogram{})]atomic.Uint64
}

// loaded counts a load that came to its end.
func (c *loadCounters) loaded(took time.Duration, failed bool) {
	c.loads.Add(1)
	if failed {
		c.loadFailures.Add(1)
	}
	c.loadTime.Add(uint64(max(took, 0)))
	i := bits.Len64(uint64(max(took, 0) / time.Microsecond))
	c.loadHistogram[min(i, len(c.loadHistogram)-1)].Add(1)
}

func (c *loadCounters) snapshot() LoadStats {
	s := LoadStats{
		Loads:        c.loads.Load(),
		Failures:     c.loadFailures.Load(),
		Time:         time.Duration(c.loadTime.Load()),
		Refreshes:    c.refreshes.Load(),
		Stale:        c.stale.Load(),
		NegativeHits: c.negativeHits.Load(),
		Discarded:    c.loadsDiscarded.Load(),
		Mismatched:   c.loadsMismatched.Load(),
		CacheErrors:  c.loadCacheErrors.Load(),
		Remembered:   c.remembered.Load(),
		TimedOut:     c.loadsTimedOut.Load(),
		Skipped:      c.refreshesSkipped.Load(),
		Running:      c.running.Load(),
		Abandoned:    c.abandoned.Load(),
	}
	for i := range c.loadHistogram {
		s.Histogram[i] = c.loadHistogram[i].Load()
	}
	return s
}
