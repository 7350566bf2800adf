package keepcache

import (
	"log/slog"
	"sync"
	"time"
	"unsafe"

	"github.com/keepcache/keepcache/internal/ground"
)

// lateKinds are the kinds of events that happen while commits or sweeps are kept from running. They wait in an event queue
// until they can be told outside of that, so that who is told may call whatever waits for a commit.
const lateKinds = EventExpire | EventEvict

// eventQueue holds events that happen where they cannot be told: in commits and sweeps, and in calls of a handler, whose recursion
// could have no end. It tells Options.Events of them one by one, in a goroutine of its own that there is only while some
// wait. Its size is bounded. Where it is full, who has another event waits for room: so a
// slow handler slows down what brings the events. A handler that has not returned for a while may be waiting for just
// that, and what finds no room then is dropped.
type eventQueue struct {
	path   string
	log    *slog.Logger
	handle func(Event)
	ground *ground.Ground
	most   int64 // bytes
	rash   bool  // nobody waits for room: who has another event may be the handler itself

	order sync.Mutex // held while an event is put in, so that they come in the order in which they happened

	mu      sync.Mutex    // protects what follows
	waiting []Event       // the oldest first
	bytes   int64         // of these, and of the one that is being told
	telling bool          // there is a goroutine that tells
	stuck   bool          // the handler did not return for handlerPatience when there was no room; until half is free
	hurried bool          // the cache is being closed
	left    time.Duration // for which Close waits for the handler, all in all
	closed  bool          // nothing more is told
	dropped uint64        // since it was logged
	warned  bool          // some were logged
	moved   chan struct{} // closed when an event has been told, or there is another reason to look; nil if nobody waits
}

const (
	queueBytes = 8 << 20 // some 30,000 events with short keys

	// ownQueueBytes is for the events that handlers bring about: some 4,000.
	ownQueueBytes = 1 << 20

	// handlerPatience is how long a handler may take for an event before nobody waits for it any more.
	handlerPatience = time.Second

	// queueLast is how long Close waits for a handler at the longest. To be told of all that a full event queue has, one may
	// take a third of a millisecond for each.
	queueLast    = 10 * time.Second
	ownQueueLast = time.Second
)

// cost is what an event takes in an event queue: half of the slice may be room for more.
func (e *Event) cost() int64 { return int64(2*unsafe.Sizeof(*e)) + int64(len(e.Key)) }

// put has an event told. The caller may hold locks, but none that telling takes. rash callers do not wait for room.
func (o *eventQueue) put(e Event, rash bool) {
	o.order.Lock()
	defer o.order.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.full(&e) && !o.stuck && !o.rash && !rash {
		o.stuck = !o.moves()
	}
	if o.closed || o.full(&e) || o.rash && o.hurried {
		o.dropped++
		return
	}
	o.waiting = append(o.waiting, e)
	o.bytes += e.cost()
	if !o.telling {
		o.telling = true
		o.ground.Go(o.tell)
	}
}

// full reports whether there is no room for an event. One always has room, however large.
func (o *eventQueue) full(e *Event) bool { return o.bytes > 0 && o.bytes+e.cost() > o.most }

// moves waits until an event has been told and reports whether one was before the patience was over. It lets go of the
// lock meanwhile.
func (o *eventQueue) moves() bool {
	patience := handlerPatience
	if o.hurried {
		patience = min(patience, o.left)
		begun := time.Now()
		defer func() { o.left -= time.Since(begun) }()
	}
	if o.moved == nil {
		o.ground.Do(func() { o.moved = make(chan struct{}) })
	}
	moved := o.moved
	o.mu.Unlock()
	defer o.mu.Lock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-moved:
		return true
	case <-timer.C:
		return false
	}
}

// move wakes all who wait in moves.
func (o *eventQueue) move() {
	if o.moved != nil {
		close(o.moved)
		o.moved = nil
	}
}

// tell tells of what waits, until nothing does.
func (o *eventQueue) tell() {
	done := false
	defer func() {
		if !done {
			go o.tell() // the handler has ended the goroutine, as a test that fails does
		}
	}()
	for o.tellNext() {
	}
	done = true
}

// tellNext tells of one event, and reports false if none waits.
func (o *eventQueue) tellNext() bool {
	o.mu.Lock()
	if len(o.waiting) == 0 || o.closed {
		o.telling, o.waiting = false, nil
		o.move()
		o.mu.Unlock()
		return false
	}
	e := o.waiting[0]
	o.waiting[0] = Event{} // which keeps its key alive
	o.waiting = o.waiting[1:]
	o.mu.Unlock()
	defer o.told(&e)
	contained(o.handle, e)
	return true
}

// told makes room after an event has been told.
func (o *eventQueue) told(e *Event) {
	o.mu.Lock()
	o.bytes -= e.cost()
	dropped := uint64(0)
	if o.bytes <= o.most/2 || o.rash && !o.warned && o.dropped > 0 {
		o.stuck, o.warned = false, o.warned || o.dropped > 0
		dropped, o.dropped = o.dropped, 0
	}
	o.move()
	o.mu.Unlock()
	o.logDropped(dropped)
}

func (o *eventQueue) logDropped(n uint64) {
	if n > 0 {
		o.log.Warn("keepcache: events were dropped, because Options.Events.Handle did not keep up", "path", o.path, "events", n)
	}
}

// hurry bounds how long is waited from now on, all in all, because the cache is being closed.
func (o *eventQueue) hurry(most time.Duration) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hurried, o.left = true, most
	o.move()
}

// close waits until what waits has been told, unless the handler takes too long for that. Nothing is told from then on;
// the last call of the handler may still be under way.
func (o *eventQueue) close() {
	if o == nil {
		return
	}
	o.mu.Lock()
	for o.telling && o.moves() {
	}
	o.closed = true
	dropped := o.dropped + uint64(len(o.waiting))
	o.waiting, o.dropped = nil, 0
	o.mu.Unlock()
	o.logDropped(dropped)
}
