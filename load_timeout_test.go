package keepcache_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// A loader that heeds its ctx or not is given up after LoadTimeout: those who wait get the error at that moment, the
// key is free, and what comes late is dropped.
func TestLoadTimeout(t *testing.T) {
	for name, heeds := range map[string]bool{"heeds its ctx": true, "ignores its ctx": false} {
		for limit, opts := range map[time.Duration]*keepcache.LoadOptions{2 * time.Minute: nil,
			time.Second: {LoadTimeout: time.Second}} {
			t.Run(name+" "+limit.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newLoadScene(t, keepcache.LoadOptions{})
					began := time.Now()
					load := func(ctx context.Context, _ *keepcache.Load) (any, error) {
						end, ok := ctx.Deadline()
						if !ok || !end.Equal(began.Add(limit)) {
							t.Error("no deadline", end)
						}
						if heeds {
							<-ctx.Done()
							if !errors.Is(ctx.Err(), context.DeadlineExceeded) || !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
								t.Error(ctx.Err(), context.Cause(ctx))
							}
							return nil, ctx.Err()
						}
						time.Sleep(time.Hour)
						return "late", nil
					}
					var waiters sync.WaitGroup
					for range 3 {
						waiters.Go(func() {
							_, err := s.b.GetOrLoad(t.Context(), "k", new(any), load, opts)
							if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != limit {
								t.Error(err, time.Since(began))
							}
						})
					}
					synctest.Wait()
					require.Equal(t, int64(1), s.db.Stats().Loads.Running)
					waiters.Wait()
					synctest.Wait()
					stats := s.db.Stats().Loads
					require.Zero(t, stats.Running)
					require.Equal(t, uint64(1), stats.Failures)
					require.Equal(t, uint64(1), stats.TimedOut)
					if !heeds {
						require.Equal(t, int64(1), stats.Abandoned)
					}
					// It has failed, so nobody tries again for a second; then the key is free.
					_, err := s.b.GetOrLoad(t.Context(), "k", new(any), load, opts)
					var remembered *keepcache.RememberedError
					require.ErrorAs(t, err, &remembered)
					time.Sleep(time.Second)
					s.get("one", false, 1)
					time.Sleep(time.Hour)
					synctest.Wait()
					requireValue(t, s.b, "k", "one")
					require.Zero(t, s.db.Stats().Loads.Abandoned)
					require.Equal(t, heeds, s.db.Stats().Loads.Discarded == 0)
				})
			})
		}
	}
}

// LoadTimeout of -1 sets no limit; then HardTimeout and the caller's ctx are what ends the waiting.
func TestLoadTimeout_None(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{LoadTimeout: -1})
		s.answer("one", nil, time.Hour)
		s.get("one", false, 1)
	})
}

// Who waits for a loader that hangs when the cache is closed waits no longer than Close, whatever LoadTimeout is.
func TestLoadTimeout_Close(t *testing.T) {
	for _, limit := range []time.Duration{-1, 0, 6 * time.Second, time.Hour} {
		t.Run(limit.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := newDB(t, nil)
				b, opts := db.Bucket("b"), &keepcache.LoadOptions{LoadTimeout: limit}
				hang := make(chan struct{})
				began := time.Now()
				var waiters sync.WaitGroup
				require.NoError(t, db.Set("k", 1, 0))
				check := func(err error) {
					if !errors.Is(err, keepcache.ErrClosed) || time.Since(began) != 5*time.Second {
						t.Error(err, time.Since(began))
					}
				}
				waiters.Go(func() {
					_, err := b.GetOrLoad(t.Context(), "one", new(any),
						func(context.Context, *keepcache.Load) (any, error) { <-hang; return 1, nil }, opts)
					check(err)
				})
				waiters.Go(func() {
					_, err := b.GetOrLoadMany(t.Context(), []string{"x", "y"},
						func(context.Context, []string) (map[string]any, error) { <-hang; return nil, nil }, opts)
					check(err)
				})
				synctest.Wait()
				require.NoError(t, db.Close())
				require.Equal(t, 5*time.Second, time.Since(began))
				waiters.Wait()
				close(hang)
			})
		})
	}
}

// A loader that returns the error of its ctx has passed LoadTimeout, whether it is quicker than the timer or not: each
// is counted, and says the same.
func TestLoadTimeout_Counted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, nil)
		b, opts := db.Bucket("b"), &keepcache.LoadOptions{LoadTimeout: time.Second, RetryAfter: -1}
		const n = 200
		texts := make([]string, n)
		var waiters sync.WaitGroup
		for i := range n {
			waiters.Go(func() {
				_, err := b.GetOrLoad(t.Context(), "k"+string(rune('a'+i)), new(any),
					func(ctx context.Context, _ *keepcache.Load) (any, error) {
						<-ctx.Done()
						return nil, fmt.Errorf("the source: %w", ctx.Err())
					}, opts)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
					return
				}
				texts[i], _, _ = strings.Cut(err.Error(), " (")
			})
		}
		waiters.Wait()
		synctest.Wait()
		stats := db.Stats().Loads
		require.Equal(t, uint64(n), stats.Failures)
		require.Equal(t, uint64(n), stats.TimedOut)
		require.Zero(t, stats.Abandoned)
		slices.Sort(texts)
		require.Equal(t, []string{"the load was given up after 1s: context deadline exceeded"}, slices.Compact(texts))
		// A deadline of the loader's own is a failure like others.
		_, err := b.GetOrLoad(t.Context(), "own", new(any), func(ctx context.Context, _ *keepcache.Load) (any, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		}, opts)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, uint64(n), db.Stats().Loads.TimedOut)
	})
}

// Refreshes whose loaders never return are bounded: 64 a LoadTimeout would be without end.
func TestLoadTimeout_Stuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, &keepcache.Options{SweepInterval: -1, CommitInterval: time.Hour})
		b := db.Bucket("b")
		opts := &keepcache.LoadOptions{TTL: time.Minute, StaleFor: 24 * time.Hour, LoadTimeout: time.Second}
		hang := make(chan struct{})
		hangs := func(context.Context, *keepcache.Load) (any, error) { <-hang; return "late", nil }
		const n = 20 * 64
		keys := make([]string, n)
		for i := range n {
			keys[i] = numbered(i)
		}
		_, err := b.GetOrLoadMany(t.Context(), keys, func(context.Context, []string) (map[string]any, error) {
			values := map[string]any{}
			for _, key := range keys {
				values[key] = "old"
			}
			return values, nil
		}, opts)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		for i := range n {
			result, err := b.GetOrLoad(t.Context(), keys[i], new(any), hangs, opts)
			require.NoError(t, err)
			require.True(t, result.Stale)
			if i%64 == 63 {
				time.Sleep(2 * time.Second)
			}
		}
		stats := db.Stats().Loads
		require.Equal(t, int64(1024), stats.Abandoned) // 16 times 64, when the bound of 1,000 is reached
		require.Equal(t, uint64(n-1024), stats.Skipped)
		// Loads that somebody waits for go on.
		_, err = b.GetOrLoad(t.Context(), "new", new(any),
			func(context.Context, *keepcache.Load) (any, error) { return 1, nil }, opts)
		require.NoError(t, err)
		close(hang)
		synctest.Wait()
		require.Zero(t, db.Stats().Loads.Abandoned)
		_, err = b.GetOrLoad(t.Context(), keys[n-1], new(any),
			func(context.Context, *keepcache.Load) (any, error) { return "new", nil }, opts)
		require.NoError(t, err)
		synctest.Wait()
		requireValue(t, b, keys[n-1], "new")
	})
}

// A request that waits for a stale value's load gets the stale value when the load is given up.
func TestLoadTimeout_Stale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour, SoftTimeout: time.Minute,
			LoadTimeout: time.Second})
		s.get("one", false, 1)
		time.Sleep(time.Minute)
		s.answer("two", nil, time.Hour)
		began := time.Now()
		var got string
		result, err := s.b.GetOrLoad(t.Context(), "k", &got, s.load, &s.opts)
		require.NoError(t, err)
		require.True(t, result.Stale)
		require.Equal(t, "one", got)
		require.ErrorIs(t, result.Err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		s.get("one", true, 2) // nobody tries again for 30 s
		time.Sleep(29 * time.Second)
		s.get("one", true, 2)
		s.answer("two", nil, 0)
		time.Sleep(time.Second)
		s.get("two", false, 3)
	})
}

// Refreshes that hang have their slots for LoadTimeout, and no longer. Those that find no slot are counted.
func TestLoadTimeout_Slots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, nil)
		b := db.Bucket("b")
		opts := &keepcache.LoadOptions{TTL: time.Minute, StaleFor: 24 * time.Hour, LoadTimeout: time.Minute}
		hang := make(chan struct{})
		defer close(hang)
		value := func(context.Context, *keepcache.Load) (any, error) { return "old", nil }
		hangs := func(context.Context, *keepcache.Load) (any, error) { <-hang; return "late", nil }
		const n = 70
		for i := range n {
			_, err := b.GetOrLoad(t.Context(), numbered(i), new(any), value, opts)
			require.NoError(t, err)
		}
		time.Sleep(time.Minute)
		for range 2 {
			for i := range n {
				result, err := b.GetOrLoad(t.Context(), numbered(i), new(any), hangs, opts)
				require.NoError(t, err)
				require.True(t, result.Stale)
			}
			synctest.Wait()
		}
		stats := db.Stats().Loads
		require.Equal(t, int64(64), stats.Running)
		require.Equal(t, uint64(2*(n-64)), stats.Skipped, "those under way were not left out")
		time.Sleep(time.Minute)
		synctest.Wait()
		stats = db.Stats().Loads
		require.Zero(t, stats.Running)
		require.Equal(t, int64(64), stats.Abandoned)
		require.Equal(t, uint64(64), stats.TimedOut)
		fresh := func(context.Context, *keepcache.Load) (any, error) { return "new", nil }
		time.Sleep(time.Minute)
		for i := range n {
			_, err := b.GetOrLoad(t.Context(), numbered(i), new(any), fresh, opts)
			require.NoError(t, err)
			synctest.Wait()
			requireValue(t, b, numbered(i), "new")
		}
	})
}

// GetOrLoadMany is given up for the keys that it was to bring, in the foreground and in the background.
func TestLoadTimeout_Many(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, nil)
		b := db.Bucket("b")
		opts := &keepcache.LoadOptions{TTL: time.Minute, StaleFor: 24 * time.Hour, LoadTimeout: time.Second}
		hang := make(chan struct{})
		hangs := func(context.Context, []string) (map[string]any, error) {
			<-hang
			return map[string]any{"x": "late", "y": "late"}, nil
		}
		loads := func(_ context.Context, keys []string) (map[string]any, error) {
			values := map[string]any{}
			for _, key := range keys {
				values[key] = "new"
			}
			return values, nil
		}
		mustSet(t, b, "there", "v", 0)
		began := time.Now()
		entries, err := b.GetOrLoadMany(t.Context(), []string{"there", "x", "y"}, hangs, opts)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Len(t, entries, 1)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, uint64(2), db.Stats().Loads.TimedOut)
		require.Equal(t, int64(1), db.Stats().Loads.Abandoned)
		time.Sleep(time.Second)
		entries, err = b.GetOrLoadMany(t.Context(), []string{"x", "y"}, loads, opts)
		require.NoError(t, err)
		require.Len(t, entries, 2)

		time.Sleep(time.Minute)
		_, err = b.GetOrLoadMany(t.Context(), []string{"x", "y"}, hangs, opts)
		require.NoError(t, err, "stale")
		time.Sleep(31 * time.Second)
		require.Equal(t, int64(2), db.Stats().Loads.Abandoned)
		_, err = b.GetOrLoadMany(t.Context(), []string{"x", "y"}, loads, opts)
		require.NoError(t, err)
		synctest.Wait()
		requireValue(t, b, "x", "new")
		close(hang)
		synctest.Wait()
		require.Zero(t, db.Stats().Loads.Abandoned)
		require.Equal(t, uint64(4), db.Stats().Loads.Discarded)
		requireValue(t, b, "x", "new")
	})
}

// A deadline of the request that began a load is not taken for that of the load.
func TestLoadTimeout_CallersDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{LoadTimeout: 2 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var waiters sync.WaitGroup
		began := time.Now()
		loads := 0
		load := func(ctx context.Context, _ *keepcache.Load) (any, error) {
			loads++
			<-ctx.Done()
			return nil, ctx.Err()
		}
		for i, ctx := range []context.Context{ctx, t.Context()} {
			waiters.Go(func() {
				_, err := s.b.GetOrLoad(ctx, "k", new(any), load, &s.opts)
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Duration(i+1)*time.Second {
					t.Error(i, err, time.Since(began))
				}
			})
			synctest.Wait()
		}
		waiters.Wait()
		require.Equal(t, 1, loads)
	})
}
