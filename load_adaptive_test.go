package keepcache_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// A loader may set lifetime, tags and ETag, say "do not store", and say "not modified" about what it is shown.
func TestLoad_Adaptive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, nil)
		b := db.Bucket("b").WithTags("all")
		opts := &keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour, SoftTimeout: time.Second, RetryAfter: -1}
		get := func(want string, load keepcache.Loader) {
			t.Helper()
			var got string
			_, err := b.GetOrLoad(t.Context(), "k", &got, load, opts)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		first := time.Now()
		get("one", func(_ context.Context, l *keepcache.Load) (any, error) {
			require.Equal(t, "k", l.Key)
			require.False(t, l.Found)
			require.Equal(t, time.Minute, l.TTL)
			require.Equal(t, []string{"all"}, l.Tags)
			l.TTL, l.StaleFor, l.ETag, l.Tags = time.Hour, 2*time.Hour, "v1", append(l.Tags, "user:1")
			return "one", nil
		})
		requireTTL(t, b, "k", time.Hour)
		time.Sleep(time.Hour)
		get("one", func(_ context.Context, l *keepcache.Load) (any, error) {
			require.True(t, l.Found)
			require.Equal(t, "v1", l.Old.ETag)
			require.True(t, first.Equal(l.Old.LoadedAt))
			require.True(t, first.Equal(l.Old.WrittenAt))
			var old string
			require.NoError(t, l.Old.Decode(&old))
			require.Equal(t, "one", old)
			l.NotModified = true
			return nil, nil
		})
		entry, found, err := b.Stat("k")
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, "v1", entry.ETag)
		require.Equal(t, []string{"all", "user:1"}, entry.Tags)
		require.True(t, first.Equal(entry.WrittenAt))
		require.True(t, time.Now().Equal(entry.LoadedAt))
		requireTTL(t, b, "k", time.Minute)

		_, err = b.Delete("k")
		require.NoError(t, err)
		get("two", func(_ context.Context, l *keepcache.Load) (any, error) {
			l.NoStore = true
			return "two", nil
		})
		requireAbsent(t, b, "k")
		for i, bad := range []func(l *keepcache.Load){
			func(l *keepcache.Load) { l.NotModified = true },
			func(l *keepcache.Load) { l.TTL = -5 },
			func(l *keepcache.Load) { l.Tags = []string{""} },
			func(l *keepcache.Load) { l.ETag = string(make([]byte, keepcache.MaxETagBytes+1)) },
		} {
			_, err = b.GetOrLoad(t.Context(), "k", new(any), func(_ context.Context, l *keepcache.Load) (any, error) {
				bad(l)
				return 1, nil
			}, opts)
			require.Equal(t, i == 0, err != nil, "what cannot be stored is handed out all the same")
			requireAbsent(t, b, "k")
		}
	})
}
