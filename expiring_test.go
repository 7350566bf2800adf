package keepcache_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// TestAfter pages through entries that are in the file, in memory and in both, with and without a prefix.
func TestAfter(t *testing.T) {
	db := newDB(t, nil)
	b := db.Bucket("b")
	var want []string
	for i := range 1000 {
		key := fmt.Sprintf("%c:%03d", 'a'+i%3, i)
		want = append(want, key)
		mustSet(t, b, key, i, 0)
		if i == 600 {
			committed(t, db)
		}
	}
	slices.Sort(want)
	for _, prefix := range []string{"", "b:", "b:1", "zz"} {
		var got, expected []string
		for _, key := range want {
			if len(key) >= len(prefix) && key[:len(prefix)] == prefix {
				expected = append(expected, key)
			}
		}
		for last, more := "", true; more; {
			more = false
			n := 0
			for e, err := range b.Scan(&keepcache.ScanOptions{After: last, Prefix: prefix}) {
				require.NoError(t, err)
				if n++; n > 7 {
					more = true
					break
				}
				got = append(got, e.Key)
			}
			if more {
				last = got[len(got)-1]
			}
		}
		require.Equal(t, expected, got, prefix)
	}
	for e, err := range b.Scan(&keepcache.ScanOptions{After: "c:999\xff"}) {
		require.Fail(t, "there is nothing behind the last key", "%v %v", e, err)
	}
	for e, err := range b.Scan(&keepcache.ScanOptions{After: "b:5", Prefix: "b:4"}) {
		require.Fail(t, "nothing behind the key has the prefix", "%v %v", e, err)
	}
}

// TestExpiring finds what ends first, wherever it is, by what is true and not by what the index says, and so does a
// reader without the lock.
func TestExpiring(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	r := beside(t, path)
	a, b := db.Bucket("a"), db.Bucket("b")
	for i := range 100 {
		mustSet(t, a, fmt.Sprintf("k%02d", i), i, time.Hour+time.Duration(i)*time.Minute)
		mustSet(t, b, fmt.Sprintf("k%02d", i), i, 3*time.Hour+time.Duration(i)*time.Minute)
	}
	mustSet(t, b, "never", 1, keepcache.NoExpiry)
	committed(t, db)
	_, err := a.Touch("k00", 50*time.Hour) // leaves its row behind
	require.NoError(t, err)
	_, err = a.Delete("k01")
	require.NoError(t, err)
	mustSet(t, b, "memory", 1, 63*time.Minute+30*time.Second)
	keys := func(found []keepcache.BucketEntry, err error) (keys []string) {
		require.NoError(t, err)
		for _, e := range found {
			keys = append(keys, e.Bucket+"/"+e.Key)
		}
		return keys
	}
	for range 2 {
		for _, db := range []*keepcache.DB{db, r} {
			require.Equal(t, []string{"a/k02", "a/k03", "b/memory", "a/k04"}, keys(db.Expiring(4)))
			require.Equal(t, []string{"b/memory", "b/k00"}, keys(db.Expiring(2, "b")))
			require.Len(t, keys(db.Expiring(math.MaxInt)), 200)
			require.Empty(t, keys(db.Expiring(0)))
			first, err := db.Expiring(1)
			require.NoError(t, err)
			_, err = first[0].AppendJSON(nil)
			require.ErrorIs(t, err, keepcache.ErrNoValue)
			require.Empty(t, keys(db.Expiring(5, "none")))
		}
		committed(t, db)
	}
}

// TestLook shows an entry which does not count as a read.
func TestLook(t *testing.T) {
	db := newDB(t, nil)
	require.NoError(t, db.Set("a", []any{1.0, 2}, time.Hour))
	b := db.Bucket(keepcache.DefaultBucket)
	for range 2 {
		e, found, err := b.Stat("a")
		require.NoError(t, err)
		require.True(t, found)
		text, err := e.AppendJSON([]byte("x"))
		require.NoError(t, err)
		require.Equal(t, "x[1.0,2]", string(text))
		_, found, err = b.Stat("b")
		require.NoError(t, err)
		require.False(t, found)
		committed(t, db)
	}
	_, _, err := b.Stat("")
	require.ErrorIs(t, err, keepcache.ErrInvalidKey)
	_, _, err = db.Bucket("").Stat("a")
	require.ErrorIs(t, err, keepcache.ErrInvalidName)
	s := db.Stats()
	require.Zero(t, s.Hits+s.Misses)
	_, err = keepcache.Entry{}.AppendJSON(nil)
	require.ErrorIs(t, err, keepcache.ErrNoValue)
}
