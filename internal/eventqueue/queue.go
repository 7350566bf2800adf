// Package eventqueue has a handler called for events one by one, in a goroutine of its own, where whoever brings the
// events about cannot call it.
package eventqueue

import (
	"sync"
	"time"

	"github.com/keepcache/keepcache/internal/foreign"
	"github.com/keepcache/keepcache/internal/ground"
)

// Queue holds events that happen where they cannot be told: in commits and sweeps, and in calls of a handler, whose
// recursion could have no end. It calls Handle for them in their order, in a goroutine that exists only while some
// wait.
//
// Its size is bounded. Where it is full, the next event waits for room, so a slow handler slows down what brings the
// events about. A handler that has not returned for a second may be waiting for just that: what finds no room from then
// on is dropped.
//
// Set the exported fields before the first use. The methods Hurry and Close of a nil queue do nothing. All methods may
// be called from any goroutine.
type Queue[E any] struct {
	Handle  func(E)
	Cost    func(*E) int64   // what an event takes, in bytes
	Most    int64            // bytes of all that wait
	NoWait  bool             // nobody waits for room: who has another event may be the handler itself
	Dropped func(events int) // is told how many were dropped, now and then
	Ground  *ground.Ground   // where the goroutine is started

	order sync.Mutex // held while an event is put in, so that they come in the order in which they happened

	mu      sync.Mutex    // protects what follows
	waiting []E           // the oldest first
	bytes   int64         // of these, and of the one that is being told
	telling bool          // there is a goroutine that tells
	stuck   bool          // the handler did not return for patience when there was no room; until half is free
	hurried bool          // the cache is being closed
	left    time.Duration // for which Close waits for the handler, all in all
	closed  bool          // nothing more is told
	dropped int           // since Dropped was told
	warned  bool          // Dropped was told of some
	moved   chan struct{} // closed when an event has been told, or there is another reason to look; nil if nobody waits
}

// patience is how long a handler may take for an event before nobody waits for it any more.
const patience = time.Second

// Put has Handle called for an event. The caller may hold locks, but none that Handle takes. With noWait it does not
// wait for room.
func (q *Queue[E]) Put(e E, noWait bool) {
	q.order.Lock()
	defer q.order.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.full(&e) && !q.stuck && !q.NoWait && !noWait {
		q.stuck = !q.moves()
	}
	if q.closed || q.full(&e) || q.NoWait && q.hurried {
		q.dropped++
		return
	}
	q.waiting = append(q.waiting, e)
	q.bytes += q.Cost(&e)
	if !q.telling {
		q.telling = true
		q.Ground.Go(q.tell)
	}
}

// full reports whether there is no room for an event. One always has room, however large.
func (q *Queue[E]) full(e *E) bool { return q.bytes > 0 && q.bytes+q.Cost(e) > q.Most }

// moves waits until an event has been told and reports whether one was before the patience was over. It lets go of the
// lock meanwhile.
func (q *Queue[E]) moves() bool {
	wait := patience
	if q.hurried {
		wait = min(patience, q.left)
		begun := time.Now()
		defer func() { q.left -= time.Since(begun) }()
	}
	if q.moved == nil {
		q.Ground.Do(func() { q.moved = make(chan struct{}) })
	}
	moved := q.moved
	q.mu.Unlock()
	defer q.mu.Lock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-moved:
		return true
	case <-timer.C:
		return false
	}
}

// move wakes all who wait in moves.
func (q *Queue[E]) move() {
	if q.moved != nil {
		close(q.moved)
		q.moved = nil
	}
}

// tell tells of what waits, until nothing does.
func (q *Queue[E]) tell() {
	done := false
	defer func() {
		if !done {
			go q.tell() // the handler has ended the goroutine, as a test that fails does
		}
	}()
	for q.tellNext() {
	}
	done = true
}

// tellNext tells of one event, and reports false if none waits.
func (q *Queue[E]) tellNext() bool {
	q.mu.Lock()
	if len(q.waiting) == 0 || q.closed {
		q.telling, q.waiting = false, nil
		q.move()
		q.mu.Unlock()
		return false
	}
	e := q.waiting[0]
	q.waiting[0] = *new(E) // which keeps its key alive
	q.waiting = q.waiting[1:]
	q.mu.Unlock()
	defer q.told(&e)
	foreign.Handle(func() { q.Handle(e) })
	return true
}

// told makes room after an event has been told.
func (q *Queue[E]) told(e *E) {
	q.mu.Lock()
	q.bytes -= q.Cost(e)
	dropped := 0
	if q.bytes <= q.Most/2 || q.NoWait && !q.warned && q.dropped > 0 {
		q.stuck, q.warned = false, q.warned || q.dropped > 0
		dropped, q.dropped = q.dropped, 0
	}
	q.move()
	q.mu.Unlock()
	q.logDropped(dropped)
}

func (q *Queue[E]) logDropped(n int) {
	if n > 0 {
		q.Dropped(n)
	}
}

// Hurry bounds how long is waited from now on, all in all, because the cache is being closed.
func (q *Queue[E]) Hurry(most time.Duration) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hurried, q.left = true, most
	q.move()
}

// Close waits until what waits has been told, unless the handler takes too long for that. Nothing is told from then on;
// the last call of the handler may still be under way.
func (q *Queue[E]) Close() {
	if q == nil {
		return
	}
	q.mu.Lock()
	for q.telling && q.moves() {
	}
	q.closed = true
	dropped := q.dropped + len(q.waiting)
	q.waiting, q.dropped = nil, 0
	q.mu.Unlock()
	q.logDropped(dropped)
}
