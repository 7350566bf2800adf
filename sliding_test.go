package keepcache_test

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

func slidingOptions() *keepcache.Options {
	return &keepcache.Options{Buckets: map[string]keepcache.BucketOptions{"b": {Sliding: true}}}
}

// Each read begins the lifetime anew; what only looks does not, and other buckets do not slide.
func TestSliding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, slidingOptions())
		b := db.Bucket("b")
		const ttl = 80 * time.Second
		for name, read := range map[string]func() (bool, error){
			"get":      func() (bool, error) { return b.Get("k", new(any)) },
			"bytes":    func() (bool, error) { _, found, err := b.GetBytes("k"); return found, err },
			"exists":   func() (bool, error) { return b.Exists("k") },
			"get many": func() (bool, error) { m, err := b.GetMany([]string{"k"}); return len(m) == 1, err },
			"load": func() (bool, error) {
				_, err := b.GetOrLoad(t.Context(), "k", new(any), nil, nil)
				return err == nil, err
			},
			"load many": func() (bool, error) {
				m, err := b.GetOrLoadMany(t.Context(), []string{"k"}, nil, nil)
				return len(m) == 1, err
			},
		} {
			require.NoError(t, b.SetBytes("k", []byte("v"), ttl))
			for range 20 {
				for _, step := range []time.Duration{time.Second, ttl - time.Millisecond, ttl / 2} {
					time.Sleep(step)
					found, err := read()
					require.NoError(t, err)
					require.True(t, found, name)
					requireTTL(t, b, "k", ttl)
				}
			}
			time.Sleep(ttl)
			requireAbsent(t, b, "k")
		}
		mustSet(t, b, "k", 1, ttl)
		time.Sleep(ttl - time.Second)
		requireTTL(t, b, "k", time.Second)
		_, _, err := b.Stat("k")
		require.NoError(t, err)
		require.Len(t, keys(t, b, ""), 1)
		time.Sleep(time.Second)
		requireAbsent(t, b, "k")

		mustSet(t, b, "for ever", 1, 0)
		requireValue(t, b, "for ever", int64(1))
		requireTTL(t, b, "for ever", keepcache.NoExpiry)
		mustSet(t, db.Bucket("other"), "k", 1, ttl)
		time.Sleep(ttl / 2)
		requireValue(t, db.Bucket("other"), "k", int64(1))
		requireTTL(t, db.Bucket("other"), "k", ttl/2)
	})
}

// Touch, Increment and Update keep an entry sliding.
func TestSliding_Kept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, slidingOptions()).Bucket("b")
		mustSet(t, b, "k", 1, time.Minute)
		time.Sleep(30 * time.Second)
		_, err := b.Increment("k", 1, 0)
		require.NoError(t, err)
		requireTTL(t, b, "k", 30*time.Second)
		requireValue(t, b, "k", int64(2))
		requireTTL(t, b, "k", time.Minute)
		found, err := b.Touch("k", time.Hour)
		require.NoError(t, err)
		require.True(t, found)
		time.Sleep(30 * time.Minute)
		requireValue(t, b, "k", int64(2))
		requireTTL(t, b, "k", time.Hour)
	})
}

// Reads write no more than once in an eighth of the lifetime, whatever their number.
func TestSliding_FewWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, slidingOptions())
		b := db.Bucket("b")
		mustSet(t, b, "k", 1, 80*time.Second)
		before := db.Stats().Journal.Appends
		for range 800 { // 80 seconds
			time.Sleep(100 * time.Millisecond)
			found, err := b.Get("k", new(any))
			require.NoError(t, err)
			require.True(t, found)
		}
		writes := db.Stats().Journal.Appends - before
		require.LessOrEqual(t, writes, uint64(8))
		require.GreaterOrEqual(t, writes, uint64(6))
	})
}

// It is no different when the entry has outlived its first deadline, and the sweeper comes by each second.
func TestSliding_FewWritesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := slidingOptions()
		opts.SweepInterval = time.Second
		db := newDB(t, opts)
		b := db.Bucket("b")
		mustSet(t, b, "k", 1, 80*time.Second)
		committed(t, db)
		before := db.Stats().Journal.Appends
		for range 4000 { // 400 seconds
			time.Sleep(100 * time.Millisecond)
			found, err := b.Get("k", new(any))
			require.NoError(t, err)
			require.True(t, found)
		}
		require.LessOrEqual(t, db.Stats().Journal.Appends-before, uint64(45))
		require.GreaterOrEqual(t, db.Stats().Sweep.Moved, uint64(4))
	})
}

// Neither sweeper nor commit removes what memory says lives; a restart keeps it, and a crash forgets an eighth of
// the lifetime at most.
func TestSliding_Survives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 80 * time.Second
		for _, early := range []bool{false, true} { // is it in the file when it is read?
			path := newPath(t)
			opts := slidingOptions()
			opts.CommitInterval = time.Hour
			db := open(t, path, opts)
			b := db.Bucket("b")
			mustSet(t, b, "k", 1, ttl)
			if early {
				committed(t, db)
			}
			time.Sleep(9 * time.Second) // less than an eighth
			appends := db.Stats().Journal.Appends
			requireValue(t, b, "k", int64(1))
			require.Equal(t, appends, db.Stats().Journal.Appends, "memory alone knows")
			time.Sleep(ttl - 9*time.Second + 5*time.Second) // beyond the deadline in the record
			requireTTL(t, b, "k", 4*time.Second)
			committed(t, db)
			committed(t, db)
			require.Equal(t, int64(1), db.Stats().Entries)
			requireTTL(t, b, "k", 4*time.Second)
			n, err := b.Len()
			require.NoError(t, err)
			require.Equal(t, 1, n)
			db = reopen(t, db, path, opts)
			requireTTL(t, db.Bucket("b"), "k", 4*time.Second)

			mustSet(t, db.Bucket("b"), "k", 1, ttl)
			time.Sleep(9 * time.Second)
			requireValue(t, db.Bucket("b"), "k", int64(1))
			crashed := open(t, crashCopy(t, path, filepath.Join(t.TempDir(), "crashed")), opts)
			left, found, err := crashed.Bucket("b").TTL("k")
			require.NoError(t, err)
			require.True(t, found)
			require.GreaterOrEqual(t, left, ttl-ttl/8)
			// A clean restart forgets nothing.
			db = reopen(t, db, path, opts)
			requireTTL(t, db.Bucket("b"), "k", ttl)
			time.Sleep(ttl)
			requireAbsent(t, db.Bucket("b"), "k")
			committed(t, db)
			require.Zero(t, db.Stats().Entries)
		}
	})
}

// Many deadlines that memory alone knows take one flush to be written, whatever the mode.
func TestSliding_OneFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl, n = 80 * time.Second, 300
		opts := slidingOptions()
		opts.Sync, opts.SweepInterval = keepcache.SyncAlways, -1
		opts.MemoryBytes, opts.JournalBytes = 64<<20, 64<<20
		db := newDB(t, opts)
		b := db.Bucket("b")
		fill(t, b, n, ttl)
		committed(t, db)
		time.Sleep(9 * time.Second) // less than an eighth
		for i := range n {
			requireValue(t, b, numbered(i), int64(i))
		}
		time.Sleep(ttl - 8*time.Second)
		before := db.Stats().Journal
		removed, err := db.Sweep(t.Context())
		require.NoError(t, err)
		require.Zero(t, removed)
		after := db.Stats().Journal
		require.Equal(t, uint64(n), after.Appends-before.Appends)
		require.LessOrEqual(t, after.Flushes-before.Flushes, uint64(2))
		requireTTL(t, b, numbered(0), 8*time.Second)
	})
}

// An invalidation is not undone by reads that slide, nor a load discarded because of them.
func TestSliding_TagsAndLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, slidingOptions())
		b := db.Bucket("b")
		mustSet(t, b.WithTags("t"), "k", 1, time.Minute)
		time.Sleep(30 * time.Second)
		requireValue(t, b, "k", int64(1)) // writes the record anew
		entry, _, err := b.Stat("k")
		require.NoError(t, err)
		require.Equal(t, []string{"t"}, entry.Tags)
		require.NoError(t, db.InvalidateTags("t"))
		requireAbsent(t, b, "k")

		// A refresh is under way while a read writes the record anew: what it brings is stored all the same.
		value, hang := 1, make(chan struct{})
		close(hang)
		load := func(context.Context, *keepcache.Load) (any, error) {
			<-hang
			return value, nil
		}
		opts := &keepcache.LoadOptions{TTL: time.Minute, RefreshAhead: 0.5}
		var got int
		_, err = b.GetOrLoad(t.Context(), "l", &got, load, opts)
		require.NoError(t, err)
		value, hang = 2, make(chan struct{})
		time.Sleep(40 * time.Second)
		_, err = b.GetOrLoad(t.Context(), "l", &got, load, opts)
		require.NoError(t, err)
		require.Equal(t, 1, got)
		synctest.Wait()
		time.Sleep(15 * time.Second)
		requireValue(t, b, "l", int64(1))
		close(hang)
		synctest.Wait()
		requireValue(t, b, "l", int64(2))
	})
}

// A refresh that fails takes back nothing that reads have given the entry meanwhile, whether that is on disk or in
// memory alone.
func TestSliding_FailedRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, evicted := range []bool{false, true} { // has the file what reads gave?
			db := newDB(t, slidingOptions())
			b := db.Bucket("b")
			hang := make(chan struct{})
			var fails error
			load := func(context.Context, *keepcache.Load) (any, error) {
				if fails != nil {
					<-hang
				}
				return 1, fails
			}
			opts := &keepcache.LoadOptions{TTL: time.Minute, RefreshAhead: 0.5, RetryAfter: 10 * time.Second}
			var got int
			_, err := b.GetOrLoad(t.Context(), "k", &got, load, opts)
			require.NoError(t, err)
			fails = context.DeadlineExceeded
			time.Sleep(40 * time.Second)
			_, err = b.GetOrLoad(t.Context(), "k", &got, load, opts) // begins a refresh
			require.NoError(t, err)
			time.Sleep(15 * time.Second)
			requireValue(t, b, "k", int64(1)) // writes the record anew
			if evicted {
				committed(t, db)
			}
			time.Sleep(2 * time.Second)
			requireValue(t, b, "k", int64(1)) // memory alone knows
			requireTTL(t, b, "k", time.Minute)
			close(hang)
			synctest.Wait()
			require.Equal(t, uint64(1), db.Stats().Loads.Failures)
			requireTTL(t, b, "k", time.Minute)
			time.Sleep(time.Minute - time.Second)
			requireTTL(t, b, "k", time.Second)
			time.Sleep(time.Second)
			requireAbsent(t, b, "k")
			committed(t, db)
			require.Zero(t, db.Stats().Entries)
		}
	})
}
