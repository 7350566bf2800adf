package journal_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/journal"
)

// benchPath is on a disk: the usual place for temporary files may be in memory. KEEPCACHE_BENCH_DIR names another.
func benchPath(b *testing.B) string {
	dir := os.Getenv("KEEPCACHE_BENCH_DIR")
	if dir == "" {
		dir = "."
	}
	dir, err := os.MkdirTemp(dir, "bench-")
	require.NoError(b, err)
	b.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "j")
}

// An append of 256 bytes, with a release each 8 MiB, as a committer would.
func BenchmarkAppend(b *testing.B) {
	for _, noMap := range []bool{false, true} {
		for _, n := range []int{16, 256, 4096} {
			b.Run(fmt.Sprintf("pwrite=%v/bytes=%d", noMap, n), func(b *testing.B) {
				j := newJournal(b, benchPath(b), journal.Options{NoMap: noMap})
				data := content(1, n)
				every := uint64(8<<20/(n+36)) + 1
				seq := uint64(0)
				step := func() {
					seq++
					if seq%every == 0 {
						j.Release(seq - 1)
					}
					if err := j.Append(seq, seq, data); err != nil {
						b.Fatal(err)
					}
				}
				for range 2 * every { // until segments are used again
					step()
				}
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					step()
				}
			})
		}
	}
}

// An append of 256 bytes while another goroutine flushes each 20 ms and releases what was on disk the time before.
func BenchmarkAppendFlushed(b *testing.B) {
	for _, noMap := range []bool{false, true} {
		b.Run(fmt.Sprintf("pwrite=%v", noMap), func(b *testing.B) {
			j := newJournal(b, benchPath(b), journal.Options{NoMap: noMap})
			data := content(1, 256)
			stop := make(chan struct{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				for mark := uint64(0); ; {
					select {
					case <-stop:
						return
					case <-time.After(20 * time.Millisecond):
					}
					j.Release(mark)
					mark = j.Stats().Last
					if err := j.Flush(mark); err != nil {
						b.Error(err)
						return
					}
				}
			}()
			seq, full := uint64(0), 0
			b.ReportAllocs()
			for b.Loop() {
				for err := j.Append(seq+1, seq+1, data); err != nil; err = j.Append(seq+1, seq+1, data) {
					if !errors.Is(err, journal.ErrFull) {
						b.Fatal(err)
					}
					full++
					b.StopTimer()
					time.Sleep(time.Millisecond)
					b.StartTimer()
				}
				seq++
			}
			close(stop)
			<-done
			b.ReportMetric(float64(full), "full")
		})
	}
}

// A durable write by 1 and 64 goroutines, beside the disk's own limit: the same bytes by pwrite and fdatasync on a file
// that has its blocks, by one goroutine.
func BenchmarkDurable(b *testing.B) {
	const n = 256
	data := content(1, n)
	b.Run("disk", func(b *testing.B) {
		f, err := os.OpenFile(benchPath(b), os.O_RDWR|os.O_CREATE, 0o600)
		require.NoError(b, err)
		defer f.Close()
		const size = 1 << 20
		for off := int64(0); off < size; off += 4096 {
			_, err := f.WriteAt(make([]byte, 4096), off)
			require.NoError(b, err)
		}
		require.NoError(b, f.Sync())
		off := int64(0)
		for b.Loop() {
			if _, err := f.WriteAt(data, off); err != nil {
				b.Fatal(err)
			}
			if err := datasync(f); err != nil {
				b.Fatal(err)
			}
			off = (off + n) % size
		}
	})
	for _, noMap := range []bool{false, true} {
		for _, workers := range []int{1, 64} {
			b.Run(fmt.Sprintf("journal/pwrite=%v/writers=%d", noMap, workers), func(b *testing.B) {
				j := newJournal(b, benchPath(b), journal.Options{NoMap: noMap})
				order := make(chan struct{}, 1)
				var seq uint64
				var total atomic.Uint64
				b.SetParallelism((workers + 1) / 2)
				if workers == 1 {
					b.SetParallelism(1)
				}
				write := func() {
					order <- struct{}{}
					seq++
					mine := seq
					err := j.Append(mine, mine, data)
					if err == nil && mine%20000 == 0 {
						j.Release(mine - 10000)
					}
					<-order
					if err == nil {
						err = j.Flush(mine)
					}
					if err != nil {
						b.Error(err)
					}
					total.Add(1)
				}
				for range 2000 {
					if workers == 1 {
						write()
					}
				}
				start := j.Stats()
				b.ResetTimer()
				if workers == 1 {
					for range b.N {
						write()
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							write()
						}
					})
				}
				s := j.Stats()
				flushes := s.Flushes - start.Flushes
				b.ReportMetric(float64((s.FlushTime-start.FlushTime).Microseconds())/float64(flushes), "us/flush")
				b.ReportMetric(float64(b.N)/float64(flushes), "writes/flush")
			})
		}
	}
}

// A replay of 64 MiB.
func BenchmarkReplay(b *testing.B) {
	path := benchPath(b)
	j := newJournal(b, path, journal.Options{})
	data := content(1, 256)
	seq := uint64(0)
	for {
		if err := j.Append(seq+1, seq+1, data); err != nil {
			require.ErrorIs(b, err, journal.ErrFull)
			break
		}
		seq++
	}
	b.SetBytes(j.Stats().UsedBytes)
	b.ReportAllocs()
	for b.Loop() {
		r, err := journal.Replay(path, identity, 0, func(uint64, uint64, []byte) error { return nil })
		if err != nil || r.Applied != int(seq) || r.Damaged() {
			b.Fatalf("%v %+v", err, r)
		}
	}
}
