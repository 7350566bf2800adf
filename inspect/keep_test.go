package inspect_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
	"github.com/keepcache/keepcache/internal/wire"
)

// TestSet_Keeps ensures that a value that is set from outside leaves an entry what does not belong to the old value.
func TestSet_Keeps(t *testing.T) {
	db := open(t, &keepcache.Options{DefaultTTL: 2 * time.Hour,
		Buckets: map[string]keepcache.BucketOptions{"s": {Sliding: true}}})
	c, url := serve(t, db, everything)
	ctx := t.Context()
	one := json.RawMessage(`1`)
	look := func(bucket, key string) keepcache.Entry {
		t.Helper()
		e, found, err := db.Bucket(bucket).Stat(key)
		require.NoError(t, err)
		require.True(t, found)
		return e
	}
	within := func(want time.Duration, until time.Time) {
		t.Helper()
		require.WithinDuration(t, time.Now().Add(want), until, time.Minute)
	}
	load := func(bucket, key string, staleFor time.Duration) {
		var dst any
		_, err := db.Bucket(bucket).WithTags("t", "\xff").GetOrLoad(ctx, key, &dst,
			func(_ context.Context, l *keepcache.Load) (any, error) {
				l.ETag = "e"
				return 0, nil
			}, &keepcache.LoadOptions{TTL: time.Hour, StaleFor: staleFor})
		require.NoError(t, err)
	}

	for _, staleFor := range []time.Duration{0, 24 * time.Hour, keepcache.NoExpiry} {
		for _, w := range []wire.Write{{}, {TTL: 3 * 3600_000}, {ExpiresAt: time.Now().Add(3 * time.Hour).UnixMilli()},
			{TTL: -1}} {
			for _, bucket := range []string{"b", "s"} {
				require.NoError(t, db.Bucket(bucket).Clear(ctx))
				load(bucket, "k", staleFor)
				w.Bucket, w.Key, w.Value = wire.Name(bucket), "k", one
				require.NoError(t, c.Set(ctx, w))
				e := look(bucket, "k")
				require.Equal(t, []string{"t", "\xff"}, e.Tags)
				require.Empty(t, e.ETag) // of the old value
				require.True(t, e.LoadedAt.IsZero())
				switch {
				case w.TTL == -1:
					require.True(t, e.ExpiresAt.IsZero() && e.StaleUntil.IsZero())
					continue
				case w.TTL == 0 && w.ExpiresAt == 0:
					within(2*time.Hour, e.ExpiresAt)
				case w.ExpiresAt != 0:
					require.Equal(t, w.ExpiresAt, e.ExpiresAt.UnixMilli())
				default:
					within(3*time.Hour, e.ExpiresAt)
				}
				if staleFor == keepcache.NoExpiry {
					require.True(t, e.StaleUntil.IsZero())
				} else {
					require.WithinDuration(t, e.ExpiresAt.Add(staleFor), e.StaleUntil, time.Millisecond)
				}
				require.Equal(t, bucket == "s", e.Sliding > 0)
			}
		}
	}

	// Told otherwise.
	load("b", "k", time.Hour)
	require.NoError(t, c.Set(ctx, wire.Write{Bucket: "b", Key: "k", Value: one, Tags: &[]wire.Name{"new"}}))
	require.Equal(t, []string{"new"}, look("b", "k").Tags)
	require.NoError(t, c.Set(ctx, wire.Write{Bucket: "b", Key: "k", Value: one, Tags: &[]wire.Name{}}))
	require.Empty(t, look("b", "k").Tags)
	require.ErrorIs(t, c.Set(ctx, wire.Write{Bucket: "b", Key: "k", Value: one, Tags: &[]wire.Name{""}}),
		keepcache.ErrInvalidTag)
	for i, w := range []wire.Write{{TTL: 3600_000}, {ExpiresAt: time.Now().Add(time.Hour).UnixMilli()}} {
		w.Bucket, w.Key, w.Value, w.Tags = "b", wire.Name("new"+string(rune('0'+i))), one, &[]wire.Name{"t"}
		added, err := c.Add(ctx, w)
		require.NoError(t, err)
		require.True(t, added)
		e := look("b", string(w.Key))
		require.Equal(t, []string{"t"}, e.Tags)
		if w.ExpiresAt != 0 {
			require.Equal(t, w.ExpiresAt, e.ExpiresAt.UnixMilli())
		}
	}

	// As the page's form does it.
	load("b", "form", 0)
	resp, err := http.Post(url+"v1/set", "application/json",
		strings.NewReader(`{"bucket":"b","key":"form","value":2,"ttl_ms":60000}`))
	require.NoError(t, err)
	_, _ = io.Copy(io.Discard, resp.Body)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, []string{"t", "\xff"}, look("b", "form").Tags)
}

// TestRestore ensures that what a list of kept entries shows can be stored as it is, and that what is hidden is told.
func TestRestore(t *testing.T) {
	db := open(t, nil)
	c, _ := serve(t, db, everything)
	ctx, now := t.Context(), time.Now().Truncate(time.Millisecond)
	b := db.Bucket("b")
	for _, e := range []keepcache.Entry{
		{Key: "never", WrittenAt: now.Add(-time.Hour)},
		{Key: "stale", WrittenAt: now, ExpiresAt: now.Add(-time.Hour), StaleUntil: now.Add(time.Hour), ETag: "\xff",
			Tags:     []string{"a", "\xff"},
			LoadedAt: now, RetryAt: now.Add(time.Minute), Sliding: time.Hour},
		{Key: "stale for ever", WrittenAt: now, ExpiresAt: now.Add(-time.Hour)},
		{Key: "negative", WrittenAt: now, ExpiresAt: now.Add(time.Hour), StaleUntil: now.Add(time.Hour), Negative: true},
	} {
		w := wire.Restore("b", e)
		w.Value = json.RawMessage(`null`)
		require.NoError(t, c.Restore(ctx, w))
		found := false
		for k, err := range b.Scan(&keepcache.ScanOptions{Stale: true}) {
			require.NoError(t, err)
			if k.Key == e.Key {
				found = true
				require.Equal(t, wire.EntryOf("b", e), func() wire.Entry {
					w := wire.EntryOf("b", k)
					w.Size, w.Revision = 0, 0
					return w
				}())
			}
		}
		require.True(t, found, e.Key)
	}
	count := func(kept bool, c *wire.Client) (keys []string, hidden int) {
		for e, err := range c.All(ctx, wire.Query{Bucket: "b", Stale: kept, Limit: 2}, nil) {
			require.NoError(t, err)
			keys = append(keys, string(e.Key))
			if e.ETagHidden {
				hidden++
			}
		}
		return keys, hidden
	}
	keys, hidden := count(false, c)
	require.Equal(t, []string{"never"}, keys)
	require.Zero(t, hidden)
	keys, _ = count(true, c)
	require.Len(t, keys, 4)
	shy, _ := serve(t, db, &inspect.Options{})
	_, hidden = count(true, shy)
	require.Equal(t, 1, hidden)

	for _, w := range []wire.Write{{TTL: 1}, {StaleUntil: -2}, {ExpiresAt: -1}, {WrittenAt: -1}, {ExpiresAt: 1000},
		{StaleUntil: now.Add(time.Hour).UnixMilli()}} {
		w.Bucket, w.Key, w.Value = "b", "bad", json.RawMessage(`1`)
		require.Error(t, c.Restore(ctx, w), w)
	}
	require.ErrorIs(t, shy.Restore(ctx, wire.Write{Bucket: "b", Key: "k", Value: json.RawMessage(`1`)}), wire.ErrNoWrites)
}
