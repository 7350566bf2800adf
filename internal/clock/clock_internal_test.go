package clock

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/format"
)

// The clock of reads and that of writes agree to the millisecond, between two looks at the wall and after each.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(1234567 * time.Nanosecond)
		c := New()
		for step := time.Nanosecond; step < time.Hour; step = step*7/5 + 1 {
			require.Equal(t, format.Millis(time.Now()), c.millis())
			time.Sleep(step)
			require.Equal(t, format.Millis(time.Now()), c.millis())
		}
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
		require.Equal(t, format.Millis(time.Now()), c.millis())
	})
}

// A wall that somebody has set is seen when its time has come.
func TestClock_Set(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New()
		c.millis()
		c.Skew(time.Hour)
		require.Equal(t, format.Millis(time.Now().Add(time.Hour)), c.millis())
		time.Sleep(wallAgain)
		require.Equal(t, format.Millis(time.Now()), c.millis())
	})
}

// What the system says of the two times does not count where it took long: they may be of different moments.
func TestClock_HeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New()
		time.Sleep(time.Second)
		now := time.Now()
		mono := now.Sub(c.began)
		require.False(t, noteOf(now, mono, wallSlack+1).agrees(now, int64(mono)))
		require.True(t, noteOf(now, mono, wallSlack).agrees(now, int64(mono)))
	})
}

// A note of an earlier wall does not come after an exact look: it is not put in the place of one that it does not know.
func TestClock_LateNote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New()
		before := c.noted.Load()
		time.Sleep(time.Second) // who read it is held up, and somebody else looks
		c.Now()
		require.False(t, c.noted.CompareAndSwap(before, new(wall)))
	})
}

// Within a millisecond of a deadline the wall decides: a note may be behind by as much as the two times of it are
// apart.
func TestClock_Near(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New()
		deadline := format.Millis(time.Now()) + 1000
		time.Sleep(time.Second)
		c.Skew(-wallSlack)
		require.Less(t, c.millis(), deadline)
		require.True(t, c.Reached(deadline))
		require.False(t, c.Reached(format.Never))
	})
}
