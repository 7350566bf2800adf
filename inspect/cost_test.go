package inspect_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
	"github.com/keepcache/keepcache/internal/wire"
)

// TestCost_Million lists the first keys of a million by a prefix in less than 50 ms, and looks for a pattern over all
// of them in bounded memory. It takes a minute, so it is asked for by KEEPCACHE_LONG.
func TestCost_Million(t *testing.T) {
	if os.Getenv("KEEPCACHE_LONG") == "" {
		t.Skip("KEEPCACHE_LONG is not set")
	}
	db := open(t, &keepcache.Options{MaxBytes: -1})
	b := db.Bucket("big")
	const entries = 1_000_000
	for i := range entries {
		key, err := fmt.Sprintf("user:%07d:profile", i), error(nil)
		for range 20 { // a busy disk may refuse a write for want of room
			if err = b.Set(key, make([]byte, 100), time.Duration(1+i%5000)*time.Hour); err == nil {
				break
			}
		}
		require.NoError(t, err)
	}
	c, base := serve(t, db, nil)
	ctx := t.Context()
	for range 2 { // with much in memory alone, and then with all in the file
		var all []time.Duration
		for i := range 30 {
			begun := time.Now()
			page, err := c.Keys(ctx, wire.Query{Bucket: "big", Prefix: fmt.Sprintf("user:0%02d", i*3)})
			all = append(all, time.Since(begun))
			require.NoError(t, err)
			require.Len(t, page.Entries, 100)
		}
		begun := time.Now()
		status, _, _ := fetch(t, base+"keys?bucket=big&prefix=user:05")
		require.Equal(t, 200, status)
		t.Logf("first 100 by prefix: %v, as a page %v", all, time.Since(begun))
		slices.Sort(all) // the middle one: others may need the processors too
		require.Less(t, all[len(all)/2], 50*time.Millisecond)
		_, err := db.Sweep(ctx)
		require.NoError(t, err)
	}
	for _, at := range []string{"", "keys?bucket=big", "entry?bucket=big&key=user:0500000:profile"} {
		begun := time.Now()
		status, text, _ := fetch(t, base+at)
		t.Logf("page %q: %v, %d bytes", at, time.Since(begun), len(text))
		require.Equal(t, 200, status)
	}
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	begun, found, peak := time.Now(), 0, uint64(0)
	for _, err := range c.All(ctx, wire.Query{Bucket: "big", Glob: "*99:profile", Limit: 1000}, nil) {
		require.NoError(t, err)
		if found++; found%500 == 0 {
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
		}
	}
	t.Logf("pattern over all: %d found in %v, heap %d MiB before and %d MiB at most", found, time.Since(begun),
		before.HeapAlloc>>20, peak>>20)
	require.Equal(t, entries/100, found)
	require.Less(t, peak, before.HeapAlloc+64<<20)
}

// BenchmarkLooking measures what looking costs the program that is looked at. The load is the same for each: nine reads
// and a write, alone; watched by somebody who is behind, as everybody is who watches a busy cache; and with a page that
// is renewed every two seconds and a stream of all events, whose own work is in the measurement too.
func BenchmarkLooking(b *testing.B) {
	for _, how := range []string{"alone", "watched", "page and stream"} {
		b.Run(how, func(b *testing.B) {
			db := open(b, nil)
			const keys = 100_000
			value := make([]byte, 200)
			names := make([]string, keys)
			for i := range names {
				names[i] = fmt.Sprintf("key:%06d", i)
				require.NoError(b, db.Set(names[i], value, time.Hour))
			}
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			switch how {
			case "watched":
				defer db.Watch(&keepcache.WatchOptions{Buffer: 1}).Close()
			case "page and stream":
				srv := httptest.NewServer(inspect.Handler(db, nil))
				defer srv.Close()
				defer stop()
				look(ctx, srv.URL+"/")
			}
			def := db.Bucket(keepcache.DefaultBucket)
			begun := cpuTime()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					key := names[i*7919%keys]
					if i%10 == 0 {
						_ = def.SetBytes(key, value, time.Hour)
					} else {
						_, _, _ = def.GetBytes(key)
					}
				}
			})
			b.StopTimer()
			b.ReportMetric(float64(cpuTime()-begun)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkLooking_Second measures what a page and a stream take by themselves, whatever the load: an operation is a
// second of looking at a cache of 100,000 entries, with 2,000 events in it of which the stream sends 1,000.
func BenchmarkLooking_Second(b *testing.B) {
	db := open(b, nil)
	for i := range 100_000 {
		require.NoError(b, db.Set(fmt.Sprintf("key:%06d", i), i, time.Hour))
	}
	_, err := db.Sweep(b.Context())
	require.NoError(b, err)
	srv := httptest.NewServer(inspect.Handler(db, nil))
	defer srv.Close()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	look(ctx, srv.URL+"/")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	begun := cpuTime()
	var v any
	for range b.N * 100 {
		<-tick.C
		for i := range 20 {
			_, _ = db.Get(fmt.Sprintf("key:%06d", i), &v)
		}
	}
	b.ReportMetric(float64(cpuTime()-begun)/float64(b.N)/1e6, "cpu-ms/s")
	stop()
}

// look is a page on auto-refresh and a stream of all events. What it costs itself is in the measurement too.
func look(ctx context.Context, base string) {
	get := func(path string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
		if err != nil {
			return nil, err
		}
		return http.DefaultClient.Do(r)
	}
	go func() {
		for ctx.Err() == nil {
			if resp, err := get(""); err == nil {
				drain(resp)
			}
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Second):
			}
		}
	}()
	go func() {
		if resp, err := get("v1/events"); err == nil {
			drain(resp)
		}
	}()
}

func drain(resp *http.Response) {
	defer resp.Body.Close()
	buf := make([]byte, 32<<10)
	for {
		if _, err := resp.Body.Read(buf); err != nil {
			return
		}
	}
}
