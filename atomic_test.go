package keepcache_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// Swap replaces value and lifetime and hands out what was there.
func TestSwap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		db := open(t, path, nil)
		b := db.Bucket("b")
		old := "untouched"
		found, err := b.Swap("k", "one", time.Hour, &old)
		require.NoError(t, err)
		require.False(t, found)
		require.Equal(t, "untouched", old)
		found, err = b.Swap("k", 2, time.Minute, &old)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, "one", old)
		requireTTL(t, b, "k", time.Minute)
		found, err = b.Swap("k", "three", time.Minute, &old)
		require.Error(t, err, "a 2 is no string")
		require.False(t, found)
		requireValue(t, b, "k", int64(2))
		found, err = b.Swap("k", "four", 0, nil)
		require.NoError(t, err)
		require.True(t, found)
		requireValue(t, b, "k", "four")
		_, err = b.Swap("k", 1, -5, nil)
		requireError(t, err, keepcache.ErrInvalidTTL, "swap", path)
		require.Equal(t, uint64(3), db.Stats().Sets)
	})
}

// Take hands out a value once, and leaves one that does not fit where it is.
func TestTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		mustSet(t, b, "k", "one", time.Second)
		var n int
		_, err := b.Take("k", &n)
		require.Error(t, err)
		requireValue(t, b, "k", "one")
		var s string
		found, err := b.Take("k", &s)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, "one", s)
		requireAbsent(t, b, "k")
		found, err = b.Take("k", &s)
		require.NoError(t, err)
		require.False(t, found)
		mustSet(t, b, "k", "two", time.Second)
		time.Sleep(time.Second)
		found, err = b.Take("k", nil)
		require.NoError(t, err)
		require.False(t, found, "an expired entry is absent")
	})
}

// Of many that take one key one gets it.
func TestTake_ExactlyOneWins(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	for round := range 30 {
		mustSet(t, b, "k", round, 0)
		var got atomic.Int64
		var takers sync.WaitGroup
		for range 8 {
			takers.Go(func() {
				var n int
				if found, err := b.Take("k", &n); err != nil || found && n != round {
					t.Errorf("take: %d %v", n, err)
				} else if found {
					got.Add(1)
				}
			})
		}
		takers.Wait()
		require.Equal(t, int64(1), got.Load())
	}
}

// Increment is exact up to the ends of its range, keeps the lifetime of a live key and refuses what is no integer.
func TestIncrement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		b := open(t, path, nil).Bucket("b")
		add := func(key string, delta, want int64) {
			t.Helper()
			sum, err := b.Increment(key, delta, time.Hour)
			require.NoError(t, err)
			require.Equal(t, want, sum)
		}
		add("k", 5, 5)
		requireTTL(t, b, "k", time.Hour)
		time.Sleep(time.Minute)
		add("k", -7, -2)
		requireTTL(t, b, "k", 59*time.Minute)
		requireValue(t, b, "k", int64(-2))
		time.Sleep(time.Hour)
		add("k", 1, 1) // the old one has expired
		requireTTL(t, b, "k", time.Hour)

		mustSet(t, b, "top", int64(math.MaxInt64-1), 0)
		add("top", 1, math.MaxInt64)
		mustSet(t, b, "bottom", int64(math.MinInt64), 0)
		add("bottom", math.MaxInt64, -1)
		add("bottom", math.MinInt64+1, math.MinInt64)
		for _, over := range []struct {
			key   string
			delta int64
		}{{"top", 1}, {"top", math.MaxInt64}, {"bottom", -1}, {"bottom", math.MinInt64}} {
			_, err := b.Increment(over.key, over.delta, 0)
			require.ErrorContains(t, err, "does not fit")
		}
		requireValue(t, b, "top", int64(math.MaxInt64))
		requireValue(t, b, "bottom", int64(math.MinInt64))
		for i, value := range []any{nil, "5", 1.0, 1.5, uint64(math.MaxUint64), true, []int{1}} {
			key := fmt.Sprint("no integer", i)
			mustSet(t, b, key, value, 0)
			_, err := b.Increment(key, 1, 0)
			require.ErrorContains(t, err, "not an integer", "%v", value)
		}
		_, err := b.Increment("k", 1, -5)
		requireError(t, err, keepcache.ErrInvalidTTL, "increment", path)
	})
}

// 16 goroutines of 1,000 increments each come to 16,000, also when a crash and a replay lie in the middle.
func TestIncrement_LosesNone(t *testing.T) {
	path := newPath(t)
	b := open(t, path, &keepcache.Options{SweepInterval: time.Millisecond}).Bucket("b")
	run := func(b *keepcache.Bucket, each int) {
		var callers sync.WaitGroup
		for range 16 {
			callers.Go(func() {
				for range each {
					if _, err := b.Increment("k", 1, time.Hour); err != nil {
						t.Errorf("increment: %v", err)
						return
					}
				}
			})
		}
		callers.Wait()
	}
	run(b, 500)
	crashed := crashCopy(t, path, filepath.Join(t.TempDir(), "crashed"))
	run(b, 500)
	requireValue(t, b, "k", int64(16_000))
	b = open(t, crashed, nil).Bucket("b")
	requireValue(t, b, "k", int64(8_000))
	run(b, 500)
	requireValue(t, b, "k", int64(16_000))
}

// Update keeps the lifetime of a live entry, gives a new one the default, and passes errors of fn on.
func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		b := open(t, path, &keepcache.Options{DefaultTTL: time.Hour}).Bucket("b")
		count := func(old keepcache.Entry, found bool) (any, error) {
			n := 0
			if found {
				if err := old.Decode(&n); err != nil {
					return nil, err
				}
			}
			return n + 1, nil
		}
		require.NoError(t, update(b, "k", count))
		requireTTL(t, b, "k", time.Hour)
		time.Sleep(time.Minute)
		require.NoError(t, update(b, "k", count))
		requireTTL(t, b, "k", 59*time.Minute)
		requireValue(t, b, "k", int64(2))

		cause := errors.New("cause")
		err := update(b, "k", func(keepcache.Entry, bool) (any, error) { return nil, cause })
		requireError(t, err, cause, "update", path)
		err = update(b, "k", func(keepcache.Entry, bool) (any, error) { return make(chan int), nil })
		requireError(t, err, keepcache.ErrUnsupportedValue, "update", path)
		requireValue(t, b, "k", int64(2))

		// fn may write to the cache, and what it wrote to its own key makes it run again.
		runs := 0
		require.NoError(t, update(b, "k", func(old keepcache.Entry, _ bool) (any, error) {
			if runs++; runs <= 6 {
				if err := update(b, "k", count); err != nil {
					return nil, err
				}
			}
			return count(old, true)
		}))
		require.Equal(t, 7, runs)
		requireValue(t, b, "k", int64(9))
		time.Sleep(time.Hour)
		require.NoError(t, update(b, "k", count))
		requireValue(t, b, "k", int64(1))
	})
}

// Updates of one key by many lose nothing, and slow ones do not starve beside quick ones of other keys.
func TestUpdate_LosesNone(t *testing.T) {
	db := newDB(t, nil)
	b := keepcache.Of[[]int](db.Bucket("b"))
	ctx, stop := context.WithCancel(t.Context())
	var noise, callers sync.WaitGroup
	noise.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if err := b.Bucket().Set(numbered(i%1000), i, 0); err != nil {
				t.Errorf("set: %v", err)
			}
		}
	})
	for g := range 8 {
		callers.Go(func() {
			for i := range 25 {
				_, err := b.Update("k", func(old []int, _ bool) ([]int, error) {
					time.Sleep(100 * time.Microsecond)
					return append(old, g*1000+i), nil
				}, keepcache.KeepTTL)
				if err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	callers.Wait()
	stop()
	noise.Wait()
	all, found, err := b.Get("k")
	require.NoError(t, err)
	require.True(t, found)
	require.Len(t, all, 200)
	next := map[int]int{}
	for _, n := range all {
		require.Equal(t, next[n/1000], n%1000, "the updates of one goroutine are in their order")
		next[n/1000]++
	}
}

// CompareAndSwap replaces what has the revision, keeps its lifetime, and nothing else.
func TestCompareAndSwap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		mustSet(t, b, "k", "one", time.Hour)
		entry, _, err := b.Stat("k")
		require.NoError(t, err)
		time.Sleep(time.Minute)
		swapped, err := compareAndSwap(b, "k", entry.Revision, "two")
		require.NoError(t, err)
		require.True(t, swapped)
		requireValue(t, b, "k", "two")
		requireTTL(t, b, "k", 59*time.Minute)
		for _, revision := range []uint64{entry.Revision, 0, math.MaxUint64} {
			swapped, err = compareAndSwap(b, "k", revision, "three")
			require.NoError(t, err)
			require.False(t, swapped)
		}
		entry, _, err = b.Stat("k")
		require.NoError(t, err)
		time.Sleep(time.Hour)
		swapped, err = compareAndSwap(b, "k", entry.Revision, "three")
		require.NoError(t, err)
		require.False(t, swapped, "it has expired")
		swapped, err = compareAndSwap(b, "absent", 1, "three")
		require.NoError(t, err)
		require.False(t, swapped)
	})
}

// CompareAndSwap of revision 0 creates what is absent or expired, and each call returns what the next one needs.
func TestCompareAndSwap_Chain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, &keepcache.Options{DefaultTTL: time.Hour}).Bucket("b").WithTags("tag")
		first, swapped, err := b.CompareAndSwap("k", 0, "one", keepcache.KeepTTL)
		require.NoError(t, err)
		require.True(t, swapped)
		require.Equal(t, []string{"tag"}, first.Tags)
		requireTTL(t, b, "k", time.Hour)
		stat, _, err := b.Stat("k")
		require.NoError(t, err)
		require.Equal(t, stat, first)
		_, swapped, err = b.CompareAndSwap("k", 0, "two", 0)
		require.NoError(t, err)
		require.False(t, swapped)

		last := first
		for i, ttl := range []time.Duration{keepcache.KeepTTL, time.Minute, keepcache.NoExpiry, 0} {
			time.Sleep(time.Second)
			next, swapped, err := b.WithTags().CompareAndSwap("k", last.Revision, i, ttl)
			require.NoError(t, err)
			require.True(t, swapped)
			require.Greater(t, next.Revision, last.Revision)
			var n int
			require.NoError(t, next.Decode(&n))
			require.Equal(t, i, n)
			require.Equal(t, []string{"tag"}, next.Tags, "a live entry keeps its tags")
			last = next
			requireTTL(t, b, "k", []time.Duration{time.Hour - time.Second, time.Minute, keepcache.NoExpiry, time.Hour}[i])
		}
		_, swapped, err = b.CompareAndSwap("k", first.Revision, "late", 0)
		require.NoError(t, err)
		require.False(t, swapped)
		time.Sleep(time.Hour)
		_, swapped, err = b.CompareAndSwap("k", last.Revision, "late", 0)
		require.NoError(t, err)
		require.False(t, swapped, "it has expired")
		_, swapped, err = b.CompareAndSwap("k", 0, "anew", 0)
		require.NoError(t, err)
		require.True(t, swapped)
		requireValue(t, b, "k", "anew")
	})
}

// KeepTTL keeps what an entry has, in a sliding bucket too, and is a lifetime of Update and CompareAndSwap only.
func TestKeepTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, &keepcache.Options{Buckets: map[string]keepcache.BucketOptions{"s": {Sliding: true}}})
		b := db.Bucket("s")
		one := func(keepcache.Entry, bool) (any, error) { return 1, nil }
		mustSet(t, b, "k", 0, time.Hour)
		time.Sleep(time.Minute)
		e, err := b.Update("k", one, keepcache.KeepTTL)
		require.NoError(t, err)
		require.Equal(t, time.Hour, e.Sliding)
		require.Equal(t, time.Now().Add(59*time.Minute), e.ExpiresAt.Local())
		e, err = b.Update("k", one, time.Minute)
		require.NoError(t, err)
		require.Equal(t, time.Minute, e.Sliding)
		require.Equal(t, time.Now().Add(time.Minute), e.ExpiresAt.Local())
		e, err = b.Update("k", one, keepcache.NoExpiry)
		require.NoError(t, err)
		require.Zero(t, e.Sliding)
		require.True(t, e.ExpiresAt.IsZero())

		var batch keepcache.Batch
		batch.Set(b, "k", 1, keepcache.KeepTTL)
		_, addErr := b.Add("new", 1, keepcache.KeepTTL)
		_, touchErr := b.Touch("k", keepcache.KeepTTL)
		_, swapErr := b.Swap("k", 1, keepcache.KeepTTL, nil)
		_, incrementErr := b.Increment("k", 1, keepcache.KeepTTL)
		_, entryErr := b.SetEntry("k", 1, keepcache.KeepTTL)
		for _, err := range []error{
			b.Set("k", 1, keepcache.KeepTTL), b.SetMany(map[string]any{"k": 1}, keepcache.KeepTTL), db.Apply(&batch), addErr,
			touchErr, swapErr, incrementErr, entryErr, second(b.Update("k", one, -1)),
		} {
			require.ErrorIs(t, err, keepcache.ErrInvalidTTL)
		}
	})
}

// A value that is updated with a new lifetime may be served stale for as long as before.
func TestUpdate_Stale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		load := func(context.Context, *keepcache.Load) (any, error) { return 1, nil }
		opts := &keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour}
		_, err := b.GetOrLoad(t.Context(), "k", new(int), load, opts)
		require.NoError(t, err)
		e, err := b.Update("k", func(keepcache.Entry, bool) (any, error) { return 2, nil }, 10*time.Minute)
		require.NoError(t, err)
		require.Equal(t, time.Hour, e.StaleUntil.Sub(e.ExpiresAt))
		time.Sleep(11 * time.Minute)
		var n int
		result, err := b.GetOrLoad(t.Context(), "k", &n, load, opts)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.True(t, result.Stale)
	})
}

// SetEntry and GetEntry return what Stat says, and count as a write and a read.
func TestEntry_SetGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, nil)
		b := db.Bucket("b").WithTags("x", "a")
		set, err := b.SetEntry("k", []any{"v", 1.0}, time.Hour)
		require.NoError(t, err)
		stat, _, err := b.Stat("k")
		require.NoError(t, err)
		require.Equal(t, stat, set)
		require.Equal(t, time.Hour, set.ExpiresAt.Sub(set.WrittenAt))
		got, found, err := b.GetEntry("k")
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, stat, got)
		_, found, err = b.GetEntry("absent")
		require.NoError(t, err)
		require.False(t, found)
		st := db.Stats()
		require.EqualValues(t, 1, st.Sets)
		require.EqualValues(t, 1, st.Hits)
		require.EqualValues(t, 1, st.Misses)
		_, err = b.SetEntry("k", make(chan int), 0)
		require.ErrorIs(t, err, keepcache.ErrUnsupportedValue)
		_, _, err = b.GetEntry("")
		require.ErrorIs(t, err, keepcache.ErrInvalidKey)
	})
}

// Increment in a view keeps to the type of the view.
func TestIncrement_View(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		small := keepcache.Of[int8](b)
		sum, err := keepcache.Increment(small, "k", 127, time.Hour)
		require.NoError(t, err)
		require.EqualValues(t, 127, sum)
		_, err = keepcache.Increment(small, "k", 1, 0)
		require.ErrorIs(t, err, keepcache.ErrOverflow)
		sum, err = keepcache.Increment(small, "k", -128, 0)
		require.NoError(t, err)
		require.EqualValues(t, -1, sum)
		requireTTL(t, b, "k", time.Hour)
		_, err = keepcache.Increment(keepcache.Of[uint](b), "k", 0, 0)
		require.ErrorIs(t, err, keepcache.ErrOverflow, "-1 is no uint")
		large := keepcache.Of[uint64](b)
		most, err := keepcache.Increment(large, "large", math.MaxInt64, 0)
		require.NoError(t, err)
		require.EqualValues(t, int64(math.MaxInt64), most)
		_, err = keepcache.Increment(large, "large", 1, 0)
		require.ErrorIs(t, err, keepcache.ErrOverflow)
		_, err = keepcache.Increment(large, "new", math.MaxUint64, 0)
		require.ErrorIs(t, err, keepcache.ErrOverflow)
		requireAbsent(t, b, "new")
		mustSet(t, b, "f", 1.0, 0)
		_, err = keepcache.Increment(large, "f", 1, 0)
		require.ErrorIs(t, err, keepcache.ErrNotInteger)
	})
}

// A batch writes to several buckets at once, new ones too, and a crash shows all of it or nothing.
func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		db := open(t, path, &keepcache.Options{CommitInterval: time.Hour, SweepInterval: -1})
		users, sessions := db.Bucket("users"), db.Bucket("sessions")
		mustSet(t, users, "old", 1, 0)
		var batch keepcache.Batch
		require.NoError(t, db.Apply(&batch))
		batch.Set(users, "ada", "first", time.Hour)
		batch.Set(users, "ada", "last", time.Minute)
		batch.Delete(users, "old")
		batch.Set(sessions, "s", 7, 0)
		batch.Delete(db.Bucket("never"), "k")
		require.Equal(t, 4, batch.Len())
		require.NoError(t, db.Apply(&batch))
		require.Zero(t, batch.Len())
		check := func(db *keepcache.DB) {
			requireValue(t, db.Bucket("users"), "ada", "last")
			requireTTL(t, db.Bucket("users"), "ada", time.Minute)
			requireAbsent(t, db.Bucket("users"), "old")
			requireValue(t, db.Bucket("sessions"), "s", int64(7))
			names, err := db.Buckets()
			require.NoError(t, err)
			require.Equal(t, []string{"sessions", "users"}, names)
		}
		check(db)
		check(open(t, crashCopy(t, path, filepath.Join(t.TempDir(), "crashed")), nil))

		batch.Set(users, "ada", "never", 0)
		batch.Set(users, "", 1, 0)
		requireError(t, db.Apply(&batch), keepcache.ErrInvalidKey, "set", path)
		require.NoError(t, db.Apply(&batch), "it is empty now")
		batch.Set(newDB(t, nil).Bucket("users"), "ada", "never", 0)
		require.ErrorContains(t, db.Apply(&batch), "another DB")
		batch.Delete(users, strings.Repeat("k", keepcache.MaxKeyBytes+1))
		require.ErrorIs(t, db.Apply(&batch), keepcache.ErrInvalidKey)
		check(db)
	})
}

// Batches over the same buckets in any order, with buckets that come and go, do not wait for each other.
func TestApply_Concurrent(t *testing.T) {
	db := newDB(t, nil)
	var callers sync.WaitGroup
	for g := range 8 {
		callers.Go(func() {
			for i := range 50 {
				var batch keepcache.Batch
				for n := range 4 {
					batch.Set(db.Bucket(fmt.Sprint("b", (n+g)%4)), "k", g*1000+i, 0)
				}
				err := db.Apply(&batch)
				if g == 0 && i%10 == 0 {
					_, err = db.DropBucket("b1")
				}
				if err != nil {
					t.Errorf("apply: %v", err)
				}
			}
		})
	}
	callers.Wait()
	var batch keepcache.Batch
	for n := range 4 {
		batch.Set(db.Bucket(fmt.Sprint("b", n)), "k", "all", 0)
	}
	require.NoError(t, db.Apply(&batch))
	for n := range 4 {
		requireValue(t, db.Bucket(fmt.Sprint("b", n)), "k", "all")
	}
}

// A damaged entry is an error to what depends on it.
func TestAtomic_Damaged(t *testing.T) {
	path := newPath(t)
	db := openDamaged(t, path, &keepcache.Options{SweepInterval: -1})
	mustSet(t, db.Bucket("b"), "k", 1, 0)
	require.NoError(t, db.Close())
	patch(t, path, "b", "k", func(stored []byte) []byte { stored[len(stored)-1] ^= 1; return stored })
	db = openDamaged(t, path, &keepcache.Options{SweepInterval: -1})
	b := db.Bucket("b")
	_, err := b.Swap("k", 2, 0, nil)
	requireError(t, err, keepcache.ErrCorrupt, "swap", path)
	_, err = b.Take("k", nil)
	requireError(t, err, keepcache.ErrCorrupt, "take", path)
	_, err = b.Increment("k", 2, 0)
	requireError(t, err, keepcache.ErrCorrupt, "increment", path)
	err = update(b, "k", func(keepcache.Entry, bool) (any, error) { return 1, nil })
	requireError(t, err, keepcache.ErrCorrupt, "update", path)
	_, err = compareAndSwap(b, "k", 1, 2)
	requireError(t, err, keepcache.ErrCorrupt, "compare and swap", path)
	found, err := b.Exists("k")
	require.NoError(t, err)
	require.False(t, found)
}
