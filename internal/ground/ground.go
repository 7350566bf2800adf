// Package ground gives a cache a place of its own for what outlives a call: goroutines, and the channels by which they
// and callers meet. Both belong to the testing/synctest bubble in which they are made, if it is one. A bubble waits for
// its goroutines, and ends the process when somebody outside touches one of its channels; so what a call begins inside
// of a bubble, and others go on with, has to be made where the cache was opened.
package ground

import (
	"context"
	"slices"
	"sync"
)

// Ground is such a place. The methods of a nil one work where they are called. All may be called from any goroutine.
type Ground struct {
	mu   sync.Mutex // held by the caller whose function is run
	work chan func()
	done chan struct{}
	end  chan struct{}
	once sync.Once
}

// New returns a ground that is where the caller is. It has a goroutine, until Close.
func New() *Ground {
	g := &Ground{work: make(chan func()), done: make(chan struct{}), end: make(chan struct{})}
	go g.loop()
	return g
}

func (g *Ground) loop() {
	for {
		select {
		case fn := <-g.work:
			fn()
			g.done <- struct{}{}
		case <-g.end:
			return
		}
	}
}

// Do runs fn on the ground and returns when it has. fn makes channels and starts goroutines and does nothing else: it
// must not wait, panic or end its goroutine. After Close it is run where it is.
func (g *Ground) Do(fn func()) {
	if g == nil {
		fn()
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case g.work <- fn:
		<-g.done
	case <-g.end:
		fn()
	}
}

// Go starts a goroutine on the ground.
func (g *Ground) Go(fn func()) { g.Do(func() { go fn() }) }

// Start runs fn in a goroutine on the ground, and returns a channel that is closed when it has returned.
func (g *Ground) Start(fn func()) (done <-chan struct{}) {
	var over chan struct{}
	g.Do(func() {
		over = make(chan struct{})
		go func() {
			defer close(over)
			fn()
		}()
	})
	return over
}

// Close ends the ground's own goroutine. It may be called more than once.
func (g *Ground) Close() {
	if g != nil {
		g.once.Do(func() { close(g.end) })
	}
}

// Cond is a sync.Cond whose waiters may be woken from another bubble than theirs: their channels are of the ground. It
// is used under a lock, which each call takes as held.
type Cond struct {
	L       sync.Locker
	Ground  *Ground
	waiting []chan struct{}
	free    []chan struct{}
}

// Wait lets go of the lock until it is woken, as sync.Cond does.
func (c *Cond) Wait() {
	var woken chan struct{}
	if n := len(c.free); n > 0 {
		woken, c.free = c.free[n-1], c.free[:n-1]
	} else {
		c.Ground.Do(func() { woken = make(chan struct{}, 1) })
	}
	c.waiting = append(c.waiting, woken)
	c.L.Unlock()
	<-woken
	c.L.Lock()
	if len(c.free) < freeMost {
		c.free = append(c.free, woken)
	}
}

// freeMost bounds the channels that are kept for those who wait next, and the room for the list of them: as many
// writers as mostly wait for one flush. Each is some 100 bytes.
const freeMost = 1024

// Signal wakes the one who has waited longest, if anybody does.
func (c *Cond) Signal() {
	if len(c.waiting) > 0 {
		c.waiting[0] <- struct{}{}
		c.waiting = slices.Delete(c.waiting, 0, 1)
	}
}

// Broadcast wakes all who wait.
func (c *Cond) Broadcast() {
	for _, woken := range c.waiting {
		woken <- struct{}{}
	}
	if clear(c.waiting); cap(c.waiting) > freeMost {
		c.waiting = nil
	}
	c.waiting = c.waiting[:0]
}

// NewContext returns a context to be cancelled. Its channel is made here, and not by whoever is the first to ask for
// it.
func NewContext() (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(context.Background())
	ctx.Done()
	return ctx, stop
}
