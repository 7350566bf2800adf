package keepcache

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The clock of reads and that of writes agree to the millisecond, between two looks at the wall and after each.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(1234567 * time.Nanosecond)
		c := newClock()
		for step := time.Nanosecond; step < time.Hour; step = step*7/5 + 1 {
			require.Equal(t, millis(time.Now()), c.millis())
			time.Sleep(step)
			require.Equal(t, millis(time.Now()), c.millis())
		}
		time.Sleep(time.Now().Truncate(time.Second).Add(time.Second).Sub(time.Now()))
		require.Equal(t, millis(time.Now()), c.millis())
	})
}

// A wall that somebody has set is seen when its time has come.
func TestClock_Set(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		c.millis()
		c.ahead.Add(int64(time.Hour))
		require.Equal(t, millis(time.Now().Add(time.Hour)), c.millis())
		time.Sleep(wallAgain)
		require.Equal(t, millis(time.Now()), c.millis())
	})
}
