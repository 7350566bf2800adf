package keepcache_test

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// hostile are keys of any bytes, in byte order.
var hostile = []string{
	"\x00", "\x00\x00", "\n", " ", " a ", "*", "../../etc/passwd", "/", "?a=b&c", "[a-z]", "a", "a\x00", "a\x00b",
	"a\nb", "a b", "k\u00e9y", "\u2028", "\U0001f511", "\xc3\x28", "\xff", "\xff\xff\xff",
}

// Keys of any bytes are kept byte for byte, by every operation and through a reopen.
func TestKeys_AnyBytes(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	b := db.Bucket("b")
	for i, key := range hostile {
		mustSet(t, b, key, i, time.Hour)
	}
	db = reopen(t, db, path, nil)
	b = db.Bucket("b")
	want := slices.Sorted(slices.Values(hostile))
	require.Equal(t, want, keys(t, b, ""))
	for i, key := range hostile {
		requireValue(t, b, key, int64(i))
		found, err := b.Touch(key, 2*time.Hour)
		require.NoError(t, err)
		require.True(t, found)
		entry, found, err := b.Stat(key)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, key, entry.Key)
	}
	for i, key := range hostile {
		found, err := b.Delete(key)
		require.NoError(t, err)
		require.True(t, found)
		n, err := b.Len()
		require.NoError(t, err)
		require.Equal(t, len(hostile)-i-1, n)
	}
}

// A key has 1 to MaxKeyBytes bytes; every operation refuses another one and changes nothing.
func TestKeys_Length(t *testing.T) {
	path := newPath(t)
	b := open(t, path, nil).Bucket("b")
	longest := strings.Repeat("k", keepcache.MaxKeyBytes)
	mustSet(t, b, longest, "v", time.Hour)
	requireValue(t, b, longest, "v")
	require.Equal(t, 32_000, keepcache.MaxKeyBytes)

	for _, key := range []string{"", longest + "k"} {
		var dst any
		requireError(t, b.Set(key, 1, 0), keepcache.ErrInvalidKey, "set", path)
		requireError(t, b.SetBytes(key, nil, 0), keepcache.ErrInvalidKey, "set", path)
		_, err := b.Get(key, &dst)
		requireError(t, err, keepcache.ErrInvalidKey, "get", path)
		_, _, err = b.GetBytes(key)
		requireError(t, err, keepcache.ErrInvalidKey, "get", path)
		_, err = b.Exists(key)
		requireError(t, err, keepcache.ErrInvalidKey, "exists", path)
		_, err = b.Delete(key)
		requireError(t, err, keepcache.ErrInvalidKey, "delete", path)
		_, err = b.Add(key, 1, 0)
		requireError(t, err, keepcache.ErrInvalidKey, "add", path)
		_, err = b.Touch(key, 0)
		requireError(t, err, keepcache.ErrInvalidKey, "touch", path)
		_, _, err = b.TTL(key)
		requireError(t, err, keepcache.ErrInvalidKey, "ttl", path)
		_, _, err = b.Stat(key)
		requireError(t, err, keepcache.ErrInvalidKey, "stat", path)
		require.Less(t, len(err.Error()), 400, "the key must be shortened")
	}
	require.Equal(t, []string{longest}, keys(t, b, ""))
}

// A bucket's name has 1 to MaxNameBytes bytes of any kind; every operation refuses another one.
func TestNames(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	longest := strings.Repeat("n", keepcache.MaxNameBytes)
	require.Equal(t, 255, keepcache.MaxNameBytes)
	names := append([]string{longest}, hostile...)
	for i, name := range names {
		require.Equal(t, name, db.Bucket(name).Name())
		mustSet(t, db.Bucket(name), "k", i, 0)
	}
	db = reopen(t, db, path, nil)
	for i, name := range names {
		requireValue(t, db.Bucket(name), "k", int64(i))
	}
	slices.Sort(names)
	got, err := db.Buckets()
	require.NoError(t, err)
	require.Equal(t, names, got)

	for _, name := range []string{"", longest + "n"} {
		b := db.Bucket(name)
		var dst any
		ctx := context.Background()
		requireError(t, b.Set("k", 1, 0), keepcache.ErrInvalidName, "set", path)
		_, err := b.Get("k", &dst)
		requireError(t, err, keepcache.ErrInvalidName, "get", path)
		_, err = b.Exists("k")
		requireError(t, err, keepcache.ErrInvalidName, "exists", path)
		_, err = b.Delete("k")
		requireError(t, err, keepcache.ErrInvalidName, "delete", path)
		_, err = b.Add("k", 1, 0)
		requireError(t, err, keepcache.ErrInvalidName, "add", path)
		_, err = b.Touch("k", 0)
		requireError(t, err, keepcache.ErrInvalidName, "touch", path)
		_, _, err = b.TTL("k")
		requireError(t, err, keepcache.ErrInvalidName, "ttl", path)
		_, _, err = b.Stat("k")
		requireError(t, err, keepcache.ErrInvalidName, "stat", path)
		_, err = b.Len()
		require.ErrorIs(t, err, keepcache.ErrInvalidName)
		_, err = b.DeletePrefix(ctx, "k")
		require.ErrorIs(t, err, keepcache.ErrInvalidName)
		require.ErrorIs(t, b.Clear(ctx), keepcache.ErrInvalidName)
		_, err = db.DropBucket(name)
		require.ErrorIs(t, err, keepcache.ErrInvalidName)
		for _, err := range b.All() {
			require.ErrorIs(t, err, keepcache.ErrInvalidName)
		}
	}
}

// Buckets are apart: the same key in another bucket is another entry, and the DB's methods speak for "default".
func TestBuckets_Apart(t *testing.T) {
	db := newDB(t, nil)
	one, two := db.Bucket("one"), db.Bucket("two")
	mustSet(t, one, "k", 1, 0)
	mustSet(t, two, "k", 2, 0)
	require.NoError(t, db.Set("k", 3, 0))
	requireValue(t, one, "k", int64(1))
	requireValue(t, two, "k", int64(2))
	requireValue(t, db.Bucket("default"), "k", int64(3))

	found, err := one.Delete("k")
	require.NoError(t, err)
	require.True(t, found)
	requireAbsent(t, one, "k")
	requireValue(t, db.Bucket("two"), "k", int64(2))
	found, err = db.Delete("k")
	require.NoError(t, err)
	require.True(t, found)
	requireAbsent(t, db.Bucket("default"), "k")
}

// Add stores on an absent and on an expired key, and otherwise changes neither value nor lifetime.
func TestAdd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, &keepcache.Options{SweepInterval: -1}).Bucket("b")
		added, err := b.Add("k", "first", time.Minute)
		require.NoError(t, err)
		require.True(t, added)
		added, err = b.Add("k", "second", time.Hour)
		require.NoError(t, err)
		require.False(t, added)
		requireValue(t, b, "k", "first")
		requireTTL(t, b, "k", time.Minute)

		time.Sleep(time.Minute)
		added, err = b.Add("k", "third", time.Hour)
		require.NoError(t, err)
		require.True(t, added)
		requireValue(t, b, "k", "third")
		requireTTL(t, b, "k", time.Hour)

		mustSet(t, b, "null", nil, 0)
		added, err = b.Add("null", 1, 0)
		require.NoError(t, err)
		require.False(t, added, "a stored null is there")
	})
}

// Add refuses bad arguments whether or not the key is there.
func TestAdd_BadArguments(t *testing.T) {
	path := newPath(t)
	b := open(t, path, nil).Bucket("b")
	mustSet(t, b, "live", "v", 0)
	for _, key := range []string{"absent", "live"} {
		_, err := b.Add(key, 1, -1)
		requireError(t, err, keepcache.ErrInvalidTTL, "add", path)
	}
	_, err := b.Add("absent", math.NaN(), 0)
	requireError(t, err, keepcache.ErrUnsupportedValue, "add", path)
	require.Equal(t, []string{"live"}, keys(t, b, ""))
}

// Delete reports true once; on an expired entry it reports false.
func TestDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, &keepcache.Options{SweepInterval: -1})
		b := db.Bucket("b")
		found, err := b.Delete("k")
		require.NoError(t, err)
		require.False(t, found, "in a bucket that does not exist")
		names, err := db.Buckets()
		require.NoError(t, err)
		require.Empty(t, names)

		mustSet(t, b, "k", 1, time.Second)
		found, err = b.Delete("k")
		require.NoError(t, err)
		require.True(t, found)
		found, err = b.Delete("k")
		require.NoError(t, err)
		require.False(t, found)

		mustSet(t, b, "k", 1, time.Second)
		time.Sleep(time.Second)
		found, err = b.Delete("k")
		require.NoError(t, err)
		require.False(t, found, "expired")
		requireAbsent(t, b, "k")
	})
}

// Len counts the live entries exactly, over more than one page.
func TestLen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, &keepcache.Options{SweepInterval: -1}).Bucket("b")
		n, err := b.Len()
		require.NoError(t, err)
		require.Zero(t, n)
		fill(t, b, 700, 0)
		for i := range 100 {
			mustSet(t, b, "brief"+numbered(i), i, time.Second)
		}
		n, err = b.Len()
		require.NoError(t, err)
		require.Equal(t, 800, n)
		time.Sleep(time.Second)
		n, err = b.Len()
		require.NoError(t, err)
		require.Equal(t, 700, n)
	})
}

// Stat tells size, times and revision; an overwrite raises the revision.
func TestStat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		start := time.Now()
		mustSet(t, b, "k", "0123456789", time.Minute)
		first, found, err := b.Stat("k")
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, "k", first.Key)
		require.GreaterOrEqual(t, first.Size, 10)
		require.Less(t, first.Size, 20)
		require.True(t, first.WrittenAt.Equal(start), first.WrittenAt)
		require.True(t, first.ExpiresAt.Equal(start.Add(time.Minute)), first.ExpiresAt)
		require.True(t, first.StaleUntil.Equal(first.ExpiresAt))
		require.NotZero(t, first.Revision)
		var value string
		require.NoError(t, first.Decode(&value))
		require.Equal(t, "0123456789", value)

		time.Sleep(time.Second)
		mustSet(t, b, "k", "", 0)
		second, found, err := b.Stat("k")
		require.NoError(t, err)
		require.True(t, found)
		require.Greater(t, second.Revision, first.Revision)
		require.True(t, second.WrittenAt.Equal(start.Add(time.Second)))
		require.True(t, second.ExpiresAt.IsZero())
		require.True(t, second.StaleUntil.IsZero())
	})
}

// Revisions rise with every write, through a reopen too.
func TestRevision_Rises(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	last := uint64(0)
	for i := range 30 {
		b := db.Bucket(string(rune('a' + i%3)))
		mustSet(t, b, "k", i, 0)
		entry, _, err := b.Stat("k")
		require.NoError(t, err)
		require.Greater(t, entry.Revision, last)
		last = entry.Revision
		if i%10 == 9 {
			_, err := b.Delete("k") // the highest revision may leave no entry behind
			require.NoError(t, err)
			db = reopen(t, db, path, nil)
		}
	}
}
