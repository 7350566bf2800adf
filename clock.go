package keepcache

import (
	"sync/atomic"
	"time"
)

// clock is the wall clock, for reads that ask for the time again and again. It asks the system for the monotonic time
// alone, which takes half as long, and looks at the wall every wallAgain: by so much later does a read see that
// somebody has set the clock, or that the machine has slept. After a write it sees that at once.
type clock struct {
	began time.Time    // the monotonic times are since then
	ahead atomic.Int64 // what the wall shows in unix nanoseconds, without the monotonic time
	until atomic.Int64 // the monotonic time at which the wall is looked at again
}

const (
	wallAgain = 10 * time.Millisecond

	// wallSlack is how much the wall and the monotonic time may differ from what was noted: more than both are apart where
	// nothing has happened, and less than anybody sees.
	wallSlack = 100 * time.Microsecond

	// wallMost is the last second of the wall, in 2262, of which there are unix nanoseconds. Beyond it each look is at the wall.
	wallMost = (1<<63-1)/int64(time.Second) - 1
)

func newClock() *clock { return &clock{began: time.Now()} }

// millis returns the time in unix milliseconds, as the function of that name has it.
func (c *clock) millis() int64 {
	mono := time.Since(c.began)
	if int64(mono) < c.until.Load() {
		return max((c.ahead.Load()+int64(mono))/int64(time.Millisecond), 0)
	}
	now := time.Now()
	c.note(mono, now)
	return millis(now)
}

// note notes what the wall shows. before is the monotonic time shortly before now. Where that is long before, the system may
// have held us up after it had told what the wall shows and before it told the monotonic time, and so the two do not belong
// together.
func (c *clock) note(before time.Duration, now time.Time) {
	mono := now.Sub(c.began)
	if mono-before > wallSlack || now.Unix() >= wallMost {
		return
	}
	c.ahead.Store(now.UnixNano() - int64(mono))
	c.until.Store(int64(mono + wallAgain))
}

// now is time.Now for a write. If somebody has set the clock, reads see that from here on, so that they do not take for expired
// what has just been written.
func (c *clock) now() time.Time {
	now := time.Now()
	if mono := int64(now.Sub(c.began)); mono < c.until.Load() {
		if off := now.UnixNano() - mono - c.ahead.Load(); max(off, -off) > int64(wallSlack) {
			c.until.Store(0)
		}
	}
	return now
}
