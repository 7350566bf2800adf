package keepcache

import (
	"sync/atomic"
	"time"
)

// clock is the wall clock, for reads that ask for the time again and again. It asks the system for the monotonic time
// alone, which takes half as long, and looks at the wall every wallAgain: by so much later does a read see that
// somebody has set the clock, or that the machine has slept.
type clock struct {
	began time.Time    // the monotonic times are since then
	ahead atomic.Int64 // what the wall shows in unix nanoseconds, without the monotonic time
	until atomic.Int64 // the monotonic time at which the wall is looked at again
}

const wallAgain = 10 * time.Millisecond

// wallMost is the last second of the wall, in 2262, of which there are unix nanoseconds. Beyond it each look is at the wall.
const wallMost = (1<<63-1)/int64(time.Second) - 1

func newClock() *clock { return &clock{began: time.Now()} }

// millis returns the time in unix milliseconds, as the function of that name has it.
func (c *clock) millis() int64 {
	mono := time.Since(c.began)
	if int64(mono) < c.until.Load() {
		return max((c.ahead.Load()+int64(mono))/int64(time.Millisecond), 0)
	}
	now := time.Now()
	if now.Unix() < wallMost {
		mono = now.Sub(c.began)
		c.ahead.Store(now.UnixNano() - int64(mono))
		c.until.Store(int64(mono + wallAgain))
	}
	return millis(now)
}
