package keepcache

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Latencies count how long operations took, of a sample of them. Element i counts those that took less than
// LatencyBound(i) and not less than the bound before it.
type Latencies struct {
	Counts [26]uint64
	Time   time.Duration // of all of the sample together
}

// LatencyBound returns the upper bound of element i of Latencies.Counts: 128 ns, and each the double of the one before
// it. The last element, from 2.1 s on, has none and gives NoExpiry.
func LatencyBound(i int) time.Duration {
	if i >= len(Latencies{}.Counts)-1 {
		return NoExpiry
	}
	return 128 * time.Nanosecond << i
}

// Count returns how many operations are in the sample.
func (l Latencies) Count() (n uint64) {
	for _, c := range l.Counts {
		n += c
	}
	return n
}

// Quantile returns the bound below which the given part of the sample lies, from 0 to 1: an upper estimate, at most the
// double of the truth. It returns 0 for an empty sample.
func (l Latencies) Quantile(part float64) time.Duration {
	all := l.Count()
	if all == 0 {
		return 0
	}
	n := uint64(0)
	for i, c := range l.Counts {
		if n += c; float64(n) >= part*float64(all) {
			return LatencyBound(i)
		}
	}
	return NoExpiry
}

// Sub returns what came since an earlier snapshot.
func (l Latencies) Sub(earlier Latencies) Latencies {
	for i := range l.Counts {
		l.Counts[i] -= earlier.Counts[i]
	}
	l.Time -= earlier.Time
	return l
}

// sampleEvery is of how many operations one is timed. Looking at the clock twice takes about 90 ns, so that is less
// than a nanosecond for each.
const sampleEvery = 128

// latency samples how long operations take.
type latency struct {
	counts [len(Latencies{}.Counts)]atomic.Uint64
	time   atomic.Int64
}

// begin returns when an operation begins if it is to be one of the sample, as the first one is, and else the zero time.
func (l *latency) begin() (at time.Time) {
	if rand.Uint32()%sampleEvery == 0 || l.time.Load() == 0 {
		at = time.Now()
	}
	return at
}

// end enters an operation that began at the given time.
func (l *latency) end(at time.Time) {
	if !at.IsZero() {
		l.enter(time.Since(at))
	}
}

func (l *latency) enter(took time.Duration) {
	took = max(took, 0)
	i := bits.Len64(uint64(took / (128 * time.Nanosecond)))
	l.counts[min(i, len(l.counts)-1)].Add(1)
	l.time.Add(int64(took))
}

func (l *latency) snapshot() (s Latencies) {
	for i := range l.counts {
		s.Counts[i] = l.counts[i].Load()
	}
	s.Time = time.Duration(l.time.Load())
	return s
}
