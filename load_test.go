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
	"github.com/keepcache/keepcache/internal/torture/effort"
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
		time.Sleep(time.Nanosecond)
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
			require.True(t, time.Now().After(entry.ExpiresAt) || time.Now().Equal(entry.ExpiresAt))
			require.Equal(t, time.Hour, entry.StaleUntil.Sub(entry.ExpiresAt))
			for name, call := range map[string]func() (bool, error){
				"get":    func() (bool, error) { return s.b.Get("k", new(any)) },
				"exists": func() (bool, error) { return s.b.Exists("k") },
				"ttl":    func() (bool, error) { _, found, err := s.b.TTL("k"); return found, err },
				"touch":  func() (bool, error) { return s.b.Touch("k", time.Hour) },
				"cas":    func() (bool, error) { return compareAndSwap(s.b, "k", entry.Revision, 1) },
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
		s := &loadScene{&source{value: "one"}, t, path, db, db.Bucket("b"),
			keepcache.LoadOptions{TTL: time.Minute, StaleFor: 2 * time.Hour}}
		s.get("one", false, 1)
		time.Sleep(time.Minute)
		s.answer(nil, errors.New("down"), 0)
		often := effort.Of(20, 100) // a second, for an hour
		requests := 3600 * often
		for range requests {
			var got string
			result, err := s.b.GetOrLoad(t.Context(), "k", &got, s.load, &s.opts)
			require.NoError(t, err)
			require.True(t, result.Stale && got == "one")
			time.Sleep(time.Second / time.Duration(often))
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

// A failed load with nothing to serve is an error. With RetryAfter of -1 the next request tries again.
func TestLoad_Error(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, RetryAfter: -1})
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
		_, err = s.b.GetOrLoad(t.Context(), "other", &got, s.load, &keepcache.LoadOptions{TTL: -5})
		requireError(t, err, keepcache.ErrInvalidTTL, "load", s.path)
		for _, bad := range []keepcache.LoadOptions{{StaleFor: -1}, {RetryAfter: -2}, {Jitter: 2}, {RefreshAhead: -1},
			{HardTimeout: -1}, {LoadTimeout: -2}} {
			_, err := s.b.GetOrLoad(t.Context(), "other", &got, s.load, &bad)
			requireError(t, err, keepcache.ErrInvalidOption, "load", s.path)
		}
		_, err = s.db.Bucket("").GetOrLoad(t.Context(), "k", &got, s.load, nil)
		requireError(t, err, keepcache.ErrInvalidName, "load", s.path)
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
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour, SoftTimeout: time.Second,
			HardTimeout: 3 * time.Second})
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
			_, err := b.GetOrLoad(t.Context(), numbered(i), new(any),
				func(context.Context, *keepcache.Load) (any, error) { return i, nil }, opts)
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

// A cache that is open for reading only loads, and stores nothing.
func TestLoad_ReadOnly(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	mustSet(t, db.Bucket("b"), "k", "stored", 0)
	require.NoError(t, db.Close())
	db = open(t, path, &keepcache.Options{ReadOnly: true})
	for key, want := range map[string]string{"k": "stored", "other": "loaded"} {
		var got string
		_, err := db.Bucket("b").GetOrLoad(t.Context(), key, &got,
			func(context.Context, *keepcache.Load) (any, error) { return "loaded", nil }, nil)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	requireAbsent(t, db.Bucket("b"), "other")
}

// However long a load took is in the histogram of Stats.
func TestLoad_Stats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{})
		for i, takes := range []time.Duration{0, time.Microsecond, 3 * time.Microsecond, time.Millisecond, time.Hour} {
			s.answer(i, nil, takes)
			_, err := s.b.GetOrLoad(t.Context(), numbered(i), new(any), s.load, &keepcache.LoadOptions{LoadTimeout: -1})
			require.NoError(t, err)
		}
		stats := s.db.Stats().Loads
		require.Equal(t, time.Hour+time.Millisecond+4*time.Microsecond, stats.Latencies.Time)
		for i, n := range stats.Latencies.Counts {
			if n == 0 {
				continue
			}
			require.Contains(t, []time.Duration{128, 1 << 10, 1 << 12, 1 << 20, keepcache.NoExpiry}, keepcache.LatencyBound(i))
			require.Equal(t, uint64(1), n)
		}
	})
}
