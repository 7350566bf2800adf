package keepcache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/ground"
)

// loads is what all loads of a DB share.
type loads struct {
	ctx      context.Context // ends with Close
	stop     context.CancelFunc
	slots    chan struct{} // holds a token for each background load
	stuck    atomic.Int64  // loaders begun in the background that have not returned, although their load has passed LoadTimeout
	failures failures
	flights  flights

	mu     sync.Mutex // protects what follows
	closed bool
	n      int           // loads that are under way; no WaitGroup, which must not be used inside and outside of a bubble
	over   chan struct{} // closed when the last of them has ended after close
}

const (
	// backgroundLoads bounds the loads for which nobody waits. One that finds no room is not lost: the next
	// request for the key begins it.
	backgroundLoads = 64

	// mostStuck bounds the loaders begun in the background that are past LoadTimeout and have not returned. Each has a
	// goroutine, with what its loader holds. It is well above backgroundLoads, so that one source that hangs does not end the
	// refreshing of others before half an hour at the default of LoadTimeout.
	mostStuck = 1000

	// closeGrace is how long Close waits for loaders that do not heed the end of their ctx.
	closeGrace = 5 * time.Second
)

func newLoads(memoryBytes int64, g *ground.Ground) *loads {
	l := &loads{slots: make(chan struct{}, backgroundLoads), over: make(chan struct{})}
	l.failures.most = min(max(memoryBytes/16, leastFailureBytes), mostFailureBytes)
	l.failures.ground = g
	l.ctx, l.stop = ground.NewContext()
	return l
}

// begin runs fn in a goroutine of its own, and reports false after close. What a handler of events begins is told of as
// what the handler does itself.
func (l *loads) begin(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.n++
	inherits := inHandler()
	go func() {
		defer l.end()
		if inherits {
			forHandler(fn)
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

// close ends the loads and waits for them, but not for ever. inside says that it is called in a bubble of testing/synctest
// and the cache was opened outside: then their end can only be asked for. One who waits there for a channel of another place keeps the
// clock of the bubble from going on, for which a loader in it may be waiting.
func (l *loads) close(inside bool) {
	l.mu.Lock()
	l.closed = true
	idle := l.n == 0
	l.mu.Unlock()
	l.stop()
	defer l.failures.close()
	if idle {
		return
	}
	if inside {
		poll(closeGrace, l.idle)
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

// poll looks again and again whether something is done, for the given time, and reports whether it is.
func poll(most time.Duration, done func() bool) bool {
	for pause := pollFirst; !done(); pause = min(2*pause, pollMost) {
		if most <= 0 {
			return false
		}
		time.Sleep(min(pause, most))
		most -= pause
	}
	return true
}

// Who cannot wait for something because that may be in another place, see inBubble, looks at it in such intervals. A clock of a bubble
// does not go on while somebody in it has something to do, so the first may be short.
const (
	pollFirst = time.Microsecond
	pollMost  = time.Millisecond
)

// inBubble reports whether the one time was read in a bubble of testing/synctest and the other, of about the same moment, outside.
// The clocks of bubbles begin in the year 2000; nothing else tells where a goroutine is.
func inBubble(inside, outside time.Time) bool {
	return outside.Round(0).Sub(inside.Round(0)) > 5*365*24*time.Hour
}
