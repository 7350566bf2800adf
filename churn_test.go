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
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// readSlowly iterates over a bucket again and again, slowly, until it is told to stop.
func readSlowly(t *testing.T, b *keepcache.Bucket, stop *atomic.Bool) {
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
}

// Overwritten many times with values of all sizes, and then filled and expired again and again, with a slow
// reader that iterates all the while, the file stays within its bounds and ends small.
func TestChurn(t *testing.T) {
	skipOnWindows(t, "a file cannot be replaced while it is open")
	keys, times, budget := 2000, effort.Of(6, 20), int64(8<<20)
	if long {
		keys, budget = 100_000, 400<<20
	}
	path := newPath(t)
	db := open(t, path, &keepcache.Options{MaxBytes: budget, MemoryBytes: 16 << 20, JournalBytes: 16 << 20,
		SyncInterval: time.Second, SweepInterval: 50 * time.Millisecond})
	b := db.Bucket("b")
	var most, over atomic.Int64
	var stop atomic.Bool
	var work sync.WaitGroup
	work.Go(func() { readSlowly(t, b, &stop) })
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
	for range effort.Of(4, 10) {
		for i := range keys / 2 {
			mustSet(t, b, "brief"+numbered(i), text[:10+r.IntN(10*1024-10)], 100*time.Millisecond)
		}
		time.Sleep(150 * time.Millisecond)
	}
	stop.Store(true)
	work.Wait()
	require.NoError(t, db.Compact(t.Context()))
	s := db.Stats()
	t.Logf("budget %d MiB, logical %d KiB; the file had %d KiB at most and ends with %d KiB; %d compactions, %+v",
		budget>>20, s.Bytes>>10,
		most.Load()>>10, fileSize(t, path)>>10, s.Compact.Compactions, s.Evictions)
	require.LessOrEqual(t, s.Cost, budget)
	require.Zero(t, over.Load(), "the file passed three times the budget and 16 MiB")
	require.LessOrEqual(t, float64(fileSize(t, path)), 1.5*float64(s.Bytes)+float64(4<<20))
	require.LessOrEqual(t, float64(s.FileBytes), 1.5*float64(s.Bytes)+float64(4<<20))
}

// Small entries, of which the file has several times the bytes, stay within the same bound, under writers that never
// pause and evict all the while.
func TestChurn_Small(t *testing.T) {
	skipOnWindows(t, "a file cannot be replaced while it is open")
	o := keepcache.Options{MaxBytes: 2 << 20, CommitInterval: 10 * time.Millisecond, CommitBytes: 512 << 10}
	if long {
		o = keepcache.Options{MaxBytes: 24 << 20}
	}
	o.SyncInterval = time.Second
	budget := o.MaxBytes
	for _, size := range []int{10, 200} {
		path := newPath(t)
		db := open(t, path, &o)
		b, value := db.Bucket("b"), make([]byte, size)
		keys := 3 * int(budget) / (size + 114)
		total, began := int64(effort.Of(1, 2)*keys), time.Now()
		var stop atomic.Bool
		var writes atomic.Int64
		var work sync.WaitGroup
		for w := range 2 {
			work.Go(func() {
				r := rand.New(rand.NewPCG(3, uint64(w)))
				for !stop.Load() {
					if err := b.SetBytes(numbered(r.IntN(keys)), value, time.Hour); err != nil {
						t.Error(err)
						return
					}
					if writes.Add(1) > total {
						return
					}
				}
			})
		}
		work.Go(func() { readSlowly(t, b, &stop) })
		most := int64(0)
		for ; writes.Load() < total && !t.Failed(); time.Sleep(time.Millisecond) {
			most = max(most, fileSize(t, path))
		}
		stop.Store(true)
		work.Wait()
		s := db.Stats()
		committed(t, db)
		t.Logf("%d bytes: budget %d KiB, %d thousand writes a second; %d entries of %d KiB cost %d KiB, the file had %d KiB at most (3 x budget + 16 MiB is %d KiB); %d compactions",
			size, budget>>10, writes.Load()/max(time.Since(began).Milliseconds(), 1), s.Entries, s.Bytes>>10, s.Cost>>10,
			most>>10, (3*budget+16<<20)>>10, s.Compact.Compactions)
		require.LessOrEqual(t, most, 3*budget+16<<20)
		require.NoError(t, db.Compact(t.Context()))
		s = db.Stats()
		require.LessOrEqual(t, s.Cost, budget)
		require.LessOrEqual(t, float64(fileSize(t, path)), 1.5*float64(s.Cost)+float64(4<<20))
		sound(t, db)
		require.NoError(t, db.Close())
	}
}
