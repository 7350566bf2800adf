package keepcache_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// What was written is counted at once, whether it is committed or not, by the process that has the cache and beside it.
func TestStats_Uncommitted(t *testing.T) {
	path := newPath(t)
	db := open(t, path, &keepcache.Options{CommitInterval: time.Hour, SweepInterval: -1})
	r := beside(t, path)
	mustSet(t, db.Bucket("default"), "k", "v", 0)
	for _, db := range []*keepcache.DB{db, r} {
		s := db.Stats()
		require.Equal(t, int64(1), s.Entries)
		require.Positive(t, s.Bytes)
		require.Equal(t, map[string]keepcache.BucketStats{"default": {Entries: 1, Bytes: s.Bytes}}, uncosted(s))
	}

	rng := rand.New(rand.NewPCG(1, 2))
	names := []string{"a", "b", "c"}
	for range effort.Of(150, 400) {
		b := db.Bucket(names[rng.IntN(len(names))])
		switch key := numbered(rng.IntN(40)); rng.IntN(12) {
		case 0:
			committed(t, db)
		case 1:
			require.NoError(t, b.Clear(context.Background()))
		case 2:
			_, err := db.DropBucket(b.Name())
			require.NoError(t, err)
		case 3, 4, 5:
			_, err := b.Delete(key)
			require.NoError(t, err)
		default:
			require.NoError(t, b.SetBytes(key, make([]byte, rng.IntN(300)), 0))
		}
		before := db.Stats()
		require.Equal(t, lengthsOf(t, db), uncosted(before))
		require.Equal(t, uncosted(before), uncosted(r.Stats()))
		require.Equal(t, before.Bytes, r.Stats().Bytes)
		if rng.IntN(10) == 0 {
			committed(t, db)
			// the sweeper drops them
			maps.DeleteFunc(before.Buckets, func(_ string, b keepcache.BucketStats) bool { return b.Entries == 0 })
			require.Equal(t, uncosted(before), uncosted(db.Stats()), "a commit changes nothing")
			require.Equal(t, db.Stats().Buckets, r.Stats().Buckets, "what they cost in the file")
		}
	}
}

// uncosted returns the stats of all buckets without what they cost, which is of what has been committed.
func uncosted(s keepcache.Stats) map[string]keepcache.BucketStats {
	counts := make(map[string]keepcache.BucketStats)
	for name, b := range s.Buckets {
		b.Cost = 0
		counts[name] = b
	}
	return counts
}

// lengthsOf counts the entries of all buckets one by one.
func lengthsOf(t tester, db *keepcache.DB) map[string]keepcache.BucketStats {
	t.Helper()
	names, err := db.Buckets()
	require.NoError(t, err)
	counts := make(map[string]keepcache.BucketStats)
	for _, name := range names {
		s := keepcache.BucketStats{Bytes: db.Stats().Buckets[name].Bytes}
		for _, err := range db.Bucket(name).All() {
			require.NoError(t, err)
			s.Entries++
		}
		counts[name] = s
	}
	return counts
}

// With very many writes on their way the numbers are estimates, and good ones: every bucket is looked at.
func TestStats_UncommittedMany(t *testing.T) {
	path := newPath(t)
	db := open(t, path, &keepcache.Options{CommitInterval: time.Hour, SweepInterval: -1, MemoryBytes: 256 << 20,
		CommitBytes: 128 << 20})
	r := beside(t, path)
	const old, fresh = 20_000, 30_000
	load := func(from, to int) {
		values := make(map[string]any)
		for i := from; i < to; i++ {
			values[numbered(i)] = i
		}
		require.NoError(t, db.Bucket("large").SetMany(values, 0))
	}
	load(0, old)
	committed(t, db)
	load(0, old+fresh)
	for i := range 50 {
		mustSet(t, db.Bucket(fmt.Sprint("small", i)), "k", i, 0)
	}
	for _, db := range []*keepcache.DB{db, r} {
		s := db.Stats()
		require.InDelta(t, old+fresh, s.Buckets["large"].Entries, (old+fresh)/20)
		for i := range 50 {
			require.Equal(t, int64(1), s.Buckets[fmt.Sprint("small", i)].Entries)
		}
	}
	committed(t, db)
	require.Equal(t, int64(old+fresh), db.Stats().Buckets["large"].Entries)
}

// Each operation that writes or removes counts once a key.
func TestStats_Counts(t *testing.T) {
	db := newDB(t, nil)
	b := db.Bucket("b")
	sets, deletes := uint64(0), uint64(0)
	after := func(op string, moreSets, moreDeletes uint64, err error) {
		t.Helper()
		require.NoError(t, err, op)
		sets, deletes = sets+moreSets, deletes+moreDeletes
		s := db.Stats()
		require.Equal(t, [2]uint64{sets, deletes}, [2]uint64{s.Sets, s.Deletes}, op)
	}
	after("set", 1, 0, b.Set("a", 1, 0))
	after("set bytes", 1, 0, b.SetBytes("bytes", nil, 0))
	after("set many", 3, 0, b.SetMany(map[string]any{"x": 1, "y": 2, "z": 3}, 0))
	_, err := b.Add("added", 1, 0)
	after("add", 1, 0, err)
	_, err = b.Add("added", 1, 0)
	after("add in vain", 0, 0, err)
	_, err = b.Swap("a", 2, 0, nil)
	after("swap", 1, 0, err)
	_, err = b.Increment("a", 1, 0)
	after("increment", 1, 0, err)
	after("update", 1, 0, update(b, "a", func(keepcache.Entry, bool) (any, error) { return 5, nil }))
	e, _, err := b.Stat("a")
	require.NoError(t, err)
	_, err = compareAndSwap(b, "a", e.Revision, 6)
	after("compare and swap", 1, 0, err)
	_, err = compareAndSwap(b, "a", e.Revision, 7)
	after("compare and swap in vain", 0, 0, err)
	var batch keepcache.Batch
	batch.Set(b, "p", 1, 0)
	batch.Set(b, "q", 1, 0)
	batch.Delete(b, "p2")
	after("apply", 2, 0, db.Apply(&batch))
	_, err = b.Touch("a", time.Hour)
	after("touch", 0, 0, err)
	_, err = b.Delete("a")
	after("delete", 0, 1, err)
	_, err = b.Delete("a")
	after("delete in vain", 0, 0, err)
	_, err = b.Take("p", nil)
	after("take", 0, 1, err)
	_, err = b.DeleteMany([]string{"x", "y", "none"})
	after("delete many", 0, 2, err)
	_, err = b.DeletePrefix(context.Background(), "z")
	after("delete prefix", 0, 1, err)
}
