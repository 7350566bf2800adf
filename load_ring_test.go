package keepcache_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// ring is a set of keys, in buckets or DBs, whose loaders ask for the next one.
type ring struct {
	buckets []*keepcache.Bucket
	keys    []string
	many    bool // by GetOrLoadMany
	opts    *keepcache.LoadOptions
	before  func(i int) // what a loader does first
}

func (r *ring) get(ctx context.Context, i int) (value int, err error) {
	b, key := r.buckets[i%len(r.buckets)], r.keys[i]
	next := func(ctx context.Context) (int, error) {
		if r.before != nil {
			r.before(i)
		}
		value, err := r.get(ctx, (i+1)%len(r.keys))
		return value + 1, err
	}
	if r.many {
		values, err := keepcache.Of[int](b).GetOrLoadMany(ctx, []string{key, key + " beside"},
			func(ctx context.Context, keys []string) (map[string]int, error) {
				value, err := next(ctx)
				return map[string]int{key: value, key + " beside": value}, err
			}, r.opts)
		return values[key], err
	}
	_, err = b.GetOrLoad(ctx, key, &value, func(ctx context.Context, _ *keepcache.Load) (any, error) { return next(ctx) },
		r.opts)
	return value, err
}

func newRing(t *testing.T, n int, dbs int) *ring {
	r := &ring{}
	for range dbs {
		db := newDB(t, nil)
		r.buckets = append(r.buckets, db.Bucket("one"), db.Bucket("two"))
	}
	for i := range n {
		r.keys = append(r.keys, fmt.Sprint("key", i))
	}
	return r
}

// A ring of loaders that wait for each other is an error for the one that would close it, at once, whatever its length,
// across buckets and DBs, and also where each load was begun by a request of its own.
func TestLoadRing(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10} {
		for _, dbs := range []int{1, 2} {
			for _, many := range []bool{false, true} {
				for _, apart := range []bool{false, true} {
					t.Run(fmt.Sprint(n, " keys, ", dbs, " dbs, many ", many, ", begun apart ", apart), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							r := newRing(t, n, dbs)
							r.many = many
							began := time.Now()
							var callers sync.WaitGroup
							if apart {
								r.before = func(int) { time.Sleep(time.Second) }
							}
							for i := range n {
								if !apart && i > 0 {
									break
								}
								callers.Go(func() {
									_, err := r.get(t.Context(), i)
									if !errors.Is(err, keepcache.ErrLoadCycle) {
										t.Error(err)
									}
								})
							}
							callers.Wait()
							require.LessOrEqual(t, time.Since(began), time.Second)
							synctest.Wait()
							for _, b := range r.buckets {
								requireAbsent(t, b, "key0")
							}
						})
					})
				}
			}
		}
	}
}

// An error of a ring names its keys, and is not remembered.
func TestLoadRing_Error(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing(t, 3, 1)
		_, err := r.get(t.Context(), 0)
		require.ErrorIs(t, err, keepcache.ErrLoadCycle)
		require.ErrorContains(t, err, `loads wait for each other: "key2" waits for "key0" waits for "key1" waits for "key2" (load "key0"`)
		var remembered *keepcache.RememberedError
		for range 2 {
			_, err = r.get(t.Context(), 1)
			require.ErrorIs(t, err, keepcache.ErrLoadCycle)
			require.NotErrorAs(t, err, &remembered)
		}
		long := newRing(t, 100, 1)
		_, err = long.get(t.Context(), 0)
		require.ErrorIs(t, err, keepcache.ErrLoadCycle)
		require.ErrorContains(t, err, `waits for ... waits for`)
	})
}

// The loader that closes a ring may go on without: the others get what it brings.
func TestLoadRing_GoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		v := keepcache.Of[string](b)
		inner := func(ctx context.Context, _ *keepcache.Load) (string, error) {
			_, err := v.GetOrLoad(ctx, "a", nil, nil)
			if !errors.Is(err, keepcache.ErrLoadCycle) {
				return "", fmt.Errorf("no ring: %w", err)
			}
			return "b", nil
		}
		got, err := v.GetOrLoad(t.Context(), "a", func(ctx context.Context, _ *keepcache.Load) (string, error) {
			b, err := v.GetOrLoad(ctx, "b", inner, nil)
			return "a" + b, err
		}, nil)
		require.NoError(t, err)
		require.Equal(t, "ab", got)
		requireValue(t, b, "a", "ab")
		requireValue(t, b, "b", "b")
	})
}

// Loads that wait for the same key, for several at once, or for one that waits no more, are no ring.
func TestLoadRing_None(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		v := keepcache.Of[int](b)
		base := func(context.Context, *keepcache.Load) (int, error) { time.Sleep(time.Second); return 1, nil }
		sum := func(ctx context.Context, _ *keepcache.Load) (int, error) {
			var parts sync.WaitGroup
			var total atomic.Int64
			for _, key := range []string{"x", "y", "z", "x"} {
				parts.Go(func() {
					n, err := v.GetOrLoad(ctx, key, base, nil)
					if err != nil {
						t.Error(err)
					}
					total.Add(int64(n))
				})
			}
			parts.Wait()
			return int(total.Load()), nil
		}
		var callers sync.WaitGroup
		for i := range 10 {
			callers.Go(func() {
				n, err := v.GetOrLoad(t.Context(), numbered(i%3), sum, nil)
				if err != nil || n != 4 {
					t.Error(n, err)
				}
			})
		}
		callers.Wait()

		// "a" has waited for "b" and does so no more when the loader of "b" asks for "a".
		asked := make(chan struct{})
		callers.Go(func() {
			n, err := v.GetOrLoad(t.Context(), "a", func(ctx context.Context, _ *keepcache.Load) (int, error) {
				_, err := v.GetOrLoad(ctx, "b", func(ctx context.Context, _ *keepcache.Load) (int, error) {
					<-asked
					n, err := v.GetOrLoad(ctx, "a", nil, nil)
					return n + 1, err
				}, &keepcache.LoadOptions{HardTimeout: time.Second})
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				close(asked)
				time.Sleep(time.Second)
				return 5, nil
			}, nil)
			if err != nil || n != 5 {
				t.Error(n, err)
			}
		})
		callers.Wait()
		synctest.Wait()
		requireValue(t, b, "b", int64(6))
	})
}

// A ring that comes of refreshes in the background ends too, and what is stale is served.
func TestLoadRing_Stale(t *testing.T) {
	for _, soft := range []time.Duration{0, time.Hour} {
		t.Run(soft.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRing(t, 2, 1)
				r.opts = &keepcache.LoadOptions{TTL: time.Minute, StaleFor: 24 * time.Hour, SoftTimeout: soft, LoadTimeout: -1}
				for i, b := range r.buckets {
					_, err := b.GetOrLoad(t.Context(), r.keys[i], new(any),
						func(context.Context, *keepcache.Load) (any, error) { return i * 100, nil }, r.opts)
					require.NoError(t, err)
				}
				time.Sleep(time.Minute)
				began := time.Now()
				n, err := r.get(t.Context(), 0)
				require.NoError(t, err)
				synctest.Wait()
				require.Zero(t, time.Since(began))
				if soft > 0 {
					require.Equal(t, 2, n, "1 more than key1, which is 1 more than what was stale")
				}
				// One of them is stale and the other gone: its refresh waits for a load that waits for the refresh.
				_, err = r.buckets[1].Delete(r.keys[1])
				require.NoError(t, err)
				time.Sleep(time.Hour)
				began = time.Now()
				_, err = r.get(t.Context(), 0)
				require.NoError(t, err)
				synctest.Wait()
				require.Zero(t, time.Since(began))
			})
		})
	}
}

// Loads that nest without end are an error, and no end of memory.
func TestLoadRing_Depth(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	var deepest int
	var load keepcache.Loader
	load = func(ctx context.Context, l *keepcache.Load) (any, error) {
		deepest++
		var n int
		_, err := b.GetOrLoad(ctx, numbered(deepest), &n, load, nil)
		return n + 1, err
	}
	_, err := b.GetOrLoad(t.Context(), numbered(0), new(int), load, nil)
	require.ErrorIs(t, err, keepcache.ErrLoadCycle)
	require.LessOrEqual(t, deepest, 1002)
}
