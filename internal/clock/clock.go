// Package clock tells the time by which deadlines are judged: quickly for reads, exactly for writes, and so that nobody
// sees again what somebody has seen expired.
package clock

import (
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/format"
)

// Clock is the wall clock, for reads that ask for the time again and again. It asks the system for the monotonic time
// alone, which takes half as long, and looks at the wall every wallAgain: by so much later does a read see that
// somebody has set the clock, or that the machine has slept. After an exact look, as each write has one, it sees that
// at once.
//
// # What nobody sees again
//
// Once one caller has seen a key absent at its deadline, nobody sees that value again, unless somebody sets the clock
// back. That rests on three things.
//
// First, every answer to "has this deadline been reached?" is that of the wall. While nobody sets the clock, the time
// by a note is behind the wall by at most wallSlack: so far apart the two times of a note may have been read, and they
// do not drift apart by more than 10 µs until the next one. Where that could decide, within a millisecond of the
// deadline, at looks at the wall itself. So answers follow each other as the times at which they were given.
//
// Second, that holds also when somebody sets the clock ahead, although reads go by the old note for a while. Who has
// seen the new time has seen it in an exact look. That look replaces any note that it does not agree with, and any that
// is too old to say, before it returns, and a note is only put in the place of the one that was there before the wall
// was looked at. So no read that begins later goes by a note of an earlier wall.
//
// Third, what the answer is about does not change unseen. A write that rests on an entry being there, or being expired,
// looks at the clock under the lock of the key's shard and is published before that is free, and a read that prolongs a
// life does both under that lock shared. A read looks at the clock after it has looked at the key: if it finds the
// deadline ahead, the entry was there at an earlier moment. If it finds it reached, it makes sure that the entry is
// still what it was: whatever is published later finds the deadline reached, too.
type Clock struct {
	began time.Time // the monotonic times are since then
	noted atomic.Pointer[wall]
}

// wall is a note of what the wall clock showed. It does not change.
type wall struct {
	ahead int64 // what the wall shows in unix nanoseconds, without the monotonic time
	until int64 // the monotonic time at which the wall is looked at again; 0 for a note that says nothing
}

const (
	wallAgain = 10 * time.Millisecond

	// wallSlack is how much the wall and the monotonic time may differ from what was noted: more than both are apart where
	// nothing has happened, and less than anybody sees.
	wallSlack = 100 * time.Microsecond

	// wallMost is the last second of the wall, in 2262, of which there are unix nanoseconds. Beyond it each look is at the
	// wall.
	wallMost = (1<<63-1)/int64(time.Second) - 1

	// wallTries bounds how often a look at the wall begins anew because others have noted theirs meanwhile.
	wallTries = 10
)

func New() *Clock {
	c := &Clock{began: time.Now()}
	c.noted.Store(new(wall))
	return c
}

// millis returns the time in unix milliseconds, as the function of that name has it. It is no measure for deadlines:
// see at.
func (c *Clock) millis() int64 {
	w := c.noted.Load()
	mono := int64(time.Since(c.began))
	if mono < w.until {
		return max((w.ahead+mono)/int64(time.Millisecond), 0)
	}
	return format.Millis(c.look())
}

// At returns the time in unix milliseconds as it is to be compared with two deadlines, and with nothing else.
func (c *Clock) At(one, two int64) int64 {
	now := c.millis()
	if isNear(one, now) || isNear(two, now) {
		now = format.Millis(c.Now())
	}
	return now
}

// isNear reports whether a time that is less than a millisecond late may be on the wrong side of a deadline.
func isNear(deadline, now int64) bool { return uint64(deadline-now) <= 1 }

// Reached reports whether a deadline has been reached.
func (c *Clock) Reached(deadline int64) bool {
	return deadline != format.Never && c.At(deadline, deadline) >= deadline
}

// IsFar reports whether a deadline is more than a minute after the last look at the wall, without another one. Every
// write looks when it begins, and has no longer than some seconds to wait for room: what is far for it then, it does
// not reach.
func (c *Clock) IsFar(deadline int64) bool {
	w := c.noted.Load()
	return w.until != 0 && deadline-(w.ahead+w.until)/int64(time.Millisecond) > time.Minute.Milliseconds()
}

// Now is time.Now. If somebody has set the clock, reads see that from here on.
func (c *Clock) Now() time.Time {
	now := time.Now()
	if c.noted.Load().agrees(now, int64(now.Sub(c.began))) {
		return now
	}
	return c.look()
}

// agrees reports whether a note is valid and says of a time what the wall showed.
func (w *wall) agrees(now time.Time, mono int64) bool {
	if mono >= w.until {
		return false
	}
	off := now.UnixNano() - mono - w.ahead
	return max(off, -off) <= int64(wallSlack)
}

// look looks at the wall, and leaves no note that does not agree with it.
func (c *Clock) look() time.Time {
	for range wallTries {
		before := c.noted.Load()
		began := time.Since(c.began)
		now := time.Now()
		mono := now.Sub(c.began)
		note := noteOf(now, mono, mono-began)
		if before.agrees(now, int64(mono)) || note.until == 0 && before.until == 0 && now.Unix() >= wallMost ||
			c.noted.CompareAndSwap(before, note) {
			return now
		}
	}
	now := time.Now()
	c.noted.Store(new(wall)) // a note that says nothing is never wrong
	return now
}

// Skew has reads go by a note that is wrong by so much, as where somebody has set the wall clock since it was made. It
// is for tests.
func (c *Clock) Skew(by time.Duration) {
	c.millis()
	w := *c.noted.Load()
	w.ahead += int64(by)
	c.noted.Store(&w)
}

// noteOf notes what the wall shows at a monotonic time. took is how long it took to read the two. Where that is long,
// the system may have held us up after it had told what the wall shows and before it told the monotonic time, and so
// the two do not belong together: the note says nothing.
func noteOf(now time.Time, mono, took time.Duration) *wall {
	if took > wallSlack || now.Unix() >= wallMost {
		return new(wall)
	}
	return &wall{now.UnixNano() - int64(mono), int64(mono + wallAgain)}
}
