package keepcache_test

import (
	"math"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keepcache/keepcache"
)

// Before the deadline an entry is there, at it and after it is absent for every operation, swept or not.
func TestTTL_Deadline(t *testing.T) {
	for name, sweep := range map[string]time.Duration{"swept": time.Millisecond, "unswept": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newDB(t, &keepcache.Options{SweepInterval: sweep}).Bucket("b")
				mustSet(t, b, "k", "v", 100*time.Millisecond)
				mustSet(t, b, "other", "v", 0)
				time.Sleep(100*time.Millisecond - 1)
				requireValue(t, b, "k", "v")
				requireTTL(t, b, "k", 1)
				require.Equal(t, []string{"k", "other"}, keys(t, b, ""))

				for range 2 {
					time.Sleep(time.Nanosecond)
					requireAbsent(t, b, "k")
					require.Equal(t, []string{"other"}, keys(t, b, ""))
					n, err := b.Len()
					require.NoError(t, err)
					require.Equal(t, 1, n)
					found, err := b.Touch("k", time.Hour)
					require.NoError(t, err)
					require.False(t, found)
					found, err = b.Delete("k")
					require.NoError(t, err)
					require.False(t, found)
				}
				added, err := b.Add("k", "again", 0)
				require.NoError(t, err)
				require.True(t, added)
			})
		})
	}
}

// The deadline is now + ttl, rounded up to the millisecond, for any now and any ttl.
func TestTTL_RoundsUp(t *testing.T) {
	setFlag(t, "rapid.checks", "30")
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			db := open(t, modelPath(t), &keepcache.Options{SweepInterval: -1})
			b := db.Bucket("b")
			for range 20 {
				time.Sleep(time.Duration(rapid.Int64Range(0, 3_000_000).Draw(t, "offset")))
				ttl := time.Duration(rapid.OneOf(
					rapid.Int64Range(1, 3_000_000), rapid.Int64Range(1, math.MaxInt64-1),
					rapid.Int64Range(math.MaxInt64-2_000_000, math.MaxInt64-1),
				).Draw(t, "ttl"))
				now := time.Now()
				mustSet(t, b, "k", "v", ttl)
				entry, found, err := b.Stat("k")
				require.NoError(t, err)
				require.True(t, found)

				exact := new(big.Int).Add(big.NewInt(now.Unix()), new(big.Int))
				exact.Mul(exact, big.NewInt(1e9)).Add(exact, big.NewInt(int64(now.Nanosecond()))).Add(exact, big.NewInt(int64(ttl)))
				exact.Add(exact, big.NewInt(999_999)).Div(exact, big.NewInt(1e6))
				require.Equal(t, exact.Int64(), entry.ExpiresAt.UnixMilli(), "now %v, ttl %v", now.UnixNano(), ttl)
			}
		})
	})
}

// A long lifetime saturates and never lands in the past; one nanosecond lives until the next millisecond.
func TestTTL_Extremes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		mustSet(t, b, "longest", "v", math.MaxInt64-1)
		mustSet(t, b, "shortest", "v", 1)
		requireTTL(t, b, "shortest", time.Millisecond)
		time.Sleep(time.Millisecond)
		requireAbsent(t, b, "shortest")
		requireValue(t, b, "longest", "v")
		entry, _, err := b.Stat("longest")
		require.NoError(t, err)
		require.Greater(t, entry.ExpiresAt.Year(), 2200)
	})
}

// A ttl of 0 is the bucket's default, of the bucket's own options or of the DB's, and none without one.
func TestTTL_Default(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := &keepcache.Options{
			DefaultTTL: time.Minute,
			Buckets: map[string]keepcache.BucketOptions{
				"own": {DefaultTTL: time.Second}, "inherits": {}, "never": {DefaultTTL: keepcache.NoExpiry},
				"off": {DefaultTTL: -1},
			},
		}
		path := newPath(t)
		db := open(t, path, opts)
		opts.DefaultTTL = time.Hour // Open has copied the options
		opts.Buckets["own"] = keepcache.BucketOptions{DefaultTTL: time.Hour}
		for name, want := range map[string]time.Duration{
			"default": time.Minute, "own": time.Second, "inherits": time.Minute, "never": keepcache.NoExpiry,
			"off": keepcache.NoExpiry, "other": time.Minute,
		} {
			b := db.Bucket(name)
			mustSet(t, b, "set", 1, 0)
			requireTTL(t, b, "set", want)
			require.NoError(t, b.SetBytes("bytes", nil, 0))
			requireTTL(t, b, "bytes", want)
			_, err := b.Add("add", 1, 0)
			require.NoError(t, err)
			requireTTL(t, b, "add", want)
			mustSet(t, b, "touch", 1, 5*time.Second)
			_, err = b.Touch("touch", 0)
			require.NoError(t, err)
			requireTTL(t, b, "touch", want)

			mustSet(t, b, "never", 1, keepcache.NoExpiry)
			requireTTL(t, b, "never", keepcache.NoExpiry)
			mustSet(t, b, "given", 1, 7*time.Second)
			requireTTL(t, b, "given", 7*time.Second)
		}
		require.NoError(t, db.Close())
		db = open(t, path, nil)
		mustSet(t, db.Bucket("own"), "k", 1, 0)
		requireTTL(t, db.Bucket("own"), "k", keepcache.NoExpiry)
	})
}

// A negative lifetime is an error everywhere, and changes nothing.
func TestTTL_Negative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		b := open(t, path, nil).Bucket("b")
		mustSet(t, b, "k", "v", time.Minute)
		before, _, err := b.Stat("k")
		require.NoError(t, err)
		for _, ttl := range []time.Duration{-1, -1500 * time.Millisecond, math.MinInt64} {
			requireError(t, b.Set("k", 1, ttl), keepcache.ErrInvalidTTL, "set", path)
			requireError(t, b.SetBytes("k", nil, ttl), keepcache.ErrInvalidTTL, "set", path)
			_, err := b.Touch("k", ttl)
			requireError(t, err, keepcache.ErrInvalidTTL, "touch", path)
			_, err = b.Touch("absent", ttl)
			requireError(t, err, keepcache.ErrInvalidTTL, "touch", path)
			_, err = b.Add("absent", 1, ttl)
			requireError(t, err, keepcache.ErrInvalidTTL, "add", path)
		}
		after, _, err := b.Stat("k")
		require.NoError(t, err)
		require.Equal(t, before, after)
		require.Equal(t, []string{"k"}, keys(t, b, ""))
	})
}

// Set on a live key replaces the lifetime: longer, shorter or none.
func TestTTL_SetReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, &keepcache.Options{SweepInterval: time.Second}).Bucket("b")
		for _, ttls := range [][2]time.Duration{
			{time.Minute, time.Hour}, {time.Hour, time.Minute}, {time.Minute, keepcache.NoExpiry},
			{keepcache.NoExpiry, time.Minute},
			{keepcache.NoExpiry, keepcache.NoExpiry}, {time.Minute, time.Minute},
		} {
			mustSet(t, b, "k", "old", ttls[0])
			time.Sleep(10 * time.Second)
			mustSet(t, b, "k", "new", ttls[1])
			requireTTL(t, b, "k", ttls[1])
			if ttls[1] == keepcache.NoExpiry {
				time.Sleep(2 * time.Minute)
				requireValue(t, b, "k", "new")
				continue
			}
			time.Sleep(ttls[1] - 1)
			requireValue(t, b, "k", "new")
			time.Sleep(time.Nanosecond)
			requireAbsent(t, b, "k")
		}
	})
}

// Reading extends no lifetime.
func TestTTL_ReadsDoNotExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		mustSet(t, b, "k", "v", time.Minute)
		for left := 60; left > 0; left-- {
			requireValue(t, b, "k", "v")
			requireTTL(t, b, "k", time.Duration(left)*time.Second)
			_, _, err := b.Stat("k")
			require.NoError(t, err)
			_, err = b.Len()
			require.NoError(t, err)
			require.Equal(t, []string{"k"}, keys(t, b, ""))
			time.Sleep(time.Second)
		}
		requireAbsent(t, b, "k")
	})
}

// Touch sets a new lifetime on a live entry and keeps the value; on an absent one it creates nothing.
func TestTouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, nil)
		b := db.Bucket("b")
		found, err := b.Touch("k", time.Minute)
		require.NoError(t, err)
		require.False(t, found)
		names, err := db.Buckets()
		require.NoError(t, err)
		require.Empty(t, names)

		value := map[string]any{"a": []any{int64(1), 1.0, nil}}
		mustSet(t, b, "k", value, time.Minute)
		first, _, err := b.Stat("k")
		require.NoError(t, err)
		for _, ttl := range []time.Duration{time.Hour, time.Second, keepcache.NoExpiry, 2 * time.Second} {
			time.Sleep(time.Millisecond)
			found, err = b.Touch("k", ttl)
			require.NoError(t, err)
			require.True(t, found)
			requireTTL(t, b, "k", ttl)
			requireValue(t, b, "k", value)
		}
		last, _, err := b.Stat("k")
		require.NoError(t, err)
		require.True(t, last.WrittenAt.Equal(first.WrittenAt), "Touch does not write the value")
		require.Equal(t, first.Size, last.Size)
		time.Sleep(2 * time.Second)
		requireAbsent(t, b, "k")
		found, err = b.Touch("absent", time.Hour)
		require.NoError(t, err)
		require.False(t, found)
		requireAbsent(t, b, "absent")
	})
}

// The deadline is absolute: time passed while the file is closed counts, and a reopen grants nothing.
func TestTTL_Reopen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		opts := &keepcache.Options{DefaultTTL: time.Hour}
		db := open(t, path, opts)
		b := db.Bucket("b")
		mustSet(t, b, "k", "v", 10*time.Second)
		mustSet(t, b, "forever", "v", keepcache.NoExpiry)
		for left := 10; left > 0; left -= 2 {
			requireTTL(t, b, "k", time.Duration(left)*time.Second)
			require.NoError(t, db.Close())
			time.Sleep(2 * time.Second)
			db = open(t, path, opts)
			b = db.Bucket("b")
		}
		requireAbsent(t, b, "k")
		requireTTL(t, b, "forever", keepcache.NoExpiry)
	})
}

// When the wall clock jumps back or forth between two runs, the deadline follows it.
func TestTTL_ClockJumps(t *testing.T) {
	path := newPath(t)
	const ahead = 10 * time.Hour
	in := func(fn func(t *testing.T, b *keepcache.Bucket, db *keepcache.DB)) {
		synctest.Test(t, func(t *testing.T) { // each bubble begins at midnight UTC 2000-01-01
			db := open(t, path, &keepcache.Options{SweepInterval: time.Minute})
			fn(t, db.Bucket("b"), db)
		})
	}
	in(func(t *testing.T, b *keepcache.Bucket, _ *keepcache.DB) {
		time.Sleep(ahead)
		mustSet(t, b, "k", "v", time.Minute)
	})
	in(func(t *testing.T, b *keepcache.Bucket, db *keepcache.DB) {
		requireTTL(t, b, "k", ahead+time.Minute) // ten hours back
		time.Sleep(time.Hour)
		requireTTL(t, b, "k", ahead+time.Minute-time.Hour)
		require.LessOrEqual(t, db.Stats().Sweep.Sweeps, uint64(61))
		mustSet(t, b, "k2", "v", 2*time.Hour)
	})
	in(func(t *testing.T, b *keepcache.Bucket, db *keepcache.DB) {
		time.Sleep(ahead) // forth, past the one and not the other
		requireAbsent(t, b, "k2")
		requireValue(t, b, "k", "v")
	})
	b := open(t, path, nil).Bucket("b") // by decades
	requireAbsent(t, b, "k")
}

// TouchUntil sets a deadline, for reads of a sliding bucket too, and creates nothing.
func TestTouchUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, &keepcache.Options{Buckets: map[string]keepcache.BucketOptions{"s": {Sliding: true}}})
		for _, b := range []*keepcache.Bucket{db.Bucket("b"), db.Bucket("s")} {
			mustSet(t, b, "k", "v", time.Minute)
			until := time.Now().Add(time.Hour)
			found, err := b.TouchUntil("k", until)
			require.NoError(t, err)
			require.True(t, found)
			time.Sleep(30 * time.Minute)
			requireValue(t, b, "k", "v")
			requireTTL(t, b, "k", 30*time.Minute)
			_, err = b.TouchUntil("k", time.Now())
			require.ErrorIs(t, err, keepcache.ErrInvalidTTL)
			requireTTL(t, b, "k", 30*time.Minute)
			found, err = b.TouchUntil("k", time.Time{})
			require.NoError(t, err)
			require.True(t, found)
			requireTTL(t, b, "k", keepcache.NoExpiry)
			found, err = b.TouchUntil("absent", time.Now().Add(time.Hour))
			require.NoError(t, err)
			require.False(t, found)
			requireAbsent(t, b, "absent")

			var batch keepcache.Batch
			batch.SetUntil(b, "batch", 1, time.Now().Add(time.Hour))
			require.NoError(t, db.Apply(&batch))
			requireTTL(t, b, "batch", time.Hour)
			batch.SetUntil(b, "batch", 2, time.Now())
			require.ErrorIs(t, db.Apply(&batch), keepcache.ErrInvalidTTL)
			requireValue(t, b, "batch", int64(1))
		}
	})
}
