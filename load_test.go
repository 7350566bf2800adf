package keepcache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// source is what a loader loads from: it counts, and answers what it is told to.
type source struct {
	loads atomic.Int64
	mu    sync.Mutex
	value any
	err   error
	takes time.Duration
}

func (s *source) answer(value any, err error, takes time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value, s.err, s.takes = value, err, takes
}

func (s *source) load(ctx context.Context, _ *keepcache.Load) (any, error) {
	s.loads.Add(1)
	s.mu.Lock()
	value, err, takes := s.value, s.err, s.takes
	s.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return value, err
}

// loadScene is a bucket with a source behind it.
type loadScene struct {
	*source
	t    *testing.T
	path string
	db   *keepcache.DB
	b    *keepcache.Bucket
	opts keepcache.LoadOptions
}

func newLoadScene(t *testing.T, opts keepcache.LoadOptions) *loadScene {
	t.Helper()
	path := newPath(t)
	db := open(t, path, nil)
	return &loadScene{&source{value: "one"}, t, path, db, db.Bucket("b"), opts}
}

// get requires what GetOrLoad brings, and how many loads there were by then.
func (s *loadScene) get(want string, stale bool, loads int) {
	s.t.Helper()
	var got string
	result, err := s.b.GetOrLoad(s.t.Context(), "k", &got, s.load, &s.opts)
	require.NoError(s.t, err)
	require.Equal(s.t, want, got)
	require.Equal(s.t, stale, result.Stale)
	synctest.Wait()
	require.Equal(s.t, int64(loads), s.loads.Load())
}

// fails requires that GetOrLoad fails.
func (s *loadScene) fails(want error, loads int) {
	s.t.Helper()
	got := "untouched"
	_, err := s.b.GetOrLoad(s.t.Context(), "k", &got, s.load, &s.opts)
	require.ErrorIs(s.t, err, want)
	require.Equal(s.t, "untouched", got)
	synctest.Wait()
	require.Equal(s.t, int64(loads), s.loads.Load())
}

// The timeline: fresh until TTL, stale until StaleFor after that, gone then. A stale value is served at once
// and loaded anew in the background, once.
func TestLoad_Timeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour})
		s.get("one", false, 1)
		requireTTL(t, s.b, "k", time.Minute)
		time.Sleep(time.Minute - 1)
		s.get("one", false, 1)
		time.Sleep(1)
		s.answer("two", nil, time.Second)
		s.get("one", true, 2)
		s.get("one", true, 2) // the reload is under way
		time.Sleep(time.Second)
		synctest.Wait()
		s.get("two", false, 2)
		s.answer("three", nil, 0)
		time.Sleep(time.Minute + time.Hour)
		s.get("three", false, 3)
		stats := s.db.Stats()
		require.Equal(t, uint64(3), stats.Loads.Loads)
		require.Equal(t, uint64(2), stats.Loads.Stale)
		require.Equal(t, uint64(1), stats.Loads.Refreshes)
		require.Zero(t, stats.Loads.Failures)
	})
}

// In the stale time every other operation takes the entry for absent; Stat sees it, Delete removes it.
func TestLoad_StaleIsAbsentElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour})
		s.get("one", false, 1)
		for _, commit := range []bool{false, true} {
			if commit {
				committed(t, s.db)
			}
			time.Sleep(time.Minute)
			committed(t, s.db)
			entry, found, err := s.b.Stat("k")
			require.NoError(t, err)
			require.True(t, found)
			require.True(t, time.Now().After(entry.FreshUntil) || time.Now().Equal(entry.FreshUntil))
			require.Equal(t, time.Hour, entry.GoneAt.Sub(entry.FreshUntil))
			for name, call := range map[string]func() (bool, error){
				"get":    func() (bool, error) { return s.b.Get("k", new(any)) },
				"exists": func() (bool, error) { return s.b.Exists("k") },
				"ttl":    func() (bool, error) { _, found, err := s.b.TTL("k"); return found, err },
				"touch":  func() (bool, error) { return s.b.Touch("k", time.Hour) },
				"cas":    func() (bool, error) { return s.b.CompareAndSwap("k", entry.Revision, 1) },
			} {
				found, err := call()
				require.NoError(t, err)
				require.False(t, found, name)
			}
			n, err := s.b.Len()
			require.NoError(t, err)
			require.Zero(t, n)
			require.Empty(t, keys(t, s.b, ""))
			many, err := s.b.GetMany([]string{"k"})
			require.NoError(t, err)
			require.Empty(t, many)
			report, err := s.db.Verify(t.Context())
			require.NoError(t, err)
			require.Equal(t, 1, report.Entries)
		}
		found, err := s.b.Delete("k")
		require.NoError(t, err)
		require.False(t, found)
		requireAbsent(t, s.b, "k")

		// Add succeeds, and a sweep at the end of the stale time removes what is left.
		s.get("one", false, 2)
		time.Sleep(time.Minute)
		added, err := s.b.Add("k", "added", 0)
		require.NoError(t, err)
		require.True(t, added)
		requireValue(t, s.b, "k", "added")
		_, err = s.b.Delete("k")
		require.NoError(t, err)
		s.get("one", false, 3)
		time.Sleep(time.Minute + time.Hour)
		committed(t, s.db)
		require.Zero(t, s.db.Stats().Entries)
	})
}

// A Touch of a fresh entry moves both times.
func TestLoad_Touch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour})
		s.get("one", false, 1)
		found, err := s.b.Touch("k", 10*time.Minute)
		require.NoError(t, err)
		require.True(t, found)
		time.Sleep(10*time.Minute + time.Hour - 1)
		s.get("one", true, 2)
	})
}

// A restart changes nothing: the stale value is served, and one reload runs.
func TestLoad_Restart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour, NegativeTTL: time.Hour})
		s.get("one", false, 1)
		time.Sleep(30 * time.Minute)
		s.db = reopen(t, s.db, s.path, nil)
		s.b = s.db.Bucket("b")
		s.answer("two", nil, time.Second)
		s.get("one", true, 2)
		s.get("one", true, 2)
		time.Sleep(time.Second)
		synctest.Wait()
		s.get("two", false, 2)
		s.answer(nil, errors.New("down"), 0)
		time.Sleep(2 * time.Minute)
		s.get("two", true, 3)
		s.db = reopen(t, s.db, s.path, nil)
		s.b = s.db.Bucket("b")
		time.Sleep(20 * time.Second)
		s.get("two", true, 3) // it has failed lately
		s.answer(nil, keepcache.ErrNotFound, 0)
		time.Sleep(10 * time.Second)
		s.get("two", true, 4)
		s.db = reopen(t, s.db, s.path, nil)
		s.b = s.db.Bucket("b")
		s.fails(keepcache.ErrNotFound, 4)
	})
}

// A source that is down for an hour, with 100 requests a second: every request is served, by 121 loads at most.
func TestLoad_FailSafe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := atomic.Int64{}
		path := newPath(t)
		db := open(t, path, &keepcache.Options{Events: keepcache.Events{
			Handle: func(keepcache.Event) { failed.Add(1) }, Kinds: keepcache.EventLoadFailed,
		}})
		s := &loadScene{&source{value: "one"}, t, path, db, db.Bucket("b"), keepcache.LoadOptions{TTL: time.Minute, StaleFor: 2 * time.Hour}}
		s.get("one", false, 1)
		time.Sleep(time.Minute)
		s.answer(nil, errors.New("down"), 0)
		const requests = 3600 * 100
		for range requests {
			var got string
			result, err := s.b.GetOrLoad(t.Context(), "k", &got, s.load, &s.opts)
			require.NoError(t, err)
			require.True(t, result.Stale && got == "one")
			time.Sleep(10 * time.Millisecond)
		}
		loads := s.loads.Load() - 1
		require.LessOrEqual(t, loads, int64(121))
		require.GreaterOrEqual(t, loads, int64(115))
		stats := s.db.Stats().Loads
		require.Equal(t, uint64(loads), stats.Failures)
		require.Equal(t, loads, failed.Load())
		require.Equal(t, uint64(requests), stats.Stale)
		s.answer("two", nil, 0)
		time.Sleep(30 * time.Second)
		s.get("one", true, int(loads)+2)
		s.get("two", false, int(loads)+2)
	})
}

// A failed load with nothing to serve is an error that the next request tries again.
func TestLoad_Error(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute})
		cause := errors.New("down")
		s.answer(nil, cause, 0)
		s.fails(cause, 1)
		s.fails(cause, 2)
		s.answer(make(chan int), nil, 0)
		s.fails(keepcache.ErrUnsupportedValue, 3)
		s.answer(1, nil, 0)
		var got string
		_, err := s.b.GetOrLoad(t.Context(), "k", &got, s.load, &s.opts)
		require.Error(t, err, "a 1 is no string")
		requireValue(t, s.b, "k", int64(1))
		for _, bad := range []keepcache.LoadOptions{{TTL: -5}, {StaleFor: -1}, {RetryAfter: -2}, {Jitter: 2}, {RefreshAhead: -1}, {HardTimeout: -1}} {
			_, err := s.b.GetOrLoad(t.Context(), "other", &got, s.load, &bad)
			requireError(t, err, keepcache.ErrInvalidTTL, "load", s.path)
		}
		_, err = s.b.GetOrLoad(t.Context(), "", &got, s.load, nil)
		requireError(t, err, keepcache.ErrInvalidKey, "load", s.path)
		require.NoError(t, s.db.Close())
		_, err = s.b.GetOrLoad(t.Context(), "k", &got, s.load, nil)
		requireError(t, err, keepcache.ErrClosed, "load", s.path)
	})
}

// The first request after RefreshAhead of the lifetime refreshes in the background, and only one does.
func TestLoad_RefreshAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: 10 * time.Minute, RefreshAhead: 0.8})
		s.get("one", false, 1)
		time.Sleep(8*time.Minute - time.Millisecond)
		s.get("one", false, 1)
		time.Sleep(time.Millisecond)
		s.answer("two", nil, time.Second)
		s.get("one", false, 2)
		s.get("one", false, 2)
		time.Sleep(time.Second)
		synctest.Wait()
		s.get("two", false, 2)
		// A refresh that fails is not tried again at once, and the value stays fresh.
		time.Sleep(9 * time.Minute)
		s.answer(nil, errors.New("down"), 0)
		s.get("two", false, 3)
		s.get("two", false, 3)
		time.Sleep(30 * time.Second)
		s.get("two", false, 4)
	})
}

// SoftTimeout: a request with a stale value waits that long for a fresh one. HardTimeout: one without waits that
// long. In both cases the load goes on and is stored.
func TestLoad_Timeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour, SoftTimeout: time.Second, HardTimeout: 3 * time.Second})
		s.answer("one", nil, 5*time.Second)
		start := time.Now()
		s.fails(context.DeadlineExceeded, 1)
		require.Equal(t, 3*time.Second, time.Since(start))
		time.Sleep(2 * time.Second)
		s.get("one", false, 1)

		time.Sleep(time.Minute)
		s.answer("two", nil, 500*time.Millisecond)
		s.get("two", false, 2) // in time
		time.Sleep(time.Minute)
		s.answer("three", nil, 2*time.Second)
		start = time.Now()
		s.get("two", true, 3)
		require.Equal(t, time.Second, time.Since(start))
		time.Sleep(time.Second)
		s.get("three", false, 3)
		// A load that fails while a request waits is told in its result.
		time.Sleep(time.Minute)
		cause := errors.New("down")
		s.answer(nil, cause, 0)
		var got string
		result, err := s.b.GetOrLoad(t.Context(), "k", &got, s.load, &s.opts)
		require.NoError(t, err)
		require.True(t, result.Stale)
		require.ErrorIs(t, result.Err, cause)
	})
}

// ErrNotFound is remembered for NegativeTTL, and what it is remembered by is absent to everything else.
func TestLoad_Negative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, NegativeTTL: 10 * time.Second})
		s.answer(nil, fmt.Errorf("no such user: %w", keepcache.ErrNotFound), 0)
		s.fails(keepcache.ErrNotFound, 1)
		s.fails(keepcache.ErrNotFound, 1)
		require.Equal(t, uint64(1), s.db.Stats().Loads.NegativeHits)
		require.Zero(t, s.db.Stats().Loads.Failures)
		requireAbsent(t, s.b, "k")
		committed(t, s.db)
		requireAbsent(t, s.b, "k")
		added, err := s.b.Add("k", "added", 0)
		require.NoError(t, err)
		require.True(t, added)
		s.get("added", false, 1)
		_, err = s.b.Delete("k")
		require.NoError(t, err)
		s.fails(keepcache.ErrNotFound, 2)
		found, err := s.b.Delete("k")
		require.NoError(t, err)
		require.False(t, found, "there is no value")
		s.fails(keepcache.ErrNotFound, 3)
		time.Sleep(10 * time.Second)
		s.answer("one", nil, 0)
		s.get("one", false, 4)

		// Without NegativeTTL nothing is remembered, and a stale value is not served any more.
		s.opts = keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour}
		_, err = s.b.Delete("k")
		require.NoError(t, err)
		s.get("one", false, 5)
		time.Sleep(time.Minute)
		s.answer(nil, keepcache.ErrNotFound, 0)
		s.get("one", true, 6)
		s.fails(keepcache.ErrNotFound, 7)
	})
}

// Jitter spreads the deadlines of what was loaded together, and never prolongs one.
func TestLoad_Jitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		seen := map[time.Duration]bool{}
		opts := &keepcache.LoadOptions{TTL: time.Hour, Jitter: 0.25}
		for i := range 50 {
			_, err := b.GetOrLoad(t.Context(), numbered(i), new(any), func(context.Context, *keepcache.Load) (any, error) { return i, nil }, opts)
			require.NoError(t, err)
			ttl, _, err := b.TTL(numbered(i))
			require.NoError(t, err)
			require.LessOrEqual(t, ttl, time.Hour)
			require.Greater(t, ttl, 44*time.Minute)
			seen[ttl] = true
		}
		require.Greater(t, len(seen), 40)
	})
}

// A loader may set lifetime, tags and ETag, say "do not store", and say "not modified" about what it is shown.
func TestLoad_Adaptive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, nil)
		b := db.Bucket("b").WithTags("all")
		opts := &keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour, SoftTimeout: time.Second}
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
			require.True(t, first.Equal(l.Old.Loaded))
			require.True(t, first.Equal(l.Old.Written))
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
		require.True(t, first.Equal(entry.Written))
		require.True(t, time.Now().Equal(entry.Loaded))
		requireTTL(t, b, "k", time.Minute)

		_, err = b.Delete("k")
		require.NoError(t, err)
		get("two", func(_ context.Context, l *keepcache.Load) (any, error) {
			l.NoStore = true
			return "two", nil
		})
		requireAbsent(t, b, "k")
		for _, bad := range []func(l *keepcache.Load){
			func(l *keepcache.Load) { l.NotModified = true },
			func(l *keepcache.Load) { l.TTL = -5 },
			func(l *keepcache.Load) { l.Tags = []string{""} },
			func(l *keepcache.Load) { l.ETag = string(make([]byte, keepcache.MaxETagBytes+1)) },
		} {
			_, err = b.GetOrLoad(t.Context(), "k", new(any), func(_ context.Context, l *keepcache.Load) (any, error) {
				bad(l)
				return 1, nil
			}, opts)
			require.Error(t, err)
			requireAbsent(t, b, "k")
		}
	})
}

// Loaders that panic or end their goroutine release all who wait with an error, and the next one may succeed.
func TestLoad_Panic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{})
		for name, load := range map[string]keepcache.Loader{
			"panicked":        func(context.Context, *keepcache.Load) (any, error) { time.Sleep(1); panic("cause") },
			"ended":           func(context.Context, *keepcache.Load) (any, error) { time.Sleep(1); runtime.Goexit(); return nil, nil },
			"value's cause":   func(context.Context, *keepcache.Load) (any, error) { time.Sleep(1); return panicking{}, nil },
			"several panics ": func(context.Context, *keepcache.Load) (any, error) { panic(errors.New("several panics ")) },
		} {
			var waiters sync.WaitGroup
			for range 10 {
				waiters.Go(func() {
					_, err := s.b.GetOrLoad(t.Context(), "k", new(any), load, nil)
					if err == nil {
						t.Error("no error")
						return
					}
					require.ErrorContains(t, err, name)
				})
			}
			waiters.Wait()
		}
		s.get("one", false, 1)
	})
}

type panicking struct{}

func (panicking) MarshalJSON() ([]byte, error) { panic("value's cause") }

// Waiters obey their own ctx; a cancelled owner does not fail the others, and the load goes on.
func TestLoad_Cancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{})
		s.answer("one", nil, time.Minute)
		type key struct{}
		owner, cancelOwner := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		var waiters sync.WaitGroup
		waiters.Go(func() {
			_, err := s.b.GetOrLoad(owner, "k", new(any), func(ctx context.Context, l *keepcache.Load) (any, error) {
				require.Equal(t, "value", ctx.Value(key{}))
				return s.load(ctx, l)
			}, nil)
			require.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		for i := range 10 {
			waiters.Go(func() {
				ctx, cancel := t.Context(), func() {}
				if i%2 == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Second)
				}
				defer cancel()
				start := time.Now()
				var got string
				_, err := s.b.GetOrLoad(ctx, "k", &got, s.load, nil)
				if i%2 == 0 {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.Equal(t, time.Second, time.Since(start))
					return
				}
				require.NoError(t, err)
				require.Equal(t, "one", got)
			})
		}
		synctest.Wait()
		cancelOwner()
		waiters.Wait()
		require.Equal(t, int64(1), s.loads.Load())
		_, err := s.b.GetOrLoad(owner, "another", new(any), s.load, nil)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, int64(1), s.loads.Load())
	})
}

// A load never overwrites what came after it began: a Set, a Delete also of an absent key, a Clear, or anything else.
func TestLoad_OlderThanWrite(t *testing.T) {
	for name, c := range map[string]struct {
		write func(*keepcache.DB, *keepcache.Bucket) error
		want  any // nil: absent
	}{
		"set":         {func(_ *keepcache.DB, b *keepcache.Bucket) error { return b.Set("k", "set", 0) }, "set"},
		"set many":    {func(_ *keepcache.DB, b *keepcache.Bucket) error { return b.SetMany(map[string]any{"k": "set"}, 0) }, "set"},
		"delete":      {func(_ *keepcache.DB, b *keepcache.Bucket) error { _, err := b.Delete("k"); return err }, nil},
		"delete many": {func(_ *keepcache.DB, b *keepcache.Bucket) error { _, err := b.DeleteMany([]string{"k"}); return err }, nil},
		"delete prefix": {func(_ *keepcache.DB, b *keepcache.Bucket) error {
			_, err := b.DeletePrefix(context.Background(), "")
			return err
		}, nil},
		"take":  {func(_ *keepcache.DB, b *keepcache.Bucket) error { _, err := b.Take("k", nil); return err }, nil},
		"clear": {func(_ *keepcache.DB, b *keepcache.Bucket) error { return b.Clear(context.Background()) }, nil},
		"drop":  {func(db *keepcache.DB, _ *keepcache.Bucket) error { _, err := db.DropBucket("b"); return err }, nil},
		"add":   {func(_ *keepcache.DB, b *keepcache.Bucket) error { _, err := b.Add("k", "set", 0); return err }, "set"},
		"batch": {func(db *keepcache.DB, b *keepcache.Bucket) error {
			var batch keepcache.Batch
			batch.Delete(b, "k")
			return db.Apply(&batch)
		}, nil},
		"set and delete, committed": {func(db *keepcache.DB, b *keepcache.Bucket) error {
			if err := b.Set("k", 1, 0); err != nil {
				return err
			}
			_, err := b.Delete("k")
			if err == nil {
				_, err = db.Sweep(context.Background())
			}
			return err
		}, nil},
	} {
		for _, before := range []string{"no bucket", "another key", "stale"} {
			t.Run(name+"/"+before, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour})
					switch before {
					case "another key":
						mustSet(t, s.b, "another", 1, 0)
					case "stale":
						s.get("one", false, 1)
						time.Sleep(time.Minute)
					}
					s.answer("loaded", nil, time.Minute)
					var waiter sync.WaitGroup
					waiter.Go(func() {
						var got string
						result, err := s.b.GetOrLoad(t.Context(), "k", &got, s.load, &s.opts)
						require.NoError(t, err)
						require.Equal(t, before == "stale", result.Stale)
					})
					synctest.Wait()
					require.NoError(t, c.write(s.db, s.b))
					waiter.Wait()
					time.Sleep(time.Minute)
					synctest.Wait()
					if c.want == nil {
						requireAbsent(t, s.b, "k")
						s.answer("newer", nil, 0)
						var got string
						_, err := s.b.GetOrLoad(t.Context(), "k", &got, s.load, &s.opts)
						require.NoError(t, err)
						require.Equal(t, "newer", got)
					} else {
						requireValue(t, s.b, "k", c.want)
					}
					require.Equal(t, uint64(1), s.db.Stats().Loads.Discarded)
				})
			})
		}
	}
}

// Who comes after a Delete does not wait for a load from before it.
func TestLoad_NotJoinedAfterDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{})
		s.answer("old", nil, time.Minute)
		var waiter sync.WaitGroup
		waiter.Go(func() {
			var got string
			_, err := s.b.GetOrLoad(t.Context(), "k", &got, s.load, nil)
			require.NoError(t, err)
			require.Equal(t, "old", got)
		})
		synctest.Wait()
		_, err := s.b.Delete("k")
		require.NoError(t, err)
		s.answer("new", nil, 0)
		s.get("new", false, 2)
		waiter.Wait()
		s.get("new", false, 2)
	})
}

// 1,000 goroutines on one absent key: the loader runs once.
func TestLoad_Once(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	v := keepcache.Of[int](b)
	var loads atomic.Int64
	var callers sync.WaitGroup
	begin := make(chan struct{})
	for range 1000 {
		callers.Go(func() {
			<-begin
			n, err := v.GetOrLoad(context.Background(), "k", func(context.Context, *keepcache.Load) (int, error) {
				loads.Add(1)
				runtime.Gosched()
				return 7, nil
			}, nil)
			if err != nil || n != 7 {
				t.Errorf("%d %v", n, err)
			}
		})
	}
	close(begin)
	callers.Wait()
	require.Equal(t, int64(1), loads.Load())
}

// GetOrLoadMany loads what is missing in one call, waits for what others load, and refreshes what is stale.
func TestLoadMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, nil)
		v := keepcache.Of[string](db.Bucket("b"))
		opts := &keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour, NegativeTTL: time.Minute}
		var mu sync.Mutex
		var calls [][]string
		var fail error
		load := func(_ context.Context, keys []string) (map[string]string, error) {
			mu.Lock()
			calls = append(calls, keys)
			err := fail
			mu.Unlock()
			time.Sleep(time.Second)
			values := map[string]string{"surplus": "x"}
			for _, key := range keys {
				if key != "none" {
					values[key] = "value of " + key
				}
			}
			return values, err
		}
		require.NoError(t, v.Set("a", "own", 0))
		want := map[string]string{"a": "own", "b": "value of b", "c": "value of c"}
		var other sync.WaitGroup
		other.Go(func() {
			got, err := v.GetOrLoad(t.Context(), "c", func(context.Context, *keepcache.Load) (string, error) {
				time.Sleep(2 * time.Second)
				return "value of c", nil
			}, opts)
			require.NoError(t, err)
			require.Equal(t, "value of c", got)
		})
		synctest.Wait()
		got, err := v.GetOrLoadMany(t.Context(), []string{"c", "b", "a", "none", "b"}, load, opts)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, [][]string{{"b", "none"}}, calls)
		other.Wait()
		got, err = v.GetOrLoadMany(t.Context(), []string{"a", "b", "c", "none"}, load, opts)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Len(t, calls, 1)

		time.Sleep(2 * time.Minute)
		fail = errors.New("down")
		got, err = v.GetOrLoadMany(t.Context(), []string{"a", "b", "c", "none"}, load, opts)
		require.ErrorIs(t, err, fail)
		require.Equal(t, want, got, "with an error for what could not be loaded")
		require.Len(t, calls, 3)
		require.ElementsMatch(t, [][]string{{"b", "c"}, {"none"}}, calls[1:])
		time.Sleep(time.Minute)

		_, err = v.GetOrLoadMany(t.Context(), []string{"p"}, func(context.Context, []string) (map[string]string, error) { panic("cause") }, opts)
		require.ErrorContains(t, err, "cause")
		_, err = v.GetOrLoadMany(t.Context(), []string{""}, load, opts)
		require.ErrorIs(t, err, keepcache.ErrInvalidKey)
		_, err = v.GetOrLoadMany(t.Context(), []string{"k"}, load, &keepcache.LoadOptions{TTL: -4})
		require.ErrorIs(t, err, keepcache.ErrInvalidTTL)
		none, err := v.GetOrLoadMany(t.Context(), nil, load, nil)
		require.NoError(t, err)
		require.Empty(t, none)
	})
}

// Close ends loads that heed their ctx, and does not wait long for those that do not. Nothing is stored after it.
func TestLoad_Close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour})
		s.get("one", false, 1)
		time.Sleep(time.Minute)
		s.answer("two", nil, time.Hour)
		s.get("one", true, 2)
		start := time.Now()
		require.NoError(t, s.db.Close())
		require.Zero(t, time.Since(start))

		db := open(t, newPath(t), nil)
		var waiter sync.WaitGroup
		waiter.Go(func() {
			var got string
			_, err := db.Bucket("b").GetOrLoad(t.Context(), "k", &got, func(context.Context, *keepcache.Load) (any, error) {
				time.Sleep(time.Minute)
				return "late", nil
			}, nil)
			require.NoError(t, err)
			require.Equal(t, "late", got)
		})
		synctest.Wait()
		start = time.Now()
		require.NoError(t, db.Close())
		require.Equal(t, 5*time.Second, time.Since(start))
		waiter.Wait()
	})
}

// A cache that is open for reading only loads, and stores nothing.
func TestLoad_ReadOnly(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	mustSet(t, db.Bucket("b"), "k", "stored", 0)
	require.NoError(t, db.Close())
	db = open(t, path, &keepcache.Options{ReadOnly: true})
	for key, want := range map[string]string{"k": "stored", "other": "loaded"} {
		var got string
		_, err := db.Bucket("b").GetOrLoad(t.Context(), key, &got, func(context.Context, *keepcache.Load) (any, error) { return "loaded", nil }, nil)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	requireAbsent(t, db.Bucket("b"), "other")
}

// Background loads are bounded in number; the requests are served all the same.
func TestLoad_Bounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		opts := &keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour}
		var running, most atomic.Int64
		load := func(context.Context, *keepcache.Load) (any, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(time.Second)
			return 1, nil
		}
		values := map[string]any{}
		for i := range 200 {
			values[numbered(i)] = i
		}
		var callers sync.WaitGroup
		for key := range values {
			callers.Go(func() {
				_, err := b.GetOrLoad(t.Context(), key, new(any), load, opts)
				require.NoError(t, err)
			})
		}
		callers.Wait()
		most.Store(0)
		time.Sleep(time.Minute)
		for key := range values {
			result, err := b.GetOrLoad(t.Context(), key, new(any), load, opts)
			require.NoError(t, err)
			require.True(t, result.Stale)
		}
		time.Sleep(time.Minute)
		require.Equal(t, int64(64), most.Load())
	})
}

// However long a load took is in the histogram of Stats.
func TestLoad_Stats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{})
		for i, takes := range []time.Duration{0, time.Microsecond, 3 * time.Microsecond, time.Millisecond, time.Hour} {
			s.answer(i, nil, takes)
			_, err := s.b.GetOrLoad(t.Context(), numbered(i), new(any), s.load, nil)
			require.NoError(t, err)
		}
		stats := s.db.Stats().Loads
		require.Equal(t, time.Hour+time.Millisecond+4*time.Microsecond, stats.Time)
		for i, n := range stats.Histogram {
			if n == 0 {
				continue
			}
			require.Contains(t, []time.Duration{time.Microsecond, 2 * time.Microsecond, 4 * time.Microsecond,
				1024 * time.Microsecond, keepcache.NoExpiry}, keepcache.LoadHistogramBound(i))
			require.Equal(t, uint64(1), n)
		}
	})
}

// loadModel says what a key may hold, 0 where it is absent. A load that found nothing may or may not have been
// stored: it is not if a write came in between.
var loadModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{0} },
	Step: func(state, input, output any) []any {
		s, in, out := state.(int), input.(keyInput), output.(keyOutput)
		there, ok, next := s != 0, false, s
		switch in.op {
		case "set":
			ok, next = true, in.value
		case "delete":
			ok, next = out.ok == there, 0
		case "add":
			if ok = out.ok == !there; !there {
				next = in.value
			}
		case "update":
			ok, next = out.ok == there && out.value == s, in.value
		case "get":
			ok = out.ok == there && out.value == s
		case "load":
			if !there && out.value >= loadedValues {
				return []any{s, out.value}
			}
			ok = out.value == s || out.value >= loadedValues
		}
		if !ok {
			return nil
		}
		return []any{next}
	},
}

// loadedValues is the least value that a loader returns; what is written otherwise is less.
const loadedValues = 1_000_000

// Set, Delete, Add, Update and GetOrLoad on one key are linearizable: a load takes effect at one moment between its
// caller's call and return, or not at all.
func TestLoad_Linearizable(t *testing.T) {
	rounds := 15
	if long {
		rounds = 300
	}
	ops := []string{"set", "delete", "add", "update", "load", "load", "load", "get"}
	db := newDB(t, &keepcache.Options{SweepInterval: time.Millisecond})
	var values atomic.Int64
	values.Store(loadedValues)
	model := loadModel.ToModel()
	for round := range rounds {
		b := db.Bucket(fmt.Sprint("round", round))
		var mu sync.Mutex
		var history []porcupine.Operation
		start := time.Now()
		var callers sync.WaitGroup
		for client := range 6 {
			callers.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(client)))
				for i := range 25 {
					in := keyInput{op: ops[r.IntN(len(ops))], value: 1 + client*1000 + i, hours: 1}
					call := time.Since(start)
					var out keyOutput
					var err error
					if in.op == "load" {
						_, err = b.GetOrLoad(context.Background(), "k", &out.value, func(context.Context, *keepcache.Load) (any, error) {
							runtime.Gosched()
							return values.Add(1), nil
						}, nil)
					} else {
						out, err = keyCall(b, in)
					}
					returned := time.Since(start)
					if err != nil {
						t.Errorf("%s: %v", in.op, err)
						return
					}
					mu.Lock()
					history = append(history, porcupine.Operation{
						ClientId: client, Input: in, Call: int64(call), Output: out, Return: int64(returned),
					})
					mu.Unlock()
				}
			})
		}
		callers.Wait()
		require.Equal(t, porcupine.Ok, porcupine.CheckOperationsTimeout(model, history, 20*time.Second), "round %d", round)
	}
}
