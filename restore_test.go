package keepcache_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// A View sets and adds until a point in time as a bucket does.
func TestView_Until(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		v, until := keepcache.Of[int](b), time.Now().Add(time.Minute)
		require.NoError(t, v.SetUntil("set", 1, until))
		added, err := v.AddUntil("added", 2, until)
		require.NoError(t, err)
		require.True(t, added)
		added, err = v.AddUntil("added", 3, until)
		require.NoError(t, err)
		require.False(t, added)
		for _, key := range []string{"set", "added"} {
			ttl, found, err := b.TTL(key)
			require.NoError(t, err)
			require.True(t, found)
			require.Equal(t, time.Minute, ttl)
		}
		require.ErrorIs(t, v.SetUntil("set", 1, time.Now()), keepcache.ErrInvalidTTL)
	})
}

// The deadline is the point in time that is given. One that has passed changes nothing, and the zero time is never.
func TestSetUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, &keepcache.Options{
			DefaultTTL: time.Minute,
			Buckets:    map[string]keepcache.BucketOptions{"sliding": {Sliding: true}},
		})
		b := db.Bucket("b").WithTags("t")
		until := func(key string) time.Time {
			e, found, err := b.Stat(key)
			require.NoError(t, err)
			require.True(t, found)
			require.Equal(t, e.ExpiresAt, e.StaleUntil)
			require.Equal(t, []string{"t"}, e.Tags)
			return e.ExpiresAt
		}
		now := time.Now()
		require.NoError(t, b.SetUntil("exact", 1, now.Add(90*time.Millisecond)))
		require.Equal(t, now.Add(90*time.Millisecond).UnixMilli(), until("exact").UnixMilli())
		require.NoError(t, b.SetUntil("rounded", 1, now.Add(time.Nanosecond)))
		require.Equal(t, now.UnixMilli()+1, until("rounded").UnixMilli())
		require.NoError(t, b.SetUntil("never", 1, time.Time{}))
		require.True(t, until("never").IsZero())
		for _, far := range []time.Time{now.AddDate(20_000, 0, 0), time.Unix(math.MaxInt64>>8, 0)} {
			require.NoError(t, b.SetUntil("far", 1, far))
			require.Greater(t, until("far").Year(), 10_000)
		}

		require.NoError(t, b.Set("old", "stays", time.Hour))
		for _, past := range []time.Time{now, now.Add(-time.Millisecond), time.Unix(0, 0), time.Unix(-1<<50, 0)} {
			for _, key := range []string{"old", "none"} {
				require.ErrorIs(t, b.SetUntil(key, 2, past), keepcache.ErrInvalidTTL)
				_, err := b.AddUntil(key, 2, past)
				require.ErrorIs(t, err, keepcache.ErrInvalidTTL)
			}
		}
		require.Equal(t, now.Add(time.Hour).UnixMilli(), until("old").UnixMilli())
		found, err := b.Exists("none")
		require.NoError(t, err)
		require.False(t, found)
		require.ErrorIs(t, b.SetUntil("", 1, time.Time{}), keepcache.ErrInvalidKey)
		require.ErrorIs(t, b.SetUntil("old", func() {}, time.Time{}), keepcache.ErrUnsupportedValue)

		added, err := b.AddUntil("exact", 2, now.Add(time.Second))
		require.NoError(t, err)
		require.False(t, added)
		time.Sleep(89 * time.Millisecond)
		found, err = b.Exists("exact")
		require.NoError(t, err)
		require.True(t, found)
		time.Sleep(time.Millisecond)
		added, err = b.AddUntil("exact", 2, now.Add(time.Second))
		require.NoError(t, err)
		require.True(t, added)
		require.Equal(t, now.Add(time.Second).UnixMilli(), until("exact").UnixMilli())

		b = db.Bucket("sliding")
		require.NoError(t, b.SetUntil("k", 1, time.Now().Add(time.Second)))
		time.Sleep(900 * time.Millisecond)
		found, err = b.Exists("k")
		require.NoError(t, err)
		require.True(t, found)
		time.Sleep(100 * time.Millisecond)
		found, err = b.Exists("k")
		require.NoError(t, err)
		require.False(t, found)
	})
}

// What cannot be is refused, and changes nothing.
func TestRestore_Refused(t *testing.T) {
	db := newDB(t, &keepcache.Options{MaxValueBytes: 100})
	b := db.Bucket("b")
	require.NoError(t, b.Set("k", "stays", time.Hour))
	before, _, err := b.Stat("k")
	require.NoError(t, err)
	now := time.Now()
	for name, c := range map[string]struct {
		e     keepcache.Entry
		value any
		want  error
	}{
		"gone": {keepcache.Entry{ExpiresAt: now.Add(-time.Hour), StaleUntil: now.Add(-time.Second)}, 1,
			keepcache.ErrInvalidTTL},
		"before": {keepcache.Entry{ExpiresAt: now.Add(time.Hour), StaleUntil: now.Add(time.Minute)}, 1,
			keepcache.ErrInvalidTTL},
		"never,gone": {keepcache.Entry{StaleUntil: now.Add(time.Minute)}, 1, keepcache.ErrInvalidTTL},
		"sliding":    {keepcache.Entry{Sliding: -1}, 1, keepcache.ErrInvalidTTL},
		"tag":        {keepcache.Entry{Tags: []string{""}}, 1, keepcache.ErrInvalidTag},
		"etag":       {keepcache.Entry{ETag: strings.Repeat("e", keepcache.MaxETagBytes+1)}, 1, nil},
		"value":      {keepcache.Entry{}, math.NaN(), keepcache.ErrUnsupportedValue},
		"no value":   {keepcache.Entry{}, keepcache.Entry{}, keepcache.ErrNoValue},
		"large":      {keepcache.Entry{}, strings.Repeat("x", 101), keepcache.ErrTooLarge},
	} {
		c.e.Key = "k"
		err := b.Restore(c.e, c.value)
		require.Error(t, err, name)
		if c.want != nil {
			require.ErrorIs(t, err, c.want, name)
		}
		after, _, err := b.Stat("k")
		require.NoError(t, err)
		require.Equal(t, before, after, name)
	}
	require.ErrorIs(t, b.Restore(keepcache.Entry{}, 1), keepcache.ErrInvalidKey)
}

// A copy by Kept and Restore has all entries that GetOrLoad sees, with all that they say, and behaves as the original
// does from then on, also when it is opened anew.
func TestRestore_Copy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := &keepcache.Options{Buckets: map[string]keepcache.BucketOptions{"s": {Sliding: true}}}
		from := newDB(t, options)
		path := newPath(t)
		to := open(t, path, options)
		n := 200
		if long {
			n = 1000
		}
		rnd := rand.New(rand.NewPCG(7, 7))
		for i := range n {
			makeEntry(t, rnd, from, i)
			time.Sleep(time.Duration(rnd.IntN(30)) * time.Second / 10)
		}
		copied := 0
		for _, name := range []string{"b", "s"} {
			for e, err := range from.Bucket(name).Scan(&keepcache.ScanOptions{Stale: true}) {
				require.NoError(t, err)
				require.NoError(t, to.Bucket(name).WithTags("of the handle").Restore(e, e))
				copied++
			}
		}
		require.Greater(t, copied, n/2)
		requireSame(t, from, to)
		require.NoError(t, to.Close())
		to = open(t, path, options)
		requireSame(t, from, to)

		for _, tag := range []string{"t1", "t3"} {
			require.NoError(t, from.InvalidateTags(tag))
			require.NoError(t, to.InvalidateTags(tag))
		}
		for range 40 {
			for i := range n {
				if rnd.IntN(20) == 0 { // of which some slide
					key := fmt.Sprint("k", i)
					for _, name := range []string{"b", "s"} {
						require.Equal(t, outcomeOf(t, from.Bucket(name), key), outcomeOf(t, to.Bucket(name), key), key)
					}
				}
			}
			requireSame(t, from, to)
			time.Sleep(time.Duration(rnd.IntN(60_000)) * time.Millisecond)
		}
	})
}

// makeEntry makes an entry as programs do.
func makeEntry(t *testing.T, rnd *rand.Rand, db *keepcache.DB, i int) {
	key := fmt.Sprint("k", i)
	tags := []string{"t1", "t2", "\xff"}[:rnd.IntN(4)]
	if rnd.IntN(2) == 0 {
		tags = nil
	}
	b := db.Bucket([]string{"b", "s"}[rnd.IntN(2)]).WithTags(tags...)
	ttl := []time.Duration{keepcache.NoExpiry, time.Minute, 10 * time.Minute,
		1234567 * time.Microsecond * 100}[rnd.IntN(4)]
	opts := &keepcache.LoadOptions{
		TTL: ttl, StaleFor: []time.Duration{0, time.Minute, time.Hour, keepcache.NoExpiry}[rnd.IntN(4)],
		NegativeTTL: time.Hour,
		RetryAfter:  time.Duration(1+rnd.IntN(600)) * time.Second,
	}
	load := func(err error) {
		var dst any
		_, _ = b.GetOrLoad(context.Background(), key, &dst, func(_ context.Context, l *keepcache.Load) (any, error) {
			l.ETag = []string{"", "e1", "\xfe"}[i%3]
			return map[string]any{"i": i, "f": 1.0}, err
		}, opts)
	}
	switch rnd.IntN(5) {
	case 0:
		require.NoError(t, b.SetBytes(key, []byte{0, byte(i), 0xff}, ttl))
	case 1:
		load(keepcache.ErrNotFound)
	case 2: // stale at once, and its next load has failed
		opts.TTL, opts.StaleFor = time.Millisecond, time.Hour
		load(nil)
		time.Sleep(time.Second)
		load(errors.New("down"))
		synctest.Wait()
	case 3:
		load(nil)
	default:
		require.NoError(t, b.Set(key, []any{i, 2.5, nil, "x"}, ttl))
	}
}

// requireSame ensures that two caches have the same entries.
func requireSame(t *testing.T, a, b *keepcache.DB) {
	t.Helper()
	for _, name := range []string{"b", "s"} {
		list := func(db *keepcache.DB) (all []keepcache.Entry) {
			for e, err := range db.Bucket(name).Scan(&keepcache.ScanOptions{Stale: true}) {
				require.NoError(t, err)
				e.Revision = 0
				all = append(all, e) // with its value as it is stored
			}
			return all
		}
		require.Equal(t, list(a), list(b))
	}
}

// outcomeOf is what a caller gets of a key, in two ways. A load under way is stored nowhere.
func outcomeOf(t *testing.T, b *keepcache.Bucket, key string) []any {
	t.Helper()
	var got, loaded any
	found, err := b.Get(key, &got)
	require.NoError(t, err)
	result, err := b.GetOrLoad(context.Background(), key, &loaded,
		func(_ context.Context, l *keepcache.Load) (any, error) {
			l.NoStore = true
			return "loaded", nil
		}, nil)
	synctest.Wait()
	return []any{found, got, loaded, result.Stale, errors.Is(err, keepcache.ErrNotFound)}
}
