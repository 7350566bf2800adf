package keepcache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// scanned is what a test knows of an entry: its tag, and whether it is stale or negative.
type scanned struct {
	tag   string
	stale bool
}

// expected returns the keys that a scan of entries should yield, in its order.
func expected(entries map[string]scanned, o keepcache.ScanOptions) []string {
	want := []string{}
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		e := entries[key]
		switch {
		case !strings.HasPrefix(key, o.Prefix), key < o.From, o.To != "" && key >= o.To,
			o.After != "" && !o.Reverse && key <= o.After, o.After != "" && o.Reverse && key >= o.After,
			o.Tag != "" && e.tag != o.Tag, e.stale && !o.Stale:
		default:
			want = append(want, key)
		}
	}
	if o.Reverse {
		slices.Reverse(want)
	}
	return want
}

// randomKey returns a short key of few different bytes, the least and the greatest among them.
func randomKey(r *rand.Rand) string {
	key := make([]byte, 1+r.IntN(4))
	for i := range key {
		key[i] = "\x00ab\xfe\xff"[r.IntN(5)]
	}
	return string(key)
}

// randomScan returns options of which each may be set.
func randomScan(r *rand.Rand) (o keepcache.ScanOptions) {
	maybe := func(to *string) {
		if r.IntN(3) == 0 {
			*to = randomKey(r)
		}
	}
	maybe(&o.From)
	maybe(&o.To)
	maybe(&o.After)
	if r.IntN(3) == 0 {
		o.Prefix = randomKey(r)[:1]
	}
	if r.IntN(4) == 0 {
		o.Tag = []string{"t", "u"}[r.IntN(2)]
	}
	o.Reverse, o.Stale, o.KeysOnly = r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0
	return o
}

// TestScan compares scans with each combination of options with what is there: in the file, in memory and in the
// journal, live, stale and negative, and also for a reader without the lock.
func TestScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		path := newPath(t)
		db := open(t, path, &keepcache.Options{SweepInterval: -1, CommitInterval: time.Hour})
		reader := beside(t, path)
		b := db.Bucket("b")
		entries := make(map[string]scanned)
		for round := range 30 {
			for range 20 {
				key, e := randomKey(r), scanned{tag: []string{"", "t", "u"}[r.IntN(3)], stale: r.IntN(4) == 0}
				now := time.Now()
				what := keepcache.Entry{Key: key}
				if e.tag != "" {
					what.Tags = []string{e.tag}
				}
				if e.stale {
					what.ExpiresAt, what.StaleUntil = now.Add(-time.Minute), now.Add(100*time.Hour)
					if what.Negative = r.IntN(2) == 0; what.Negative {
						what.ExpiresAt = now.Add(100 * time.Hour)
					}
				}
				require.NoError(t, b.Restore(what, fmt.Sprintf("%x", key)))
				entries[key] = e
				if r.IntN(5) == 0 {
					gone := randomKey(r)
					_, err := b.Delete(gone)
					require.NoError(t, err)
					delete(entries, gone)
				}
			}
			if round%3 == 0 {
				committed(t, db)
			}
			for range 20 {
				o := randomScan(r)
				want := expected(entries, o)
				for _, b := range []*keepcache.Bucket{b, reader.Bucket("b")} {
					got := []string{}
					for e, err := range b.Scan(&o) {
						require.NoError(t, err)
						got = append(got, e.Key)
						requireScanned(t, e, &o)
					}
					require.Equal(t, want, got, "%+v", o)
				}
			}
		}
	})
}

// requireScanned requires that an entry of a scan has its value, its key in hexadecimal, or none if it should not.
func requireScanned(t *testing.T, e keepcache.Entry, o *keepcache.ScanOptions) {
	var value string
	err := e.Decode(&value)
	_, textErr := e.AppendJSON(nil)
	switch {
	case o.KeysOnly:
		require.ErrorIs(t, err, keepcache.ErrNoValue)
		require.ErrorIs(t, textErr, keepcache.ErrNoValue)
		require.Positive(t, e.Size)
	case e.Negative:
		require.NoError(t, textErr)
	default:
		require.NoError(t, err)
		require.NoError(t, textErr)
		require.Equal(t, fmt.Sprintf("%x", e.Key), value)
	}
}

// Pages by After, in both directions, have each entry once, however small they are and whatever is written meanwhile to
// keys that are not there yet.
func TestScan_Pages(t *testing.T) {
	db := newDB(t, nil)
	b := db.Bucket("b")
	fill(t, b, 3000, 0)
	committed(t, db)
	for i := 0; i < 3000; i += 7 {
		mustSet(t, b, numbered(i), i, time.Hour) // in memory
	}
	var want []string
	for i := range 3000 {
		want = append(want, numbered(i))
	}
	for _, reverse := range []bool{false, true} {
		for _, size := range []int{1, 299} {
			var got []string
			last := ""
			for more := true; more && len(got) < 1200; {
				more = false
				n := 0
				for e, err := range b.Scan(&keepcache.ScanOptions{After: last, Reverse: reverse, KeysOnly: true}) {
					require.NoError(t, err)
					if n == size {
						more = true
						break
					}
					got, n, last = append(got, e.Key), n+1, e.Key
				}
				mustSet(t, b, "z"+last, 1, 0)
				_, err := b.Delete("z" + last)
				require.NoError(t, err)
			}
			require.Equal(t, want[:len(got)], got)
		}
		slices.Reverse(want)
	}
}

// A loop over a scan in descending order may change the bucket, and a Clear ends it.
func TestScan_Changed(t *testing.T) {
	db := newDB(t, nil)
	b := db.Bucket("b")
	fill(t, b, 2000, 0)
	committed(t, db)
	n := 0
	for e, err := range b.Scan(&keepcache.ScanOptions{Reverse: true}) {
		require.NoError(t, err)
		require.Equal(t, numbered(1999-n), e.Key)
		found, err := b.Delete(e.Key)
		require.NoError(t, err)
		require.True(t, found)
		n++
	}
	require.Equal(t, 2000, n)
	fill(t, b, 2000, 0)
	n = 0
	for _, err := range b.Scan(&keepcache.ScanOptions{Reverse: true}) {
		require.NoError(t, err)
		if n++; n == 10 {
			require.NoError(t, b.Clear(context.Background()))
		}
	}
	require.Less(t, n, 2000)
}

// A scan says of a name that is none, of a closed cache, and of nothing where the range is empty.
func TestScan_Errors(t *testing.T) {
	db := newDB(t, nil)
	for _, err := range db.Bucket("").Keys() {
		require.ErrorIs(t, err, keepcache.ErrInvalidName)
	}
	mustSet(t, db.Bucket("b"), "k", 1, 0)
	for _, o := range []keepcache.ScanOptions{{From: "z", To: "a"}, {From: "k", To: "k"}, {After: "k"},
		{After: "k", Reverse: true}, {Prefix: "k", From: "l"}} {
		for e := range db.Bucket("b").Scan(&o) {
			require.Fail(t, "an entry of an empty range", "%+v %v", o, e)
		}
	}
	require.NoError(t, db.Close())
	n := 0
	for key, err := range db.Bucket("b").Keys() {
		require.Empty(t, key)
		require.ErrorIs(t, err, keepcache.ErrClosed)
		n++
	}
	require.Equal(t, 1, n)
}

// A view has the ranges of its bucket, with values of its type.
func TestScan_View(t *testing.T) {
	v := keepcache.Of[string](newDB(t, nil).Bucket("b"))
	require.NoError(t, v.SetMany(map[string]string{"a1": "x", "a2": "y", "b1": "z"}, 0))
	require.NoError(t, v.WithTags("t").Set("b2", "w", 0))
	require.NoError(t, v.Bucket().Set("b3", 3, 0))
	show := func(seq func(func(keepcache.Item[string], error) bool)) (got []string) {
		for e, err := range seq {
			text := e.Key + "=" + e.Value
			if err != nil {
				require.ErrorIs(t, err, keepcache.ErrMismatch)
				text = e.Key + "!"
			}
			got = append(got, text)
		}
		return got
	}
	require.Equal(t, []string{"a1=x", "a2=y", "b1=z", "b2=w", "b3!"}, show(v.All()))
	require.Equal(t, []string{"a1=x", "a2=y"}, show(v.Prefix("a")))
	require.Equal(t, []string{"a2=y", "b1=z"}, show(v.Range("a2", "b2")))
	require.Equal(t, []string{"b2=w"}, show(v.Tagged("t")))
	require.Equal(t, []string{"b3=", "b2="},
		show(v.Scan(&keepcache.ScanOptions{Prefix: "b", After: "b4", Reverse: true, KeysOnly: true}))[:2])
	var keys []string
	for key, err := range v.Keys() {
		require.NoError(t, err)
		keys = append(keys, key)
	}
	require.Equal(t, []string{"a1", "a2", "b1", "b2", "b3"}, keys)
}

// A scan of keys copies no values: a thousand large ones take less than a hundredth of their bytes. The least of
// several scans counts, because background work of the cache allocates too.
func TestScan_KeysOnly(t *testing.T) {
	path := newPath(t)
	db := open(t, path, &keepcache.Options{MemoryBytes: 1 << 20})
	value := bytes.Repeat([]byte("x"), 100<<10)
	for i := range 500 {
		require.NoError(t, db.Bucket("b").SetBytes(numbered(i), value, 0))
	}
	committed(t, db)
	least := uint64(1 << 62)
	for range 10 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n := 0
		for _, err := range db.Bucket("b").Keys() {
			require.NoError(t, err)
			n++
		}
		runtime.ReadMemStats(&after)
		require.Equal(t, 500, n)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	require.Less(t, least, uint64(500*len(value)/100))
}

// A scan of a cache that is closed meanwhile says so.
func TestScan_Closed(t *testing.T) {
	for _, o := range []keepcache.ScanOptions{{}, {Reverse: true}} {
		db := newDB(t, nil)
		b := db.Bucket("b")
		fill(t, b, 600, 0)
		committed(t, db)
		n := 0
		var last error
		for _, err := range b.Scan(&o) {
			if n++; n == 10 {
				require.NoError(t, db.Close())
			}
			last = err
		}
		require.True(t, errors.Is(last, keepcache.ErrClosed), fmt.Sprint(last))
	}
}
