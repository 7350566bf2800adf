package keepcache

import (
	"fmt"
	"log/slog"
	"sync"
)

// closing is what is to be called when a DB is closed.
type closing struct {
	mu    sync.Mutex // protects what follows
	begun bool
	next  int
	fns   map[int]func()
}

// OnClose has Close call fn, in a goroutine of its own and before anything is closed, and wait until it returns: for
// what serves the cache to others and has to end with it. On a cache that is closed already OnClose calls fn at once, in
// a goroutine too, and waits. The returned function forgets fn again; it reports false if it comes too late. A panic in
// fn ends that goroutine alone, and the Logger is told. fn must not call Close.
func (db *DB) OnClose(fn func()) (forget func() bool) {
	c := &db.closing
	c.mu.Lock()
	if c.begun {
		c.mu.Unlock()
		var wait sync.WaitGroup
		wait.Go(func() { lastCall(fn, db.options.Logger) })
		wait.Wait()
		return func() bool { return false }
	}
	defer c.mu.Unlock()
	if c.fns == nil {
		c.fns = make(map[int]func())
	}
	id := c.next
	c.next++
	c.fns[id] = fn
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, there := c.fns[id]
		delete(c.fns, id)
		return there
	}
}

func (c *closing) run(log *slog.Logger) {
	c.mu.Lock()
	fns := c.fns
	c.begun, c.fns = true, nil
	c.mu.Unlock()
	var wait sync.WaitGroup
	for _, fn := range fns {
		wait.Go(func() { lastCall(fn, log) })
	}
	wait.Wait()
}

// lastCall calls a function of OnClose, which ends no more than itself.
func lastCall(fn func(), log *slog.Logger) {
	defer func() {
		if v := recover(); v != nil {
			log.Error("keepcache: a function of OnClose panicked", "panic", fmt.Sprint(v))
		}
	}()
	fn()
}
