package keepcache_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// loadEvents are what is told of around a load.
const loadEvents = keepcache.EventLoad | keepcache.EventLoadFailed | keepcache.EventRefresh |
	keepcache.EventCorrupt | keepcache.EventDelete

// requestInHandler asks for a key, and fails the test if that waits for longer than any load takes in it.
func requestInHandler(t *testing.T, b *keepcache.Bucket, key string, opts *keepcache.LoadOptions) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := b.GetOrLoad(ctx, key, new(any),
		func(context.Context, *keepcache.Load) (any, error) { return "of the handler", nil }, opts)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error("a handler that asks for a key waited for its load without end:", key)
	}
}

// A handler may ask for the keys of a load that it is told of, and for those that are loaded with it.
func TestLoadEvents_Ask(t *testing.T) {
	down := errors.New("down")
	answers := map[string]func(context.Context, *keepcache.Load) (any, error){
		"a value":         func(context.Context, *keepcache.Load) (any, error) { return 1, nil },
		"failure":         func(context.Context, *keepcache.Load) (any, error) { return nil, down },
		"panic":           func(context.Context, *keepcache.Load) (any, error) { panic(down) },
		"none":            func(context.Context, *keepcache.Load) (any, error) { return nil, keepcache.ErrNotFound },
		"cannot be saved": func(context.Context, *keepcache.Load) (any, error) { return make([]byte, 2<<20), nil },
		"not to be saved": func(_ context.Context, l *keepcache.Load) (any, error) { l.NoStore = true; return 1, nil },
		"late":            func(context.Context, *keepcache.Load) (any, error) { time.Sleep(5 * time.Second); return 1, nil },
	}
	for name, load := range answers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told atomic.Int64
				var asked atomic.Pointer[[]string]
				asked.Store(new([]string))
				opts := &keepcache.LoadOptions{TTL: time.Second, StaleFor: time.Hour, RetryAfter: -1, LoadTimeout: 2 * time.Second,
					SoftTimeout: 10 * time.Second}
				_, b := recursive(t, keepcache.Options{MaxValueBytes: 1 << 20}, loadEvents,
					func(b *keepcache.Bucket, _ keepcache.Event) {
						told.Add(1)
						for _, key := range *asked.Load() {
							requestInHandler(t, b, key, opts)
						}
					})
				value := func(context.Context, *keepcache.Load) (any, error) { return 1, nil }
				for i := range 4 {
					keys := []string{numbered(3 * i), numbered(3*i + 1), numbered(3*i + 2)}
					asked.Store(&keys)
					if stale := i%2 == 0; stale {
						for _, key := range keys {
							_, err := b.GetOrLoad(t.Context(), key, new(any), value, opts)
							require.NoError(t, err)
						}
						time.Sleep(2 * time.Minute)
					}
					told.Store(0)
					began := time.Now()
					if many := i/2 == 0; many {
						_, _ = b.GetOrLoadMany(t.Context(), keys, func(ctx context.Context, keys []string) (map[string]any, error) {
							value, err := load(ctx, &keepcache.Load{})
							values := map[string]any{}
							for _, key := range keys {
								values[key] = value
							}
							return values, err
						}, opts)
					} else {
						_, _ = b.GetOrLoad(t.Context(), keys[0], new(any), load, opts)
					}
					require.LessOrEqual(t, time.Since(began), 2*time.Second)
					time.Sleep(2 * time.Minute)
					require.Positive(t, told.Load())
				}
			})
		})
	}
}

// A handler of EventRefresh may ask for the key, also one who waits for the load.
func TestLoadEvents_Refresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		var mu sync.Mutex
		opts := keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour}
		waits := opts
		waits.SoftTimeout = 2 * time.Hour
		_, b := recursive(t, keepcache.Options{}, keepcache.EventRefresh|keepcache.EventLoad,
			func(b *keepcache.Bucket, e keepcache.Event) {
				if e.Kind == keepcache.EventRefresh {
					requestInHandler(t, b, e.Key, &waits)
					time.Sleep(time.Second)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, e.Kind.String())
			})
		s := &source{value: "one"}
		for range 2 {
			_, err := b.GetOrLoad(t.Context(), "k", new(any), s.load, &opts)
			require.NoError(t, err)
			time.Sleep(time.Minute)
			s.answer("two", nil, 0)
		}
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, []string{"load", "refresh", "load"}, order)
		require.Equal(t, int64(2), s.loads.Load())
	})
}

// A handler that takes its time delays nobody who waits for the load.
func TestLoadEvents_Slow(t *testing.T) {
	for name, cause := range map[string]error{"load": nil, "failure": errors.New("down")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, b := recursive(t, keepcache.Options{}, loadEvents,
					func(*keepcache.Bucket, keepcache.Event) { time.Sleep(time.Minute) })
				s := &source{}
				s.answer(1, cause, time.Second)
				began := time.Now()
				var waiters sync.WaitGroup
				for range 3 {
					waiters.Go(func() {
						_, err := b.GetOrLoad(t.Context(), "k", new(any), s.load, nil)
						if !errors.Is(err, cause) || time.Since(began) != time.Second {
							t.Error(err, time.Since(began))
						}
					})
				}
				waiters.Wait()
				_, err := b.GetOrLoadMany(t.Context(), []string{"x", "y", "z"},
					func(_ context.Context, keys []string) (map[string]any, error) {
						return map[string]any{"x": 1, "y": 1, "z": 1}, cause
					}, nil)
				require.ErrorIs(t, err, cause)
				require.Equal(t, time.Second, time.Since(began))
				time.Sleep(10 * time.Minute)
			})
		})
	}
}

// A handler that is told of a damaged entry may ask for it: one who reads it for a load tells nobody.
func TestLoadEvents_Corrupt(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	mustSet(t, db.Bucket("b"), "k", "value", 0)
	require.NoError(t, db.Close())
	patch(t, path, "b", "k", func(stored []byte) []byte {
		stored[storedValue+2] ^= 1
		return stored
	})
	for _, readOnly := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			told := 0
			var b *keepcache.Bucket
			db := openDamaged(t, path, &keepcache.Options{ReadOnly: readOnly, NoLock: readOnly, Events: keepcache.Events{
				Kinds: keepcache.EventCorrupt,
				Handle: func(keepcache.Event) {
					if told++; told == 2 {
						requestInHandler(t, b, "k", nil)
					}
				},
			}})
			b = db.Bucket("b")
			began := time.Now()
			_, err := b.GetOrLoad(t.Context(), "k", new(any),
				func(context.Context, *keepcache.Load) (any, error) { return 1, nil }, nil)
			require.NoError(t, err)
			require.Zero(t, time.Since(began))
			require.Equal(t, 1, told)
			require.NoError(t, db.Close())
		})
	}
}

// Values that a loader has brought in time are not thrown away because it takes longer to store and to tell of the
// first of them.
func TestLoadTimeout_WhileStoring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, b := recursive(t, keepcache.Options{}, keepcache.EventLoad,
			func(*keepcache.Bucket, keepcache.Event) { time.Sleep(time.Second) })
		entries, err := b.GetOrLoadMany(t.Context(), []string{"x", "y", "z"},
			func(context.Context, []string) (map[string]any, error) {
				time.Sleep(99 * time.Millisecond)
				return map[string]any{"x": 1, "y": 2, "z": 3}, nil
			}, &keepcache.LoadOptions{LoadTimeout: 100 * time.Millisecond})
		require.NoError(t, err)
		require.Len(t, entries, 3)
		time.Sleep(time.Minute)
		stats := db.Stats().Loads
		require.Zero(t, stats.TimedOut)
		require.Zero(t, stats.Abandoned)
		require.Zero(t, stats.Discarded)
		requireValue(t, b, "z", int64(3))
	})
}

// Refreshes of many keys of which others write some meanwhile are told of, and end nothing.
func TestLoadEvents_RefreshMany(t *testing.T) {
	db := newDB(t, nil)
	w := db.Watch(&keepcache.WatchOptions{Kinds: keepcache.EventRefresh, Buffer: 10_000})
	defer w.Close()
	keys := []string{"a", "b", "c", "d"}
	v := keepcache.Of[int](db.Bucket("b"))
	opts := keepcache.LoadOptions{TTL: 1, StaleFor: time.Hour}
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for range 150 {
				_, err := v.GetOrLoadMany(t.Context(), keys, func(_ context.Context, keys []string) (map[string]int, error) {
					values := make(map[string]int)
					for _, key := range keys {
						values[key] = 1
					}
					return values, nil
				}, &opts)
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	require.NotEmpty(t, w.Events())
}

// A handler of EventRefresh that does not return keeps the slots of background loads, and not a goroutine for each of
// them.
func TestLoadEvents_RefreshHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		_, b := recursive(t, keepcache.Options{}, keepcache.EventRefresh,
			func(*keepcache.Bucket, keepcache.Event) { <-release })
		s := &source{value: "one"}
		opts := keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour}
		const keys = 300
		for i := range keys {
			_, err := b.GetOrLoad(t.Context(), numbered(i), new(any), s.load, &opts)
			require.NoError(t, err)
		}
		time.Sleep(2 * time.Minute)
		before := runtime.NumGoroutine()
		for i := range keys {
			_, err := b.GetOrLoad(t.Context(), numbered(i), new(any), s.load, &opts)
			require.NoError(t, err)
		}
		synctest.Wait()
		require.Less(t, runtime.NumGoroutine()-before, keys)
		close(release)
	})
}
