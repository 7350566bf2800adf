package keepcache_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

func init() {
	children["peaks"] = peaks
	children["heaps"] = heaps
}

// The memory that operations take is measured in a process of its own, whose collector runs often: what it adds with
// its usual pace (GOGC) is not the cache's.
func runPeaks(t *testing.T, child string) {
	t.Helper()
	t.Parallel()
	if raced {
		t.Skip("the race detector has memory of its own")
	}
	cmd := childCommand(child, t.TempDir())
	cmd.Env = append(cmd.Env, "GOGC=10")
	out, err := cmd.Output()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
}

// peakOf runs fn and returns the most that was live in the heap while it ran, beyond what was before, in bytes.
func peakOf(fn func()) (peak int64) {
	runtime.GC()
	live := func() int64 {
		s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(s)
		return int64(s[0].Value.Uint64())
	}
	before := live()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			peak = max(peak, live()-before)
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	fn()
	close(done)
	<-ended
	return peak
}

// One large write takes three times its encoded size at most, on its way into memory and into the file, and one large
// read once; a batch takes twice its size beyond what the same sets take one by one.
func TestMemory_Peaks(t *testing.T) { runPeaks(t, "peaks") }

func peaks(t tester, args []string) {
	size := effort.Of(12, 24) << 20
	debug.SetGCPercent(10)
	raw := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	text := string(raw)
	var list []string
	for i := range 1000 {
		list = append(list, text[i*size/1100:][:size/1000])
	}
	n := 0
	fresh := func() *keepcache.DB {
		n++
		return open(t, filepath.Join(args[0], fmt.Sprint(n, ".cache")),
			&keepcache.Options{MemoryBytes: 4 << 20, CompactBytes: -1})
	}
	commit := func(db *keepcache.DB) {
		_, err := db.Sweep(context.Background())
		require.NoError(t, err)
	}
	for _, c := range []struct {
		name string
		do   func(db *keepcache.DB) error
	}{
		{"bytes", func(db *keepcache.DB) error { return db.Bucket("b").SetBytes("k", raw, 0) }},
		{"string", func(db *keepcache.DB) error { return db.Set("k", text, 0) }},
		{"struct", func(db *keepcache.DB) error { return db.Set("k", struct{ List []string }{list}, 0) }},
		{"add", func(db *keepcache.DB) error { _, err := db.Bucket("b").Add("k", list, time.Hour); return err }},
		{"update", func(db *keepcache.DB) error {
			return update(db.Bucket("b"), "k", func(keepcache.Entry, bool) (any, error) { return text, nil })
		}},
		{"load", func(db *keepcache.DB) error {
			_, err := db.Bucket("b").GetOrLoad(context.Background(), "k", new(string),
				func(context.Context, *keepcache.Load) (any, error) { return text, nil }, nil)
			return err
		}},
	} {
		db := fresh()
		peak := peakOf(func() {
			require.NoError(t, c.do(db))
			commit(db)
		})
		fmt.Printf("%s: %.2f times\n", c.name, float64(peak)/float64(size))
		require.Less(t, float64(peak), 3.1*float64(size), c.name)
	}
	db := fresh()
	require.NoError(t, db.Bucket("b").SetBytes("k", raw, 0))
	commit(db)
	peak := peakOf(func() {
		got, found, err := db.Bucket("b").GetBytes("k")
		require.NoError(t, err)
		require.True(t, found)
		require.Len(t, got, size)
		runtime.GC() // while it is there
		runtime.KeepAlive(got)
	})
	fmt.Printf("read: %.2f times\n", float64(peak)/float64(size))
	require.Less(t, float64(peak), 1.1*float64(size))

	values := make(map[string]any)
	entries := effort.Of(15_000, 30_000)
	for i := range entries {
		values[fmt.Sprintf("key%07d", i)] = text[i : i+1000]
	}
	batch := float64(entries * 1010)
	db = fresh()
	single := peakOf(func() {
		for k, v := range values {
			require.NoError(t, db.Set(k, v, 0))
		}
	})
	for _, journal := range []int64{0, 1 << 20} {
		n++
		db = open(t, filepath.Join(args[0], fmt.Sprint(n, ".cache")),
			&keepcache.Options{MemoryBytes: 4 << 20, CompactBytes: -1, JournalBytes: journal})
		together := peakOf(func() {
			require.NoError(t, db.Bucket("b").SetMany(values, 0))
			commit(db)
		})
		fmt.Printf("batch: %.2f times beyond %.2f one by one\n", float64(together-single)/batch, float64(single)/batch)
		// One that no journal takes is one transaction: bbolt has a copy of all of its pages, of which entries of this size
		// fill four fifths.
		most := map[int64]float64{0: 2, 1 << 20: 3}[journal]
		require.Less(t, float64(together-single), most*batch)
	}
}

// The heap stays within MemoryBytes and the margin that its documentation states, at rest and while it is written and
// committed, whatever the size of values.
func TestMemory_Heap(t *testing.T) { runPeaks(t, "heaps") }

func heaps(t tester, args []string) {
	budget := effort.Of(8<<20, 16<<20)
	for _, c := range []struct {
		name       string
		key, value int
		ttl        time.Duration
	}{
		{"1 B", 16, 1, 0}, {"33 KiB", 16, 33 << 10, 0}, {"1 MiB", 16, 1 << 20, 0},
		{"200 B", 20, 200, time.Hour}, {"keys of 1,000 B", 1000, 10, time.Hour},
	} {
		db := open(t, filepath.Join(args[0], c.name), &keepcache.Options{MemoryBytes: int64(budget), MaxBytes: 24 << 20})
		entries := min(2*budget/(c.key+c.value), effort.Of(10_000, 60_000))
		value := make([]byte, c.value)
		rng := rand.New(rand.NewPCG(1, 2))
		pad := strings.Repeat("k", c.key)
		key := func(i int) string { s := fmt.Sprintf("%08x", uint32(i)*2654435761); return s + pad[len(s):] }
		write := func(n int) {
			for range n {
				require.NoError(t, db.Bucket("b").SetBytes(key(rng.IntN(entries)), value, c.ttl))
			}
		}
		peak := peakOf(func() {
			var work sync.WaitGroup
			for w := range 2 {
				own := rand.New(rand.NewPCG(3, uint64(w)))
				work.Go(func() {
					for range min(2*entries, effort.Of(5_000, 30_000)) {
						_, _, err := db.Bucket("b").GetBytes(key(own.IntN(entries)))
						require.NoError(t, err)
					}
				})
			}
			write(entries)
			work.Wait()
			runtime.GC()
		})
		_, err := db.Sweep(context.Background())
		require.NoError(t, err)
		st := db.Stats().Memory
		fmt.Printf("%s: peak %.1f MiB, counted %.1f\n", c.name, float64(peak)/(1<<20),
			float64(st.PinnedBytes+st.CachedBytes)/(1<<20))
		require.LessOrEqual(t, peak, int64(budget+budget/4+16<<20), c.name)
		require.NoError(t, db.Close())
	}
}
