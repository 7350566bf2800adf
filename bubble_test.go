package keepcache_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// A cache that was opened outside of a bubble of testing/synctest is used inside of one, with everything that there is,
// and then outside again: no goroutine stays behind in the bubble, and nothing of it is met by others.
func TestBubble(t *testing.T) {
	for name, mode := range map[string]keepcache.SyncMode{"periodic": keepcache.SyncPeriodic,
		"always": keepcache.SyncAlways} {
		t.Run(name, func(t *testing.T) {
			db := newDB(t, &keepcache.Options{
				Sync: mode, JournalBytes: 256 << 10, MemoryBytes: 1 << 20, CommitInterval: 5 * time.Millisecond,
				SweepInterval: 5 * time.Millisecond,
				SyncInterval:  time.Millisecond,
				Buckets:       map[string]keepcache.BucketOptions{"few": {MaxEntries: 3}, "sliding": {Sliding: true}},
				Events:        keepcache.Events{Handle: func(keepcache.Event) {}, Kinds: ^keepcache.EventKind(0)},
			})
			for range 2 {
				var beside sync.WaitGroup
				var stop atomic.Bool
				beside.Go(func() { // outside, and they wait for each other
					for i := 0; !stop.Load(); i++ {
						if err := errors.Join(db.Set(numbered(i%100), make([]byte, 1000), 0), db.Sync(t.Context())); err != nil {
							t.Error(err)
						}
					}
				})
				synctest.Test(t, func(*testing.T) { useAll(t, db) })
				stop.Store(true)
				beside.Wait()
				useAll(t, db)
			}
		})
	}
}

// A cache that was opened outside can be closed inside.
func TestBubble_Close(t *testing.T) {
	db := newDB(t, nil)
	synctest.Test(t, func(t *testing.T) {
		mustSet(t, db.Bucket("b"), "k", 1, 0)
		require.NoError(t, db.Close())
	})
}

// Callers inside and outside that contend for a key wait for their turns in one queue.
func TestBubble_Turns(t *testing.T) {
	db := newDB(t, nil)
	b := db.Bucket("b")
	// contend updates a key that is written anew each time, so that the caller queues for it, and then has done what it is
	// given.
	contend := func(done func()) error {
		runs := 0
		return update(b, "k", func(keepcache.Entry, bool) (any, error) {
			if runs++; runs <= 4 {
				return runs, b.Set("k", -runs, 0)
			}
			if runs == 5 {
				done()
			}
			return runs, nil
		})
	}
	begin, over := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		<-begin
		over <- contend(func() {})
	}()
	synctest.Test(t, func(t *testing.T) {
		require.NoError(t, contend(func() { // whose turn it is
			begin <- struct{}{}
			require.NoError(t, <-over)
		}))
	})
}

// Callers inside that contend for a key take turns although the one whose turn it is sleeps: the clock of the bubble
// goes on, also for those who wait.
func TestBubble_TurnsSleep(t *testing.T) {
	const callers = 8
	db := newDB(t, nil)
	b := db.Bucket("b")
	synctest.Test(t, func(t *testing.T) {
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				if err := update(b, "k", func(e keepcache.Entry, found bool) (any, error) {
					var n int
					if found {
						if err := e.Decode(&n); err != nil {
							return nil, err
						}
					}
					time.Sleep(time.Second)
					return n + 1, nil
				}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
	var n int
	_, err := b.Get("k", &n)
	require.NoError(t, err)
	require.Equal(t, callers, n)
}

// It can be closed inside where a loader of the bubble does not heed its ctx: the clock of the bubble goes on
// meanwhile.
func TestBubble_CloseLoads(t *testing.T) {
	for takes, want := range map[time.Duration]time.Duration{time.Second: time.Second, time.Minute: 5 * time.Second} {
		db := newDB(t, nil)
		synctest.Test(t, func(t *testing.T) {
			var waiter sync.WaitGroup
			began := time.Now()
			waiter.Go(func() {
				_, err := db.Bucket("b").GetOrLoad(t.Context(), "k", new(any), func(context.Context, *keepcache.Load) (any, error) {
					time.Sleep(takes)
					return 1, nil
				}, nil)
				if (err != nil) != (takes > 5*time.Second) {
					t.Error(err)
				}
			})
			synctest.Wait()
			require.NoError(t, db.Close())
			require.InDelta(t, want, time.Since(began), float64(time.Millisecond))
			waiter.Wait()
			time.Sleep(time.Hour)
		})
	}
}

// A load that was begun inside can be waited for outside, and what failed inside is nothing that the outside has to
// mind.
func TestBubble_Loads(t *testing.T) {
	db := newDB(t, nil)
	b := db.Bucket("b")
	var outside sync.WaitGroup
	outside.Go(func() {
		for db.Stats().Loads.Running == 0 {
			runtime.Gosched()
		}
		var got int
		_, err := b.GetOrLoad(context.Background(), "k", &got,
			func(context.Context, *keepcache.Load) (any, error) { return 1, nil }, nil)
		if err != nil || got != 1 {
			t.Error(got, err)
		}
	})
	fails := func(key string) {
		_, err := b.GetOrLoad(context.Background(), key, new(any),
			func(context.Context, *keepcache.Load) (any, error) { return nil, errors.New("down") }, nil)
		require.Error(t, err)
	}
	synctest.Test(t, func(t *testing.T) {
		_, err := b.GetOrLoad(context.Background(), "k", new(any), func(context.Context, *keepcache.Load) (any, error) {
			for i := 0; i < 10_000; i++ { // until the other one waits, or not quite
				if runtime.Gosched(); db.Stats().Misses < 2 {
					i = 0
				}
			}
			return 1, nil
		}, nil)
		require.NoError(t, err)
		fails("inside")
	})
	outside.Wait()
	fails("outside")
}

// A reader beside the owner that was opened outside can be used inside, and closed there or outside: the timer of the
// failures that it remembers outlives the bubble, and Close lets the clock of the bubble go on while a loader sleeps.
func TestBubble_NoLock(t *testing.T) {
	owner := newDB(t, nil)
	mustSet(t, owner.Bucket("b"), "there", 1, 0)
	open := func() *keepcache.DB {
		db, err := keepcache.Open(owner.Path(), &keepcache.Options{NoLock: true, ReadOnly: true})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		return db
	}
	fails := func(db *keepcache.DB, key string) {
		_, err := db.Bucket("b").GetOrLoad(context.Background(), key, new(any),
			func(context.Context, *keepcache.Load) (any, error) { return nil, errors.New("down") }, nil)
		require.ErrorContains(t, err, "down")
	}
	db := open()
	synctest.Test(t, func(*testing.T) { fails(db, "inside") })
	fails(db, "outside")
	db = open()
	synctest.Test(t, func(*testing.T) { fails(db, "inside") })
	require.NoError(t, db.Close())

	db = open()
	synctest.Test(t, func(t *testing.T) {
		var waiter sync.WaitGroup
		began := time.Now()
		waiter.Go(func() {
			_, _ = db.Bucket("b").GetOrLoad(t.Context(), "k", new(any), func(context.Context, *keepcache.Load) (any, error) {
				time.Sleep(time.Second)
				return 1, nil
			}, nil)
		})
		synctest.Wait()
		require.NoError(t, db.Close())
		require.InDelta(t, time.Second, time.Since(began), float64(time.Millisecond))
		waiter.Wait()
	})
}

// useAll uses everything of a cache.
func useAll(t *testing.T, db *keepcache.DB) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := db.Watch(&keepcache.WatchOptions{Buffer: 10})
	defer w.Close()
	b, few, sliding := db.Bucket("b").WithTags("t"), db.Bucket("few"), db.Bucket("sliding")
	for i := range 30 { // more than the journal and memory have room for
		many := make(map[string][]byte)
		for k := range 20 {
			many[numbered(i*20+k)] = make([]byte, 1000)
		}
		require.NoError(t, keepcache.Of[[]byte](b).SetMany(many, time.Hour))
		if i%5 == 0 {
			mustSet(t, few, numbered(i), i, 0)
			mustSet(t, sliding, numbered(i), i, time.Minute)
			_, err := sliding.Exists(numbered(i))
			require.NoError(t, err)
		}
	}
	if len(w.Events()) == 0 {
		t.Error("nothing was watched")
	}
	require.NoError(t, b.SetBytes("large", make([]byte, 300<<10), 0)) // past the journal
	require.NoError(t, update(b, "n", func(keepcache.Entry, bool) (any, error) { return 1, nil }))
	for range 2 {
		var got int
		_, err := b.GetOrLoad(ctx, "loaded", &got, func(context.Context, *keepcache.Load) (any, error) { return 1, nil },
			&keepcache.LoadOptions{TTL: time.Nanosecond, StaleFor: time.Hour, RetryAfter: -1})
		require.NoError(t, err)
	}
	_, err := b.DeletePrefix(ctx, "")
	require.NoError(t, err)
	require.NoError(t, db.InvalidateTags("t"))
	require.NoError(t, few.Clear(ctx))
	_, err = db.DropBucket("sliding")
	require.NoError(t, err)
	require.NoError(t, db.Sync(ctx))
	_, err = db.Sweep(ctx)
	require.NoError(t, err)
	if _, err = db.Buckets(); err != nil {
		t.Error(err)
	}
	require.NoError(t, db.Backup(ctx, io.Discard))
	if runtime.GOOS != "windows" { // where a file that is open cannot be replaced
		require.NoError(t, db.Compact(ctx))
	}
	report, err := db.Verify(ctx)
	require.NoError(t, err)
	require.True(t, report.OK(), "%v", report.Problems)
	_ = db.Stats()
}
