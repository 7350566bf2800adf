package keepcache_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// All yields every live entry once, in byte order, with its value and its times.
func TestAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, &keepcache.Options{SweepInterval: -1}).Bucket("b")
		require.Empty(t, keys(t, b, ""), "of a bucket that does not exist")
		fill(t, b, 1000, time.Hour)
		mustSet(t, b, "k000500x", "expires", time.Second)
		mustSet(t, b, "large", strings.Repeat("x", 600<<10), 0) // more than one page holds
		time.Sleep(time.Second)

		i := 0
		for e, err := range b.All() {
			require.NoError(t, err)
			stat, found, err := b.Stat(e.Key)
			require.NoError(t, err)
			require.True(t, found)
			require.Equal(t, stat, e)
			if i == 1000 {
				require.Equal(t, "large", e.Key)
			} else {
				var n int
				require.NoError(t, e.Decode(&n))
				require.Equal(t, i, n)
				require.Equal(t, numbered(i), e.Key)
			}
			i++
		}
		require.Equal(t, 1001, i)
	})
}

// Prefix is literal and byte-wise, up to the end of the key space.
func TestPrefix(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	all := append([]string{"*", "a", "a*", "a*b", "ab", "b", "\xff", "\xff\xff", "\xff\xffz", "a\xff", "a\xff\x00"}, "")
	all = all[:len(all)-1]
	for _, key := range all {
		mustSet(t, b, key, 1, 0)
	}
	slices.Sort(all)
	for _, prefix := range []string{"", "a", "a*", "*", "\xff", "\xff\xff", "a\xff", "zzz", "\x00",
		strings.Repeat("a", 40_000)} {
		want := []string{}
		for _, key := range all {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		require.Equal(t, want, keys(t, b, prefix), "%q", prefix)
	}
}

// A range can be left early and started again.
func TestAll_Break(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	fill(t, b, 300, 0)
	all := b.All()
	for range 2 {
		n := 0
		for range all {
			if n++; n == 5 {
				break
			}
		}
		require.Equal(t, 5, n)
	}
	n := 0
	for range all {
		n++
	}
	require.Equal(t, 300, n)
}

// The body of a range may write to the bucket it walks; entries that live through it are seen exactly once.
func TestAll_WritesInBody(t *testing.T) {
	db := newDB(t, nil)
	b := db.Bucket("b")
	fill(t, b, 600, 0)
	seen := map[string]int{}
	i := 0
	for e, err := range b.All() {
		require.NoError(t, err)
		seen[e.Key]++
		if i%10 == 0 && strings.HasPrefix(e.Key, "k") {
			mustSet(t, b, "new-before"+e.Key, 1, 0)
			mustSet(t, b, "z-after"+e.Key, 1, 0)
			mustSet(t, b, e.Key, strings.Repeat("larger", 100), 0)
			_, err := b.Delete(e.Key[:3] + "599") // one of them, ahead
			require.NoError(t, err)
			sound(t, db)
		}
		i++
	}
	for i := range 599 {
		require.Equal(t, 1, seen[numbered(i)], numbered(i))
	}
	for key, n := range seen {
		require.Equal(t, 1, n, key)
	}
}

// A Clear in the body ends the range; a Close ends it with ErrClosed.
func TestAll_ClearAndClose(t *testing.T) {
	db := newDB(t, nil)
	b := db.Bucket("b")
	fill(t, b, 2000, 0)
	n := 0
	for e, err := range b.All() {
		require.NoError(t, err)
		if n++; n == 1 {
			require.NoError(t, b.Clear(context.Background()))
			mustSet(t, b, "z", "after the clear", 0)
		}
		require.NotEqual(t, "z", e.Key)
	}
	require.Less(t, n, 2000)

	fill(t, b, 2000, 0)
	var last error
	n = 0
	for _, err := range b.All() {
		if n++; n == 1 {
			require.NoError(t, db.Close())
		}
		last = err
	}
	require.ErrorIs(t, last, keepcache.ErrClosed)
	require.Less(t, n, 2000)
}

// Entries that expire while a range runs are left out from their deadline on.
func TestAll_ExpiresMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		fill(t, b, 100, time.Minute)
		n := 0
		for range b.All() {
			if n++; n == 10 {
				time.Sleep(time.Minute)
			}
		}
		require.Equal(t, 10, n)
	})
}

// DeletePrefix removes what begins with the prefix and counts what was live, over many chunks.
func TestDeletePrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		db := open(t, path, &keepcache.Options{SweepInterval: -1})
		b := db.Bucket("b")
		deleted, err := b.DeletePrefix(t.Context(), "k")
		require.NoError(t, err)
		require.Zero(t, deleted)

		fill(t, b, 1200, time.Hour)
		mustSet(t, b, "k-expired", 1, time.Second)
		mustSet(t, b, "l", 1, 0)
		mustSet(t, db.Bucket("other"), "k", 1, 0)
		time.Sleep(time.Second)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		deleted, err = b.DeletePrefix(ctx, "k")
		requireError(t, err, context.Canceled, "delete prefix", path)
		require.Zero(t, deleted)

		deleted, err = b.DeletePrefix(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, 1200, deleted)
		require.Equal(t, []string{"l"}, keys(t, b, ""))
		requireValue(t, db.Bucket("other"), "k", int64(1))
		require.Zero(t, sound(t, db).Rows)
		deleted, err = b.DeletePrefix(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, 1, deleted)
	})
}

// Clear empties the bucket at once, whatever its size, keeps the bucket, and later entries stay.
func TestClear(t *testing.T) {
	path := newPath(t)
	db := open(t, path, &keepcache.Options{SweepInterval: -1})
	b := db.Bucket("b")
	require.NoError(t, b.Clear(context.Background()), "of a bucket that does not exist")
	names, err := db.Buckets()
	require.NoError(t, err)
	require.Empty(t, names)

	fill(t, b, 3000, time.Hour)
	mustSet(t, db.Bucket("other"), "k000001", 1, 0)
	before := db.Stats().Commit
	require.NoError(t, b.Clear(context.Background()))
	require.LessOrEqual(t, db.Stats().Commit.Entries-before.Entries, uint64(1), "Clear must not go entry by entry")
	requireAbsent(t, b, "k000001")
	n, err := b.Len()
	require.NoError(t, err)
	require.Zero(t, n)
	added, err := b.Add("k000001", "new", 0)
	require.NoError(t, err)
	require.True(t, added)
	require.NoError(t, b.Set("k000002", "new", 0))

	db = reopen(t, db, path, nil)
	require.Equal(t, []string{"k000001", "k000002"}, keys(t, db.Bucket("b"), ""))
	requireValue(t, db.Bucket("other"), "k000001", int64(1))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	requireError(t, db.Bucket("b").Clear(ctx), context.Canceled, "clear", path)
	require.Equal(t, []string{"k000001", "k000002"}, keys(t, db.Bucket("b"), ""))
}

// DropBucket removes the bucket at once; handles of it stay usable and bring it back with their first entry.
func TestDropBucket(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	b, twin := db.Bucket("b"), db.Bucket("b")
	found, err := db.DropBucket("b")
	require.NoError(t, err)
	require.False(t, found)
	mustSet(t, b, "old", 1, time.Hour)
	mustSet(t, db.Bucket("other"), "k", 1, 0)

	found, err = db.DropBucket("b")
	require.NoError(t, err)
	require.True(t, found)
	requireAbsent(t, b, "old")
	requireAbsent(t, twin, "old")
	names, err := db.Buckets()
	require.NoError(t, err)
	require.Equal(t, []string{"other"}, names)
	require.NotContains(t, db.Stats().Buckets, "b")
	deleted, err := b.Delete("old")
	require.NoError(t, err)
	require.False(t, deleted)
	found, err = db.DropBucket("b")
	require.NoError(t, err)
	require.False(t, found)

	mustSet(t, twin, "new", 2, 0)
	require.Equal(t, []string{"new"}, keys(t, b, ""))
	db = reopen(t, db, path, nil)
	require.Equal(t, []string{"new"}, keys(t, db.Bucket("b"), ""))
	names, err = db.Buckets()
	require.NoError(t, err)
	require.Equal(t, []string{"b", "other"}, names)
}

// What was deleted before a range began is not in it, although a commit takes it out of the file and out of memory
// between the range's look at the one and its look at the other.
func TestLen_WhileCommitting(t *testing.T) {
	db := newDB(t, &keepcache.Options{CommitInterval: time.Millisecond})
	b := db.Bucket("b")
	for range effort.Of(10, 30) {
		fill(t, b, 3000, 0)
		committed(t, db)
		keys := make([]string, 3000)
		for i := range keys {
			keys[i] = numbered(i)
		}
		_, err := b.DeleteMany(keys)
		require.NoError(t, err)
		for range 10 {
			n, err := b.Len()
			require.NoError(t, err)
			require.Zero(t, n)
		}
	}
}
