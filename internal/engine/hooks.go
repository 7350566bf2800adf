package engine

import (
	"context"
	"time"

	"github.com/keepcache/keepcache/internal/store"
)

// The following is for tests of other packages.

// Store returns the store.
func (e *Engine) Store() *store.Store { return e.store }

// Heal checks the file now, and heals it if necessary. Otherwise that happens every two seconds.
func (e *Engine) Heal() {
	e.healer.running.Lock()
	e.healer.next = time.Time{}
	e.healer.running.Unlock()
	e.healer.check(context.Background())
}

// Names returns how many bucket names are in memory.
func (e *Engine) Names() int {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return len(e.buckets)
}

// SkewClock makes reads use a clock that is wrong by so much, as if the wall clock had been set since the last look at
// it.
func (j *Judge) SkewClock(by time.Duration) { j.clock.Skew(by) }
