package keepcache_test

import (
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// Overwritten many times with values of all sizes, and then filled and expired again and again, with a slow
// reader that iterates all the while, the file stays within its bounds and ends small.
func TestChurn(t *testing.T) {
	skipOnWindows(t, "a file cannot be replaced while it is open")
	keys, times, budget := 2000, 20, int64(8<<20)
	if long {
		keys, budget = 100_000, 400<<20
	}
	path := newPath(t)
	db := open(t, path, &keepcache.Options{MaxBytes: budget, MemoryBytes: 16 << 20, JournalBytes: 16 << 20, SyncInterval: time.Second, SweepInterval: 50 * time.Millisecond})
	b := db.Bucket("b")
	var most, over atomic.Int64
	var stop atomic.Bool
	var work sync.WaitGroup
	work.Go(func() { // a slow reader
		for !stop.Load() {
			n := 0
			for _, err := range b.All() {
				if err != nil {
					t.Error(err)
				}
				if n++; n%100 == 0 {
					time.Sleep(time.Millisecond)
				}
				if stop.Load() {
					break
				}
			}
		}
	})
	work.Go(func() {
		for !stop.Load() {
			size := fileSize(t, path)
			most.Store(max(most.Load(), size))
			if size > 3*budget+16<<20 {
				over.Add(1)
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	text, r := strings.Repeat("0123456789", 1025), rand.New(rand.NewPCG(1, 1))
	for range times {
		for _, i := range r.Perm(keys) {
			mustSet(t, b, numbered(i), text[:10+r.IntN(10*1024-10)], time.Hour)
		}
	}
	for range 10 {
		for i := range keys / 2 {
			mustSet(t, b, "brief"+numbered(i), text[:10+r.IntN(10*1024-10)], 100*time.Millisecond)
		}
		time.Sleep(150 * time.Millisecond)
	}
	stop.Store(true)
	work.Wait()
	require.NoError(t, db.Compact(t.Context()))
	s := db.Stats()
	t.Logf("budget %d MiB, logical %d KiB; the file had %d KiB at most and ends with %d KiB; %d compactions, %+v", budget>>20, s.Bytes>>10,
		most.Load()>>10, fileSize(t, path)>>10, s.Compact.Compactions, s.Evictions)
	require.LessOrEqual(t, s.Bytes, budget)
	require.Zero(t, over.Load(), "the file passed three times the budget and 16 MiB")
	require.LessOrEqual(t, float64(fileSize(t, path)), 1.5*float64(s.Bytes)+float64(4<<20))
	require.LessOrEqual(t, float64(s.FileBytes), 1.5*float64(s.Bytes)+float64(4<<20))
}
