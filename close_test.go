package keepcache_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// calls are all calls that can fail, by the name of their operation.
func calls(db *keepcache.DB) map[string]func() error {
	b, ctx := db.Bucket("b"), context.Background()
	var dst any
	return map[string]func() error{
		"set":           func() error { return b.Set("k", 1, 0) },
		"get":           func() error { _, err := b.Get("k", &dst); return err },
		"get bytes":     func() error { _, _, err := b.GetBytes("k"); return err },
		"set bytes":     func() error { return b.SetBytes("k", []byte("b"), 0) },
		"delete":        func() error { _, err := b.Delete("k"); return err },
		"exists":        func() error { _, err := b.Exists("k"); return err },
		"ttl":           func() error { _, _, err := b.TTL("k"); return err },
		"touch":         func() error { _, err := b.Touch("k", time.Hour); return err },
		"add":           func() error { _, err := b.Add("k", 1, 0); return err },
		"len":           func() error { _, err := b.Len(); return err },
		"stat":          func() error { _, _, err := b.Stat("k"); return err },
		"clear":         func() error { return b.Clear(ctx) },
		"delete prefix": func() error { _, err := b.DeletePrefix(ctx, "k"); return err },
		"all": func() (last error) {
			for _, err := range b.All() {
				last = err
			}
			return last
		},
		"db set":    func() error { return db.Set("k", 1, 0) },
		"db get":    func() error { _, err := db.Get("k", &dst); return err },
		"db delete": func() error { _, err := db.Delete("k"); return err },
		"db exists": func() error { _, err := db.Exists("k"); return err },
		"buckets":   func() error { _, err := db.Buckets(); return err },
		"drop":      func() error { _, err := db.DropBucket("b"); return err },
		"sync":      func() error { return db.Sync(ctx) },
		"sweep":     func() error { _, err := db.Sweep(ctx); return err },
		"verify":    func() error { _, err := db.Verify(ctx); return err },
	}
}

// After Close every call gives ErrClosed, and Close again is fine.
func TestClose(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	mustSet(t, db.Bucket("b"), "k", 1, 0)
	require.NoError(t, db.Close())
	require.NoError(t, db.Close())
	for name, call := range calls(db) {
		err := call()
		require.ErrorIs(t, err, keepcache.ErrClosed, name)
		require.Contains(t, err.Error(), path, name)
	}
	require.Zero(t, db.Stats().Entries)
	require.NotZero(t, db.Stats().Sets, "the counters stay")
}

// Close beside calls under way: each of them succeeds or gives ErrClosed, and what succeeded is kept.
func TestClose_WhileInUse(t *testing.T) {
	path := newPath(t)
	for round := range 5 {
		db := open(t, path, &keepcache.Options{SweepInterval: time.Millisecond})
		var users sync.WaitGroup
		kept := make([]int, 8)
		for user := range kept {
			users.Go(func() {
				b := db.Bucket(strings.Repeat("b", round+1))
				for i := 1; ; i++ {
					if err := b.Set(numbered(user), i, time.Hour); err != nil {
						require.ErrorIs(t, err, keepcache.ErrClosed)
						return
					}
					kept[user] = i
					for _, err := range b.All() {
						if err != nil {
							require.ErrorIs(t, err, keepcache.ErrClosed)
						}
					}
				}
			})
		}
		time.Sleep(time.Duration(round) * 5 * time.Millisecond)
		require.NoError(t, db.Close())
		users.Wait()
		db = open(t, path, nil)
		for user, n := range kept {
			if n > 0 {
				requireValue(t, db.Bucket(strings.Repeat("b", round+1)), numbered(user), int64(n))
			}
		}
		require.NoError(t, db.Close())
	}
}

// A cache that is open for reading reads, refuses every write, and never changes the file, expired entries or not.
func TestReadOnly(t *testing.T) {
	synctest.Test(t, testReadOnly)
}

func testReadOnly(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	mustSet(t, db.Bucket("b"), "k", "djp2", 0) // also base64, for GetBytes
	mustSet(t, db.Bucket("b"), "expires", "v", time.Second)
	fill(t, db.Bucket("cleared"), 10, 0)
	require.NoError(t, db.Bucket("cleared").Clear(context.Background()))
	require.NoError(t, db.Close())
	before := snapshot(t, path)

	ro := open(t, path, &keepcache.Options{ReadOnly: true, SweepInterval: time.Millisecond})
	twin := open(t, path, &keepcache.Options{ReadOnly: true})
	time.Sleep(time.Second)
	requireValue(t, ro.Bucket("b"), "k", "djp2")
	requireValue(t, twin.Bucket("b"), "k", "djp2")
	requireAbsent(t, ro.Bucket("b"), "expires")
	require.Equal(t, []string{"k"}, keys(t, ro.Bucket("b"), ""))
	sound(t, ro)
	require.Equal(t, int64(2), ro.Stats().Buckets["b"].Entries)

	require.Zero(t, ro.Stats().Sweep.Sweeps)
	require.Zero(t, ro.Stats().Commit)

	writes := map[string]bool{
		"set": true, "set bytes": true, "delete": true, "touch": true, "add": true, "clear": true, "delete prefix": true,
		"db set": true, "db delete": true, "drop": true, "sweep": true,
	}
	for name, call := range calls(ro) {
		if err := call(); writes[name] {
			require.ErrorIs(t, err, keepcache.ErrReadOnly, name)
			require.Contains(t, err.Error(), path, name)
		} else {
			require.NoError(t, err, name)
		}
	}
	_, err := tryOpen(path, &keepcache.Options{LockTimeout: -1})
	requireError(t, err, keepcache.ErrLocked, "open", path)
	require.NoError(t, ro.Close())
	require.NoError(t, twin.Close())
	require.Equal(t, before, snapshot(t, path))
}

// Nonsense in the options is refused by Open, which says which one, and creates nothing.
func TestOptions_Invalid(t *testing.T) {
	for name, opts := range map[string]keepcache.Options{
		"DefaultTTL":    {DefaultTTL: -2},
		"MaxValueBytes": {MaxValueBytes: -2},
		"SweepInterval": {SweepInterval: -2},
		"LockTimeout":   {LockTimeout: -time.Second},
		`Buckets["b"]`:  {Buckets: map[string]keepcache.BucketOptions{"b": {DefaultTTL: -2}}},
		"Buckets":       {Buckets: map[string]keepcache.BucketOptions{"": {}}},
	} {
		path := newPath(t)
		_, err := keepcache.Open(path, &opts)
		require.ErrorContains(t, err, "option "+name)
		require.ErrorContains(t, err, path)
		require.NoFileExists(t, path)
	}
	_, err := keepcache.Open(newPath(t), &keepcache.Options{MaxValueBytes: 500<<20 + 1})
	require.ErrorContains(t, err, "option MaxValueBytes")
}

// Stats count what was done and how things stand.
func TestStats(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	require.Empty(t, db.Stats().Buckets)
	b := db.Bucket("b")
	mustSet(t, b, "k", "0123456789", 0)
	require.NoError(t, b.SetBytes("bytes", make([]byte, 1000), 0))
	_, err := b.Add("k", 1, 0)
	require.NoError(t, err)
	_, err = b.Add("added", 1, 0)
	require.NoError(t, err)
	var dst any
	for _, key := range []string{"k", "k", "absent"} {
		_, err := b.Get(key, &dst)
		require.NoError(t, err)
	}
	for range 2 {
		_, err = b.Delete("added")
		require.NoError(t, err)
	}
	committed(t, db)
	s := db.Stats()
	require.Equal(t, uint64(2), s.Hits)
	require.Equal(t, uint64(1), s.Misses)
	require.Equal(t, uint64(3), s.Sets)
	require.Equal(t, uint64(1), s.Deletes)
	require.Zero(t, s.Damaged)
	require.Equal(t, int64(2), s.Entries)
	require.Equal(t, int64(2), s.Buckets["b"].Entries)
	require.Equal(t, s.Bytes, s.Buckets["b"].Bytes)
	require.Greater(t, s.Bytes, int64(1010))
	require.Less(t, s.Bytes, int64(1300))
	require.Greater(t, s.FileBytes, s.Bytes)
	require.NotZero(t, s.Commit.Commits)
	require.NotZero(t, s.Commit.Entries)
	require.Zero(t, s.Commit.Failed)

	db = reopen(t, db, path, nil)
	again := db.Stats()
	require.Zero(t, again.Hits+again.Misses+again.Sets+again.Deletes)
	require.Equal(t, s.Buckets, again.Buckets, "sizes are of the file, counters of the run")
}

// Sync and Verify end with their ctx.
func TestContextEnds(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	mustSet(t, db.Bucket("b"), "k", 1, 0)
	require.NoError(t, db.Sync(context.Background()))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	requireError(t, db.Sync(ctx), context.Canceled, "sync", path)
	_, err := db.Verify(ctx)
	requireError(t, err, context.Canceled, "verify", path)
}

// An error names operation, key and bucket, and shortens what is long.
func TestError_Text(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	err := db.Bucket("sessions").Set("a\x00b", 1, -1)
	require.EqualError(t, err, `keepcache: set "a\x00b" in bucket "sessions" of "`+path+`": invalid lifetime: -1ns is negative`)
	err = db.Set("key", 1, keepcache.KeepTTL)
	require.EqualError(t, err,
		`keepcache: set "key" of "`+path+`": invalid lifetime: KeepTTL is for Update and CompareAndSwap`)
	err = db.Set("key", 1, -1)
	require.EqualError(t, err, `keepcache: set "key" of "`+path+`": invalid lifetime: -1ns is negative`)
	var e *keepcache.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "key", e.Key)
	require.Equal(t, "default", e.Bucket)

	long := strings.Repeat("x", 30_000)
	require.Less(t, len(db.Set(long, 1, -1).Error()), 400)
	require.Less(t, len(db.Bucket(long).Set("k", 1, 0).Error()), 400)
}
