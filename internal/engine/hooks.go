package engine

import (
	"context"
	"time"

	"github.com/keepcache/keepcache/internal/store"
)

// What follows is for tests of the packages above.

// Store returns the store.
func (e *Engine) Store() *store.Store { return e.store }

// Heal has the file looked at now, and mended if need be, as otherwise every two seconds.
func (e *Engine) Heal() {
	e.healer.run.Lock()
	e.healer.next = time.Time{}
	e.healer.run.Unlock()
	e.healer.look(context.Background())
}

// Names returns of how many buckets memory knows the name.
func (e *Engine) Names() int {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return len(e.buckets)
}

// SkewClock has reads go by a clock that is wrong by so much, as where somebody has set the wall clock since the last look.
func (j *Judge) SkewClock(by time.Duration) { j.clock.Skew(by) }
