package keepcache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// remembers requires that a load fails, with an error that is remembered or not, and how many loads there were by then.
func (s *loadScene) remembers(want error, remembered bool, loads int) {
	s.t.Helper()
	_, err := s.b.GetOrLoad(s.t.Context(), "k", new(any), s.load, &s.opts)
	require.ErrorIs(s.t, err, want)
	var r *keepcache.RememberedError
	require.Equal(s.t, remembered, errors.As(err, &r))
	require.Equal(s.t, int64(loads), s.loads.Load())
}

// A source that is down is asked once in RetryAfter for a key that there is no value of; meanwhile the error is
// remembered.
func TestLoadFailed(t *testing.T) {
	for hold, opts := range map[time.Duration]keepcache.LoadOptions{time.Second: {},
		time.Minute: {RetryAfter: time.Minute}, 0: {RetryAfter: -1}} {
		t.Run(hold.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newLoadScene(t, opts)
				down := errors.New("down")
				s.answer(nil, down, 0)
				s.remembers(down, false, 1)
				if hold == 0 {
					s.remembers(down, false, 2)
					require.Zero(t, s.db.Stats().Loads.Remembered)
					return
				}
				s.remembers(down, true, 1)
				_, err := s.b.GetOrLoad(t.Context(), "k", new(any), s.load, &s.opts)
				var r *keepcache.RememberedError
				require.ErrorAs(t, err, &r)
				require.Equal(t, down, r.Err)
				require.Equal(t, time.Now(), r.At)
				require.Equal(t, time.Now().Add(hold), r.RetryAt)
				require.Equal(t, `down (load "k" in bucket "b", remembered)`, err.Error())
				many, err := s.b.GetOrLoadMany(t.Context(), []string{"k", "other"},
					func(_ context.Context, keys []string) (map[string]any, error) {
						require.Equal(t, []string{"other"}, keys)
						return map[string]any{"other": 1}, nil
					}, &s.opts)
				require.ErrorIs(t, err, down)
				require.Len(t, many, 1)
				stats := s.db.Stats()
				require.Equal(t, uint64(3), stats.Loads.Remembered)
				require.Equal(t, uint64(1), stats.Loads.Failures)
				require.Equal(t, uint64(5), stats.Misses)
				time.Sleep(hold - 1)
				s.remembers(down, true, 1)
				time.Sleep(time.Nanosecond)
				s.remembers(down, false, 2)
				time.Sleep(hold)
				s.answer("one", nil, 0)
				s.get("one", false, 3)
				_, err = s.b.Delete("k")
				require.NoError(t, err)
				s.get("one", false, 4)
				// Not for who wants every request to try again.
				_, err = s.b.Delete("k")
				require.NoError(t, err)
				s.answer(nil, down, 0)
				s.remembers(down, false, 5)
				s.remembers(down, true, 5)
				s.opts.RetryAfter = -1
				s.remembers(down, false, 6)
			})
		})
	}
}

// A thousand requests at once and one after the other: a source that is down is asked once a second.
func TestLoadFailed_Storm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{})
		s.answer(nil, errors.New("down"), time.Millisecond)
		var callers sync.WaitGroup
		for i := range 1000 {
			callers.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				_, err := s.b.GetOrLoad(t.Context(), "k", new(any), s.load, &s.opts)
				if err == nil {
					t.Error("no error")
				}
			})
		}
		callers.Wait()
		require.LessOrEqual(t, s.loads.Load(), int64(10))
		require.GreaterOrEqual(t, s.loads.Load(), int64(9))
	})
}

// Whatever writes or removes the key, or invalidates its tag, voids what is remembered of it, also in a bucket that
// there is not.
func TestLoadFailed_Void(t *testing.T) {
	for name, do := range map[string]func(db *keepcache.DB, b *keepcache.Bucket) error{
		"set and delete": func(_ *keepcache.DB, b *keepcache.Bucket) error {
			return errors.Join(b.Set("k", 1, 0), errorOf(b.Delete("k")))
		},
		"set that expires": func(_ *keepcache.DB, b *keepcache.Bucket) error {
			defer time.Sleep(time.Millisecond)
			return b.Set("k", 1, time.Millisecond)
		},
		"delete":      func(_ *keepcache.DB, b *keepcache.Bucket) error { return errorOf(b.Delete("k")) },
		"delete many": func(_ *keepcache.DB, b *keepcache.Bucket) error { return errorOf(b.DeleteMany([]string{"j", "k"})) },
		"delete prefix": func(_ *keepcache.DB, b *keepcache.Bucket) error {
			return errorOf(b.DeletePrefix(context.Background(), "k"))
		},
		"take":  func(_ *keepcache.DB, b *keepcache.Bucket) error { return errorOf(b.Take("k", nil)) },
		"clear": func(_ *keepcache.DB, b *keepcache.Bucket) error { return b.Clear(context.Background()) },
		"drop":  func(db *keepcache.DB, _ *keepcache.Bucket) error { return errorOf(db.DropBucket("b")) },
		"tag":   func(db *keepcache.DB, _ *keepcache.Bucket) error { return db.InvalidateTags("tag") },
		"batch": func(db *keepcache.DB, b *keepcache.Bucket) error {
			var batch keepcache.Batch
			batch.Delete(b, "k")
			return db.Apply(&batch)
		},
	} {
		for _, there := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", bucket there ", there), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newLoadScene(t, keepcache.LoadOptions{RetryAfter: time.Hour})
					s.b = s.b.WithTags("tag")
					if there {
						mustSet(t, s.b, "another", 1, 0)
					}
					down := errors.New("down")
					s.answer(nil, down, 0)
					s.remembers(down, false, 1)
					s.remembers(down, true, 1)
					require.NoError(t, do(s.db, s.b))
					s.remembers(down, false, 2)
					s.remembers(down, true, 2)
					// A load that was under way at that moment is not remembered.
					s.answer(nil, down, time.Second)
					require.NoError(t, do(s.db, s.b))
					var waiter sync.WaitGroup
					waiter.Go(func() { _, _ = s.b.GetOrLoad(t.Context(), "k", new(any), s.load, &s.opts) })
					synctest.Wait()
					require.NoError(t, do(s.db, s.b))
					waiter.Wait()
					s.remembers(down, false, 4)
				})
			})
		}
	}
}

func errorOf[T any](_ T, err error) error { return err }

// The end of the caller's ctx, ErrNotFound, ErrClosed and ErrLoadCycle are not remembered; panics, runtime.Goexit,
// values that are none and the end of LoadTimeout are.
func TestLoadFailed_Which(t *testing.T) {
	for name, c := range map[string]struct {
		load       func(ctx context.Context) (any, error)
		remembered bool
	}{
		"not found": {func(context.Context) (any, error) { return nil, keepcache.ErrNotFound }, false},
		"closed": {func(context.Context) (any, error) { return nil, fmt.Errorf("other: %w", keepcache.ErrClosed) },
			false},
		"cycle":       {func(context.Context) (any, error) { return nil, keepcache.ErrLoadCycle }, false},
		"panic":       {func(context.Context) (any, error) { panic("cause") }, true},
		"exit":        {func(context.Context) (any, error) { runtime.Goexit(); return nil, nil }, true},
		"unsupported": {func(context.Context) (any, error) { return make(chan int), nil }, true},
		"hangs":       {func(ctx context.Context) (any, error) { time.Sleep(time.Hour); return 1, nil }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newDB(t, nil).Bucket("b")
				get := func() (remembered bool) {
					_, err := b.GetOrLoad(t.Context(), "k", new(any),
						func(ctx context.Context, _ *keepcache.Load) (any, error) { return c.load(ctx) }, nil)
					require.Error(t, err)
					var r *keepcache.RememberedError
					return errors.As(err, &r)
				}
				require.False(t, get())
				require.Equal(t, c.remembered, get())
				time.Sleep(time.Hour)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		_, err := s.b.GetOrLoad(ctx, "k", new(any),
			func(context.Context, *keepcache.Load) (any, error) { cancel(); return nil, ctx.Err() }, nil)
		require.ErrorIs(t, err, context.Canceled)
		s.get("one", false, 1)
	})
}

// What is remembered is bounded in number and in bytes, and errors that are too long are cut.
func TestLoadFailed_Bounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, &keepcache.Options{MemoryBytes: 1 << 20})
		b := db.Bucket("b")
		long := errors.New(strings.Repeat("é", 1<<20))
		opts := &keepcache.LoadOptions{RetryAfter: time.Hour}
		get := func(i int, cause error) (remembered bool, err error) {
			_, err = b.GetOrLoad(t.Context(), numbered(i), new(any),
				func(context.Context, *keepcache.Load) (any, error) { return nil, cause }, opts)
			var r *keepcache.RememberedError
			return errors.As(err, &r), err
		}
		_, err := get(0, long)
		require.ErrorIs(t, err, long)
		remembered, err := get(0, nil)
		require.True(t, remembered)
		require.NotErrorIs(t, err, long)
		require.Less(t, len(err.Error()), 5<<10)
		require.Contains(t, err.Error(), "éé...")
		const n = 1000
		for i := range n {
			_, err := get(i, errors.New("down"))
			require.Error(t, err)
		}
		kept := 0
		for i := range n {
			if remembered, _ := get(i, nil); remembered {
				require.Greater(t, i, n/2, "the oldest go first")
				kept++
			}
		}
		require.Greater(t, kept, 100)
		require.Less(t, kept, 64<<10/256)
	})
}

// Where a failure cannot be stored beside a stale value, as in a DB that is open for reading only, it is remembered
// too.
func TestLoadFailed_ReadOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour})
		s.get("one", false, 1)
		require.NoError(t, s.db.Close())
		s.db = open(t, s.path, &keepcache.Options{ReadOnly: true})
		s.b = s.db.Bucket("b")
		time.Sleep(time.Minute)
		s.answer(nil, errors.New("down"), 0)
		s.get("one", true, 2)
		s.get("one", true, 2)
		time.Sleep(30 * time.Second)
		s.get("one", true, 3)
		s.get("one", true, 3)
	})
}

// A load that fails because the cache is closed says nothing of the source: after a restart the next request tries
// again.
func TestLoadFailed_Close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour})
		s.get("one", false, 1)
		time.Sleep(time.Minute)
		s.answer("two", nil, time.Hour)
		s.get("one", true, 2)
		s.db = reopen(t, s.db, s.path, nil)
		s.b = s.db.Bucket("b")
		s.answer("two", nil, 0)
		s.get("one", true, 3)
		s.get("two", false, 3)
	})
}

// Where memory is small as much of a failure is remembered as fits: the beginning of a text, and a panic without its
// stack.
func TestLoadFailed_Small(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, &keepcache.Options{MemoryBytes: 64 << 10})
		b := db.Bucket("b")
		key := strings.Repeat("k", 1000)
		causes := map[string]func() error{
			key:   func() error { return errors.New(strings.Repeat("e", 3<<10)) },
			"p":   func() error { panic("cause") },
			"all": func() error { return errors.New("down") },
		}
		for key, cause := range causes {
			load := func(context.Context, *keepcache.Load) (any, error) { return nil, deep(100, cause) }
			_, first := b.GetOrLoad(t.Context(), key, new(any), load, nil)
			_, err := b.GetOrLoad(t.Context(), key, new(any), load, nil)
			var r *keepcache.RememberedError
			require.ErrorAs(t, err, &r)
			require.Equal(t, first.Error()[:4], err.Error()[:4])
			require.Greater(t, len(err.Error()), min(len(first.Error()), 500))
		}
		var p *keepcache.PanicError
		_, err := b.GetOrLoad(t.Context(), "p", new(any), nil, nil)
		require.ErrorAs(t, err, &p)
		require.Equal(t, "cause", p.Value)
		require.Empty(t, p.Stack)
	})
}

// deep calls fn with so many calls below it.
//
//go:noinline
func deep(n int, fn func() error) error {
	if n == 0 {
		return fn()
	}
	return deep(n-1, fn)
}

// RetryAfter of -1 tries with every request, also where an earlier one has re-armed a stale value.
func TestLoadFailed_StaleAlways(t *testing.T) {
	for _, soft := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour, SoftTimeout: soft})
			s.get("one", false, 1)
			time.Sleep(time.Minute)
			s.answer(nil, errors.New("down"), 0)
			s.get("one", true, 2)
			s.get("one", true, 2)
			s.opts.RetryAfter = -1
			s.get("one", true, 3)
			s.get("one", true, 4)
			s.answer("two", nil, 0)
			s.get(map[bool]string{true: "one", false: "two"}[soft == 0], soft == 0, 5)
			s.get("two", false, 5)
		})
	}
	synctest.Test(t, func(t *testing.T) { // a fresh value, past RefreshAhead
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, RefreshAhead: 0.5})
		s.get("one", false, 1)
		time.Sleep(30 * time.Second)
		s.answer(nil, errors.New("down"), 0)
		s.get("one", false, 2)
		s.get("one", false, 2)
		s.opts.RetryAfter = -1
		s.get("one", false, 3)
	})
}

// A request that has found nothing, while another one loads a value, sees it go stale and fails to load it anew, is
// served that value, or tries itself.
func TestLoadFailed_Meanwhile(t *testing.T) {
	for hold, want := range map[time.Duration]string{-1: "two", 0: "one"} {
		synctest.Test(t, func(t *testing.T) {
			once := false
			opts := &keepcache.LoadOptions{TTL: time.Second, StaleFor: time.Hour}
			_, b := recursive(t, keepcache.Options{}, keepcache.EventMiss, func(b *keepcache.Bucket, _ keepcache.Event) {
				if once {
					return
				}
				once = true
				s := &source{value: "one"}
				for range 2 {
					_, err := b.GetOrLoad(context.Background(), "k", new(any), s.load, opts)
					if err != nil {
						t.Error(err)
					}
					time.Sleep(time.Second)
					s.answer(nil, errors.New("down"), 0)
				}
			})
			var got string
			asks := *opts
			asks.RetryAfter = hold
			result, err := b.GetOrLoad(t.Context(), "k", &got,
				func(context.Context, *keepcache.Load) (any, error) { return "two", nil }, &asks)
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.Equal(t, want == "one", result.Stale)
		})
	}
}

// While a failure is remembered, which each write is told of, a Set allocates no more than otherwise.
func TestLoadFailed_SetAllocs(t *testing.T) {
	if raced {
		t.Skip("the race detector has pools forget")
	}
	db := open(t, newPath(t), &keepcache.Options{
		MemoryBytes: 64 << 20, JournalBytes: 64 << 20, // so that nothing needs a commit meanwhile
		SyncInterval: -1, CommitInterval: -1, SweepInterval: -1, CompactBytes: -1,
	})
	b, opts := db.Bucket("b"), &keepcache.LoadOptions{RetryAfter: time.Minute}
	set := func() {
		if err := b.SetBytes("k", []byte("v"), 0); err != nil {
			t.Error(err)
		}
	}
	set() // which brings the bucket into being
	before := testing.AllocsPerRun(1000, set)
	fail := func(context.Context, *keepcache.Load) (any, error) { return nil, errors.New("down") }
	_, err := b.GetOrLoad(t.Context(), "other", new(any), fail, opts)
	require.ErrorContains(t, err, "down")
	require.LessOrEqual(t, testing.AllocsPerRun(1000, set), before)
	_, err = b.GetOrLoad(t.Context(), "other", new(any), fail, opts)
	require.ErrorAs(t, err, new(*keepcache.RememberedError))
}
