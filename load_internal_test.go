package keepcache

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A cache that cannot be read is a miss to a loader, counted and told, and what it brings is not lost.
func TestLoad_UnreadableCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.cache")
	told := make(chan Event, 10)
	db, err := Open(path, &Options{CommitInterval: time.Hour, SweepInterval: -1, Events: Events{Handle: func(e Event) {
		select {
		case told <- e:
		default:
		}
	}}})
	require.NoError(t, err)
	b := db.Bucket("b")
	require.NoError(t, b.Set("other", 1, 0))
	require.NoError(t, db.engine.local.Store().Disable())

	var got int
	load := func(context.Context, *Load) (any, error) { return 7, nil }
	result, err := b.GetOrLoad(t.Context(), "k", &got, load, nil)
	require.NoError(t, err)
	require.Equal(t, LoadResult{}, result)
	require.Equal(t, 7, got)
	require.Positive(t, db.Stats().Loads.CacheErrors)
	first := <-told
	require.Equal(t, EventLoadFailed, first.Kind)
	require.Error(t, first.Err)
	require.Error(t, db.Close())

	db, err = Open(path, nil)
	require.NoError(t, err)
	found, err := db.Bucket("b").Get("k", &got)
	require.NoError(t, err)
	require.True(t, found)
	report, err := db.Verify(t.Context())
	require.NoError(t, err)
	require.True(t, report.OK())
	require.NoError(t, db.Close())
}

// What is remembered of a failure goes when it is over, although another one of before stays for longer.
func TestFailures_Expire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := Open(filepath.Join(t.TempDir(), "test.cache"), nil)
		require.NoError(t, err)
		b := db.Bucket("b")
		holds := []time.Duration{time.Hour, time.Second, time.Minute, time.Millisecond, 2 * time.Second}
		for i, hold := range holds {
			_, err := b.GetOrLoad(t.Context(), string(rune('a'+i)), new(any), func(context.Context, *Load) (any, error) { return nil, errors.New("down") },
				&LoadOptions{RetryAfter: hold})
			require.Error(t, err)
		}
		n := &db.loads.failures.n
		require.Equal(t, int64(5), n.Load())
		for _, step := range []struct {
			after time.Duration
			left  int64
		}{{1100 * time.Millisecond, 3}, {time.Second, 2}, {time.Minute, 1}, {time.Hour, 0}} {
			time.Sleep(step.after)
			synctest.Wait()
			require.Equal(t, step.left, n.Load(), "%v", step)
		}
		require.NoError(t, db.Close())
	})
}

// A lifetime that is shortened stays above 0, whatever it was.
func TestShorten(t *testing.T) {
	for _, ttl := range []time.Duration{1, 2, time.Second, NoExpiry - 1, NoExpiry} {
		for _, part := range []float64{0, 0.3, 1} {
			for range 100 {
				short := shorten(ttl, part)
				require.Positive(t, short)
				require.LessOrEqual(t, short, ttl)
			}
		}
	}
}
