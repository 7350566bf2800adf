package keepcache

import (
	"context"
	"path/filepath"
	"testing"
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
