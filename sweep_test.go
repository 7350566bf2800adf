package keepcache_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// filled opens a fresh cache that has what fill sets, all of it in the file.
func filled(t testing.TB, opts *keepcache.Options, fill func(*keepcache.DB)) *keepcache.DB {
	t.Helper()
	path := newPath(t)
	db := open(t, path, &keepcache.Options{SweepInterval: -1})
	fill(db)
	return reopen(t, db, path, opts)
}

// 250 entries that share one deadline are all gone after one sweep.
func TestSweep_SharedDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := filled(t, &keepcache.Options{SweepInterval: -1}, func(db *keepcache.DB) {
			fill(t, db.Bucket("b"), 250, time.Minute)
			mustSet(t, db.Bucket("b"), "stays", 1, 0)
		})
		b := db.Bucket("b")
		require.Equal(t, 250, sound(t, db).Rows)

		time.Sleep(time.Minute - 1)
		removed, err := db.Sweep(t.Context())
		require.NoError(t, err)
		require.Zero(t, removed, "not due yet")
		time.Sleep(time.Nanosecond)
		require.Equal(t, 250, sound(t, db).Expired)
		removed, err = db.Sweep(t.Context())
		require.NoError(t, err)
		require.Equal(t, 250, removed)
		report := sound(t, db)
		require.Equal(t, 1, report.Entries)
		require.Zero(t, report.Expired)
		require.Zero(t, report.Rows)
		requireValue(t, b, "stays", int64(1))
	})
}

// 100,000 entries due at once are gone after one sweep in the background, with their room.
func TestSweep_ManyAtOnce(t *testing.T) {
	n := 20_000
	if long {
		n = 100_000
	}
	synctest.Test(t, func(t *testing.T) {
		db := filled(t, &keepcache.Options{SweepInterval: time.Second}, func(db *keepcache.DB) {
			for i := range 2 {
				fill(t, db.Bucket(fmt.Sprint("b", i)), n/2, time.Hour)
			}
		})
		committed(t, db)
		require.Equal(t, int64(n), db.Stats().Entries)
		time.Sleep(time.Hour + sweptIn)
		synctest.Wait()
		stats := db.Stats()
		require.Zero(t, stats.Entries)
		require.Zero(t, stats.Bytes)
		require.Equal(t, uint64(n), stats.Sweep.Removed)
		require.Zero(t, stats.Sweep.Lag)
		require.NoError(t, stats.Sweep.Err)
		require.Zero(t, sound(t, db).Rows)
	})
}

// While nothing is due the sweeper keeps to its interval and does not touch the file.
func TestSweep_Idle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		db := open(t, path, &keepcache.Options{SweepInterval: time.Minute})
		mustSet(t, db.Bucket("b"), "later", 1, 24*time.Hour)
		mustSet(t, db.Bucket("b"), "never", 1, 0)
		committed(t, db)
		before, err := os.ReadFile(path)
		require.NoError(t, err)
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, string(before) == string(after), "an idle sweeper wrote to the file")
		stats := db.Stats().Sweep
		require.Equal(t, uint64(601), stats.Sweeps)
		require.Zero(t, stats.Removed+stats.Cleared+stats.Moved+stats.Orphans)
		require.NoError(t, stats.Err)
	})
}

// Lag says for how long the most overdue entry has been due for the sweeper, and Last when the last sweep ended.
func TestSweep_Lag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := filled(t, &keepcache.Options{SweepInterval: -1}, func(db *keepcache.DB) {
			mustSet(t, db.Bucket("b"), "first", 1, time.Second)
			mustSet(t, db.Bucket("b"), "second", 1, time.Minute)
		})
		require.True(t, db.Stats().Sweep.Last.IsZero())
		committed(t, db)
		require.Zero(t, db.Stats().Sweep.Lag)
		time.Sleep(time.Second + mostEarly)
		require.Zero(t, db.Stats().Sweep.Lag, "the sweeper is not late yet")
		time.Sleep(10 * time.Second)
		require.Equal(t, 10*time.Second, db.Stats().Sweep.Lag)
		_, err := db.Sweep(t.Context())
		require.NoError(t, err)
		require.Zero(t, db.Stats().Sweep.Lag)
		require.True(t, db.Stats().Sweep.Last.Equal(time.Now()))
		require.Equal(t, uint64(2), db.Stats().Sweep.Sweeps)
	})
}

// An overwrite or Touch that prolongs a lifetime leaves its expiry row, never later than the truth; the
// sweeper moves it, and the entry goes at its new time.
func TestSweep_Rearm(t *testing.T) {
	prolong := map[string]func(t *testing.T, b *keepcache.Bucket, ttl time.Duration){
		"set": func(t *testing.T, b *keepcache.Bucket, ttl time.Duration) { mustSet(t, b, "k", "new", ttl) },
		"touch": func(t *testing.T, b *keepcache.Bucket, ttl time.Duration) {
			_, err := b.Touch("k", ttl)
			require.NoError(t, err)
		},
	}
	for name, with := range prolong {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := newDB(t, &keepcache.Options{SweepInterval: -1})
				b := db.Bucket("b")
				mustSet(t, b, "k", "old", time.Minute)
				with(t, b, time.Hour)
				require.Equal(t, 1, sound(t, db).Rows)

				time.Sleep(time.Minute)
				removed, err := db.Sweep(t.Context())
				require.NoError(t, err)
				require.Zero(t, removed)
				require.Equal(t, 1, sound(t, db).Rows)
				requireTTL(t, b, "k", time.Hour-time.Minute)

				with(t, b, keepcache.NoExpiry)
				require.Zero(t, sound(t, db).Rows, "no lifetime, no row")
				with(t, b, 2*time.Minute)
				with(t, b, time.Minute) // earlier: the row must follow at once
				require.Equal(t, 1, sound(t, db).Rows)
				time.Sleep(time.Minute)
				removed, err = db.Sweep(t.Context())
				require.NoError(t, err)
				require.Equal(t, 1, removed)
				report := sound(t, db)
				require.Zero(t, report.Rows+report.Entries)
			})
		})
	}
}

// Delete, and Set over an expired entry, leave no row behind.
func TestSweep_NoOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, &keepcache.Options{SweepInterval: -1})
		b := db.Bucket("b")
		mustSet(t, b, "deleted", 1, time.Minute)
		mustSet(t, b, "expired", 1, time.Minute)
		_, err := b.Delete("deleted")
		require.NoError(t, err)
		require.Equal(t, 1, sound(t, db).Rows)
		time.Sleep(time.Hour)
		mustSet(t, b, "expired", 2, time.Minute)
		removed, err := db.Sweep(t.Context())
		require.NoError(t, err)
		require.Zero(t, removed)
		require.Zero(t, db.Stats().Sweep.Orphans)
		requireTTL(t, b, "expired", time.Minute)
		report := sound(t, db)
		require.Equal(t, 1, report.Rows)
		require.Equal(t, 1, report.Entries)
	})
}

// The room of cleared and dropped buckets is freed by the sweeper, also if the cache is closed before it came.
func TestSweep_Retired(t *testing.T) {
	for name, reopens := range map[string]bool{"at once": false, "after a reopen": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := newPath(t)
				db := open(t, path, &keepcache.Options{SweepInterval: -1})
				cleared, dropped := db.Bucket("cleared"), db.Bucket("dropped")
				fill(t, cleared, 2500, time.Hour)
				fill(t, dropped, 1000, 0) // a whole step of the sweeper
				db = reopen(t, db, path, &keepcache.Options{SweepInterval: -1})
				cleared = db.Bucket("cleared")
				committed(t, db)
				require.NoError(t, cleared.Clear(t.Context()))
				found, err := db.DropBucket("dropped")
				require.NoError(t, err)
				require.True(t, found)
				mustSet(t, cleared, "k000001", "new", time.Minute)

				require.Equal(t, 3500, sound(t, db).Pending)
				require.Equal(t, int64(1), db.Stats().Entries)
				if reopens {
					db = reopen(t, db, path, &keepcache.Options{SweepInterval: -1})
				}
				require.Equal(t, int64(2), db.Stats().Sweep.Pending)
				removed, err := db.Sweep(t.Context())
				require.NoError(t, err)
				require.Equal(t, 3500, removed)
				stats := db.Stats().Sweep
				require.Equal(t, uint64(3500), stats.Cleared)
				require.Zero(t, stats.Removed)
				require.Zero(t, stats.Pending)
				report := sound(t, db)
				report.Journal = keepcache.JournalReport{}
				require.Equal(t, keepcache.Report{Buckets: 1, Entries: 1, Rows: 1}, report)
				requireValue(t, db.Bucket("cleared"), "k000001", "new")
			})
		})
	}
}

// A sweep ends with its ctx and leaves a sound cache, which the next one finishes.
func TestSweep_Canceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		db := open(t, path, &keepcache.Options{SweepInterval: -1})
		fill(t, db.Bucket("b"), 100, time.Second)
		fill(t, db.Bucket("cleared"), 100, 0)
		committed(t, db)
		require.NoError(t, db.Bucket("cleared").Clear(t.Context()))
		time.Sleep(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		removed, err := db.Sweep(ctx)
		requireError(t, err, context.Canceled, "sweep", path)
		require.Zero(t, removed)
		require.ErrorIs(t, db.Stats().Sweep.Err, context.Canceled)
		sound(t, db)
		removed, err = db.Sweep(t.Context())
		require.NoError(t, err)
		require.Equal(t, 200, removed)
		require.NoError(t, db.Stats().Sweep.Err)
	})
}
