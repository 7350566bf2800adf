package keepcache

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/failures"
	"github.com/keepcache/keepcache/internal/foreign"
	"github.com/keepcache/keepcache/internal/ground"
)

// loads is the state that all loads of a DB share.
type loads struct {
	ctx      context.Context // ends with Close
	stop     context.CancelFunc
	slots    chan struct{} // holds a token for each background load
	stuck    atomic.Int64  // background loaders that run longer than LoadTimeout
	failures failures.Memory
	flights  flights

	mu     sync.Mutex // protects what follows
	closed bool
	n      int           // loads under way; a WaitGroup must not be used across bubbles
	over   chan struct{} // closed when the last of them has ended after close
}

const (
	// backgroundLoads bounds the loads for which nobody waits. If there is no room, the next request for the key tries
	// again.
	backgroundLoads = 64

	// mostStuck bounds the background loaders that run longer than LoadTimeout. Each has a goroutine and what its loader
	// holds. It is well above backgroundLoads: with the default LoadTimeout, one source that hangs does not stop the
	// refreshing of others within half an hour.
	maxStuck = 1000

	// closeGrace is how long Close waits for loaders that do not heed the end of their context.
	closeGrace = 5 * time.Second
)

func newLoads(memoryBytes int64, g *ground.Ground) *loads {
	l := &loads{slots: make(chan struct{}, backgroundLoads), over: make(chan struct{})}
	l.failures.Init(memoryBytes, g)
	l.ctx, l.stop = ground.NewContext()
	return l
}

// begin runs fn in a goroutine of its own. It reports false after close. What a handler of events begins counts as done
// by the handler.
func (l *loads) begin(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.n++
	inherits := foreign.InHandler()
	go func() {
		defer l.end()
		if inherits {
			foreign.ForHandler(fn)
		} else {
			fn()
		}
	}()
	return true
}

// end counts a load as ended.
func (l *loads) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n--; l.n == 0 && l.closed {
		close(l.over)
	}
}

// close ends the loads and waits for them, for at most closeGrace. inside is true if it is called in a bubble of
// testing/synctest and the cache was opened outside. Then it polls: a wait for a channel of another bubble would stop
// the clock of this one, and a loader in here may be waiting for the clock.
func (l *loads) close(inside bool) {
	l.mu.Lock()
	l.closed = true
	idle := l.n == 0
	l.mu.Unlock()
	l.stop()
	defer l.failures.Close()
	if idle {
		return
	}
	if inside {
		ground.Poll(closeGrace, l.idle)
		return
	}
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-l.over:
	case <-timer.C:
	}
}

// idle reports whether no load is under way.
func (l *loads) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n == 0
}

// LoadStats count what loads did since Open. In GetOrLoadMany each key counts as one load.
type LoadStats struct {
	Loads        uint64    // loads that ended, failed ones included
	Failures     uint64    // loads that failed; ErrNotFound is not a failure
	Latencies    Latencies // how long they took: all of them, and no sample
	Refreshes    uint64    // loads in the background, for a value that was stale or about to be
	Stale        uint64    // requests served with a stale value
	NegativeHits uint64    // requests answered with ErrNotFound without a load
	Discarded    uint64    // results not stored, because the key was written meanwhile or LoadTimeout was over
	Mismatched   uint64    // stored values that did not fit the destination and were loaded again
	CacheErrors  uint64    // failures to read or write the cache around a load, which went on
	Remembered   uint64    // requests answered with a remembered error
	TimedOut     uint64    // loads that failed because they ran longer than LoadTimeout
	// refreshes not begun: 64 were under way, or 1,000 of their loaders ran longer than LoadTimeout
	Skipped   uint64
	Running   int64 // loads under way now
	Abandoned int64 // loaders that run longer than LoadTimeout, each of which holds a goroutine
}

// loadCounters are the counters behind LoadStats.
type loadCounters struct {
	loads, loadFailures, refreshes, stale, negativeHits atomic.Uint64
	loadsDiscarded, loadsMismatched, loadCacheErrors    atomic.Uint64
	remembered, loadsTimedOut, refreshesSkipped         atomic.Uint64
	running, abandoned                                  atomic.Int64

	loadLatency latency
}

// loaded counts a load that ended.
func (c *loadCounters) loaded(took time.Duration, failed bool) {
	c.loads.Add(1)
	if failed {
		c.loadFailures.Add(1)
	}
	c.loadLatency.enter(took)
}

func (c *loadCounters) snapshot() LoadStats {
	return LoadStats{
		Loads:        c.loads.Load(),
		Failures:     c.loadFailures.Load(),
		Latencies:    c.loadLatency.snapshot(),
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
}

// mostNested bounds how deep loads may nest. Without it, a loader that asks for a key whose loader asks for another
// one, and so on, would take all memory.
const maxNested = 1000

// rings guards which runs wait for which flights, in all DBs of the process. A request within a loader registers before
// it waits, and so finds out whether it would close a ring. One lock is enough, because only loaders that load take it.
var rings struct{ mu sync.Mutex }

// errCycle returns ErrLoadCycle with the keys of the ring, or with the first and last ones of a long ring.
func errCycle(keys []string) error {
	const most = 8
	for i, key := range keys {
		keys[i] = errs.Quote(key)
	}
	if len(keys) > most {
		keys = append(append(keys[:most/2:most/2], "..."), keys[len(keys)-most/2:]...)
	}
	return fmt.Errorf("%w: %s", ErrLoadCycle, strings.Join(keys, " waits for "))
}

// canNest returns an error if loads are nested too deep for a request with this context to begin another.
func canNest(ctx context.Context, key string) error {
	if r := runOf(ctx); r != nil && r.depth >= maxNested {
		return fmt.Errorf("%w: more than %d loads are nested, the last one for %s", ErrLoadCycle, maxNested, errs.Quote(key))
	}
	return nil
}

// await registers that the loader of r is about to wait for a flight. The error is ErrLoadCycle if that flight waits
// for r already.
func (r *run) await(f *flight) error {
	rings.mu.Lock()
	defer rings.mu.Unlock()
	if ring := r.ringBy(f); ring != nil {
		return errCycle(ring)
	}
	r.waits = append(r.waits, f)
	return nil
}

// leave undoes await.
func (r *run) leave(f *flight) {
	rings.mu.Lock()
	defer rings.mu.Unlock()
	for i, w := range r.waits {
		if w == f {
			last := len(r.waits) - 1
			r.waits[i], r.waits[last] = r.waits[last], nil
			r.waits = r.waits[:last]
			return
		}
	}
}

// ringBy returns the keys of the ring that would close if r waited for f, or nil. The caller holds rings.mu.
func (r *run) ringBy(f *flight) []string {
	if f.run != r && len(f.run.waits) == 0 {
		return nil
	}
	from := map[*flight]*flight{f: nil} // which flight each was reached from
	for next := []*flight{f}; len(next) > 0; {
		at := next[len(next)-1]
		next = next[:len(next)-1]
		if at.run == r {
			keys := []string{at.key}
			for ; at != nil; at = from[at] {
				keys = append(keys, at.key)
			}
			// The way was walked backwards.
			for i, j := 1, len(keys)-1; i < j; i, j = i+1, j-1 {
				keys[i], keys[j] = keys[j], keys[i]
			}
			return keys
		}
		for _, w := range at.run.waits {
			if _, seen := from[w]; !seen && !w.landed() {
				from[w] = at
				next = append(next, w)
			}
		}
	}
	return nil
}
