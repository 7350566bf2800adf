package failures_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/failures"
	"github.com/keepcache/keepcache/internal/format"
)

// failed is a failure of a key that just happened.
func failed(key string, hold time.Duration) *failures.Failure {
	now := time.Now()
	return &failures.Failure{Bucket: "b", Key: key, Err: errors.New("down"), At: now, RetryAt: now.Add(hold), Start: 5}
}

func none(format.Tags) uint64 { return 0 }

// A failure is gone when it is over, although another one that came before it stays for longer.
func TestMemory_Expire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m failures.Memory
		m.Init(1<<20, nil)
		for i, hold := range []time.Duration{time.Hour, time.Second, time.Minute, time.Millisecond, 2 * time.Second} {
			m.Put(failed(string(rune('a'+i)), hold))
		}
		require.Equal(t, 5, m.Len())
		for _, step := range []struct {
			after time.Duration
			left  int
		}{{1100 * time.Millisecond, 3}, {time.Second, 2}, {time.Minute, 1}, {time.Hour, 0}} {
			time.Sleep(step.after)
			synctest.Wait()
			require.Equal(t, step.left, m.Len(), "%v", step)
		}
		m.Close()
	})
}

// A failure holds until its time, or for as long as the caller lets it, and until one of its tags is invalidated.
func TestMemory_Get(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m failures.Memory
		m.Init(1<<20, nil)
		m.Put(failed("k", time.Minute))
		require.NotNil(t, m.Get("b", "k", time.Hour, none))
		require.Nil(t, m.Get("b", "k", 0, none))
		require.Nil(t, m.Get("b", "other", time.Hour, none))
		require.Nil(t, m.Get("other", "k", time.Hour, none))
		time.Sleep(30 * time.Second)
		require.Nil(t, m.Get("b", "k", 10*time.Second, none), "the caller lets it hold for 10 s")
		require.NotNil(t, m.Get("b", "k", time.Hour, func(format.Tags) uint64 { return 5 }))
		require.Nil(t, m.Get("b", "k", time.Hour, func(format.Tags) uint64 { return 6 }))
		require.Zero(t, m.Len())

		m.Put(failed("k", time.Minute))
		m.Forget("b", "k")
		require.Zero(t, m.Len())
		m.Put(failed("prefix/k", time.Minute))
		m.Put(failed("k", time.Minute))
		m.ForgetPrefix("b", "prefix/")
		require.Equal(t, 1, m.Len())
		m.Close()
		require.Zero(t, m.Len())
		m.Put(failed("k", time.Minute))
		require.Zero(t, m.Len())
	})
}

// Failures stay within a sixteenth of the memory: the oldest go, and one that is too large is not kept.
func TestMemory_Bound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m failures.Memory
		m.Init(1<<20, nil)
		for i := range 10_000 {
			m.Put(failed(strings.Repeat("k", 100)+string(rune(i)), time.Hour))
		}
		require.Less(t, m.Len(), 1<<16/300)
		require.Greater(t, m.Len(), 1<<16/500)
		require.NotNil(t, m.Get("b", strings.Repeat("k", 100)+string(rune(9999)), time.Hour, none))
		require.Nil(t, m.Get("b", strings.Repeat("k", 100)+string(rune(0)), time.Hour, none))
		large := failed("large", time.Hour)
		require.Positive(t, m.Room(large))
		large.Size = int(m.Room(large)) + 1
		m.Put(large)
		require.Nil(t, m.Get("b", "large", time.Hour, none))
		large.Size--
		m.Put(large)
		require.NotNil(t, m.Get("b", "large", time.Hour, none))
		m.Close()
	})
}
