package keepcache_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// drain returns what is in the buffer of a watch, as "kind bucket/key".
func drain(w *keepcache.Watch) (seen []string) {
	for {
		select {
		case e, open := <-w.Events():
			if !open {
				return seen
			}
			seen = append(seen, fmt.Sprintf("%s %s/%s", e.Kind, e.Bucket, e.Key))
		default:
			return seen
		}
	}
}

// TestWatch sees each kind of event as it happens, by bucket, prefix and kind, and nothing once it has ended.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := open(t, newPath(t), &keepcache.Options{SweepInterval: time.Second, CommitInterval: 5 * time.Second})
		all := db.Watch(nil)
		some := db.Watch(&keepcache.WatchOptions{Kinds: keepcache.EventSet | keepcache.EventExpire, Bucket: "b", Prefix: "x"})
		b := db.Bucket("b")
		require.NoError(t, b.Set("x1", 1, time.Minute))
		require.NoError(t, b.Set("y", 1, 0))
		require.NoError(t, db.Set("x2", 1, 0))
		var v any
		_, err := db.Get("x2", &v)
		require.NoError(t, err)
		_, err = db.Get("none", &v)
		require.NoError(t, err)
		_, err = db.Delete("x2")
		require.NoError(t, err)
		committed(t, db)
		time.Sleep(2 * time.Minute) // within the bubble: the sweeper comes by
		synctest.Wait()
		require.Equal(t, []string{
			"set b/x1", "set b/y", "set default/x2", "hit default/x2", "miss default/none", "delete default/x2", "expire b/x1",
		}, drain(all))
		require.Equal(t, []string{"set b/x1", "expire b/x1"}, drain(some))

		// What expires before it comes into the file is told of as well.
		require.NoError(t, b.Set("x3", 1, time.Millisecond))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{"set b/x3", "expire b/x3"}, drain(some))

		all.Close()
		all.Close()
		drain(all)
		require.NoError(t, b.Set("x4", 1, 0))
		require.Empty(t, drain(all))
		require.Equal(t, []string{"set b/x4"}, drain(some))
	})
}

// The channel of a watch is closed by Watch.Close and by the end of the cache; what the buffer has is still received.
func TestWatch_Ended(t *testing.T) {
	db, err := keepcache.Open(newPath(t), nil)
	require.NoError(t, err)
	closed, left := db.Watch(nil), db.Watch(nil)
	require.NoError(t, db.Set("a", 1, 0))
	closed.Close()
	require.NoError(t, db.Set("b", 1, 0))
	require.NoError(t, db.Close())
	left.Close()
	for w, want := range map[*keepcache.Watch][]string{closed: {"a"}, left: {"a", "b"}, db.Watch(nil): nil} {
		var keys []string
		for e := range w.Events() {
			keys = append(keys, e.Key)
		}
		require.Equal(t, want, keys)
		require.Zero(t, w.Dropped())
	}
}

// Watches begin and end while events happen and the cache is closed.
func TestWatch_Race(t *testing.T) {
	for range 20 {
		db, err := keepcache.Open(newPath(t), nil)
		require.NoError(t, err)
		var work sync.WaitGroup
		for i := range 4 {
			work.Go(func() {
				for n := 0; db.Set(fmt.Sprint(i, n), n, 0) == nil; n++ {
				}
			})
			work.Go(func() {
				for range 50 {
					w := db.Watch(&keepcache.WatchOptions{Buffer: 8})
					<-w.Events()
					w.Close()
				}
			})
		}
		work.Go(func() {
			w := db.Watch(nil)
			for range w.Events() {
			}
		})
		time.Sleep(time.Millisecond)
		require.NoError(t, db.Close())
		work.Wait()
	}
}

// TestWatch_Full drops and counts what nobody reads, and blocks nobody.
func TestWatch_Full(t *testing.T) {
	db := newDB(t, nil)
	w := db.Watch(&keepcache.WatchOptions{Buffer: 3})
	defer w.Close()
	for i := range 10 {
		require.NoError(t, db.Set(fmt.Sprint(i), i, 0))
	}
	require.Equal(t, uint64(7), w.Dropped())
	require.Equal(t, []string{"set default/0", "set default/1", "set default/2"}, drain(w))
	require.NoError(t, db.Set("a", 1, 0))
	require.Equal(t, []string{"set default/a"}, drain(w))
}

// TestWatch_Beside leaves Options.Events what it asked for, and no more.
func TestWatch_Beside(t *testing.T) {
	var told []string
	db := newDB(t, &keepcache.Options{Events: keepcache.Events{
		Kinds:  keepcache.EventDelete,
		Handle: func(e keepcache.Event) { told = append(told, e.Kind.String()) },
	}})
	w := db.Watch(nil)
	require.NoError(t, db.Set("a", 1, 0))
	_, err := db.Delete("a")
	require.NoError(t, err)
	w.Close()
	_, err = db.Delete("b")
	require.NoError(t, err)
	require.Equal(t, []string{"delete"}, told)
	require.Equal(t, []string{"set default/a", "delete default/a"}, drain(w))
}

// TestOnClose calls what is registered once, while the cache can still be used, and has Close wait for it.
func TestOnClose(t *testing.T) {
	db, err := keepcache.Open(newPath(t), nil)
	require.NoError(t, err)
	called := 0
	db.OnClose(func() {
		called++
		if err := db.Set("last", 1, 0); err != nil {
			called = -1
		}
	})
	forget := db.OnClose(func() { called += 100 })
	require.True(t, forget())
	require.False(t, forget())
	require.NoError(t, db.Close())
	require.NoError(t, db.Close())
	require.Equal(t, 1, called)
	late := false
	require.False(t, db.OnClose(func() { late = true })())
	require.True(t, late, "it has been called when OnClose returns")
}

// TestLatencies samples reads and writes into sound histograms.
func TestLatencies(t *testing.T) {
	db := newDB(t, nil)
	var v any
	for i := range 128 * 128 {
		require.NoError(t, db.Set("a", i, 0))
		_, err := db.Get("a", &v)
		require.NoError(t, err)
	}
	s := db.Stats()
	for _, l := range []keepcache.Latencies{s.Reads, s.Writes} {
		require.InDelta(t, 128, l.Count(), 72) // six times its standard deviation
		require.Positive(t, l.Time)
		require.Positive(t, l.Quantile(0.5))
		require.LessOrEqual(t, l.Quantile(0.5), l.Quantile(1))
		require.Zero(t, l.Sub(l).Count())
	}
	require.Zero(t, keepcache.Latencies{}.Quantile(0.5))
	for i := range len(s.Reads.Counts) - 1 {
		var l keepcache.Latencies
		l.Counts[i] = 3
		require.Equal(t, keepcache.LatencyBound(i), l.Quantile(0.99))
	}
	require.Equal(t, keepcache.NoExpiry, keepcache.LatencyBound(len(s.Reads.Counts)-1))
}

// BenchmarkWatch is a hit in memory: that nobody watches, that somebody watches who is behind, and other keys.
func BenchmarkWatch(b *testing.B) {
	for name, o := range map[string]*keepcache.WatchOptions{
		"nobody": nil, "behind": {Buffer: 1}, "other keys": {Prefix: "x"},
	} {
		b.Run(name, func(b *testing.B) {
			db := newDB(b, nil)
			bucket := db.Bucket("b")
			require.NoError(b, bucket.SetBytes("key", make([]byte, 200), 0))
			if o != nil {
				defer db.Watch(o).Close()
			}
			for b.Loop() {
				_, _, _ = bucket.GetBytes("key")
			}
		})
	}
}
