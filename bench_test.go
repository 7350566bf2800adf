package keepcache_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
)

// benchValue is 200 bytes.
var benchValue = bytes.Repeat([]byte("0123456789"), 20)

const benchKeys = 10_000

var benchKey = func() (keys [benchKeys]string) {
	for i := range keys {
		keys[i] = numbered(i)
	}
	return keys
}()

// benchDB opens a cache with benchKeys entries of an hour, without the proof at the end.
func benchDB(b *testing.B) *keepcache.Bucket {
	b.Helper()
	db := openDamaged(b, newPath(b), nil)
	bucket := db.Bucket("b")
	fill(b, bucket, benchKeys, time.Hour)
	return bucket
}

func BenchmarkGet(b *testing.B) {
	bucket := benchDB(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		var n int
		if found, err := bucket.Get(benchKey[i%benchKeys], &n); err != nil || !found {
			b.Fatal(found, err)
		}
	}
}

func BenchmarkGet_Parallel(b *testing.B) {
	bucket := benchDB(b)
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var n int
		for i := int(next.Add(7919)); pb.Next(); i++ {
			if found, err := bucket.Get(benchKey[i%benchKeys], &n); err != nil || !found {
				b.Error(found, err)
				return
			}
		}
	})
}

// BenchmarkMixed measures 95 reads and 5 writes of 100, of 200 bytes.
func BenchmarkMixed(b *testing.B) {
	bucket := openDamaged(b, newPath(b), nil).Bucket("b")
	for _, key := range benchKey {
		require.NoError(b, bucket.SetBytes(key, benchValue, time.Hour))
	}
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := int(next.Add(7919)); pb.Next(); i++ {
			key, err := benchKey[i*31%benchKeys], error(nil)
			if i%20 == 0 {
				err = bucket.SetBytes(key, benchValue, time.Hour)
			} else {
				_, _, err = bucket.GetBytes(key)
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkSetMany measures batches of 1,000 entries of 200 bytes; an operation is one entry.
func BenchmarkSetMany(b *testing.B) {
	const batch = 1000
	bucket := openDamaged(b, newPath(b), nil).Bucket("b")
	values := make(map[string]any, batch)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += batch {
		clear(values)
		for i := range min(batch, b.N-done) {
			values[benchKey[(done+i)%benchKeys]] = benchValue
		}
		if err := bucket.SetMany(values, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
}

// Memory is so small that nearly every read goes to the file.
func BenchmarkGet_File(b *testing.B) {
	db := openDamaged(b, newPath(b), &keepcache.Options{MemoryBytes: 64 << 10, SweepInterval: -1, CompactBytes: -1})
	bucket := db.Bucket("b")
	values := make(map[string]any, benchKeys)
	for _, key := range benchKey {
		values[key] = benchValue
	}
	if err := bucket.SetMany(values, time.Hour); err != nil {
		b.Fatal(err)
	}
	committed(b, db)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, found, err := bucket.GetBytes(benchKey[i*7919%benchKeys]); err != nil || !found {
			b.Fatal(found, err)
		}
	}
}

func BenchmarkGet_Absent(b *testing.B) {
	bucket := benchDB(b)
	b.ReportAllocs()
	var absent [benchKeys]string // many, as how far the table looks for a key is up to its hash
	for i := range absent {
		absent[i] = "absent" + benchKey[i]
	}
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		var n int
		if found, err := bucket.Get(absent[i%benchKeys], &n); err != nil || found {
			b.Fatal(found, err)
		}
	}
}

func BenchmarkExists(b *testing.B) {
	bucket := benchDB(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if found, err := bucket.Exists(benchKey[i%benchKeys]); err != nil || !found {
			b.Fatal(found, err)
		}
	}
}

func BenchmarkDelete(b *testing.B) {
	bucket := openDamaged(b, newPath(b), nil).Bucket("b")
	fill(b, bucket, b.N, time.Hour)
	b.ResetTimer()
	for i := range b.N {
		if found, err := bucket.Delete(numbered(i)); err != nil || !found {
			b.Fatal(found, err)
		}
	}
}

// BenchmarkSet measures sets of 200 bytes with a lifetime, by 1, 16 and 64 writers, durable (always) and not,
// beside plain bbolt with its default options, which keeps the same two buckets by one durable db.Update a set.
func BenchmarkSet(b *testing.B) {
	for _, writers := range []int{1, 16, 64} {
		for name, mode := range map[string]keepcache.SyncMode{"always": keepcache.SyncAlways,
			"periodic": keepcache.SyncPeriodic} {
			b.Run(fmt.Sprintf("keepcache-%s/writers=%d", name, writers), func(b *testing.B) {
				bucket := openDamaged(b, newPath(b), &keepcache.Options{Sync: mode}).Bucket("b")
				benchWriters(b, writers, func(key string) error { return bucket.SetBytes(key, benchValue, time.Hour) })
			})
		}
		b.Run(fmt.Sprintf("bbolt/writers=%d", writers), func(b *testing.B) {
			db := benchBolt(b)
			benchWriters(b, writers, func(key string) error { return boltSet(db, key, benchValue, time.Hour) })
		})
	}
}

// benchWriters calls set b.N times from as many goroutines as writers says, over benchKeys keys.
func benchWriters(b *testing.B, writers int, set func(key string) error) {
	b.Helper()
	var next atomic.Int64
	var group sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range writers {
		group.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := set(benchKey[int(i*7919)%benchKeys]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sets/s")
}

func benchBolt(b *testing.B) *bolt.DB {
	b.Helper()
	db, err := bolt.Open(filepath.Join(b.TempDir(), "plain.db"), 0o600, nil)
	require.NoError(b, err)
	b.Cleanup(func() { _ = db.Close() })
	require.NoError(b, db.Update(func(tx *bolt.Tx) error {
		if _, err := tx.CreateBucket([]byte("entries")); err != nil {
			return err
		}
		_, err := tx.CreateBucket([]byte("expiry"))
		return err
	}))
	return db
}

// boltSet is what a careful user of plain bbolt writes: the entry with its deadline, and the row by which a
// sweeper finds it.
func boltSet(db *bolt.DB, key string, value []byte, ttl time.Duration) error {
	return db.Update(func(tx *bolt.Tx) error {
		entries, expiry := tx.Bucket([]byte("entries")), tx.Bucket([]byte("expiry"))
		if old := entries.Get([]byte(key)); old != nil {
			if err := expiry.Delete(append(slices.Clone(old[:8]), key...)); err != nil {
				return err
			}
		}
		deadline := binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(ttl).UnixMilli()))
		if err := expiry.Put(append(slices.Clone(deadline), key...), nil); err != nil {
			return err
		}
		return entries.Put([]byte(key), append(deadline, value...))
	})
}

// BenchmarkSweep measures how long a sweep of 100,000 due entries takes, and what it does to a reader: the
// 99th percentile of Get while it runs, beside that at rest.
func BenchmarkSweep(b *testing.B) {
	const due = 100_000
	for b.Loop() {
		b.StopTimer()
		db := openDamaged(b, newPath(b), &keepcache.Options{SweepInterval: -1})
		read, brief := db.Bucket("read"), db.Bucket("brief")
		fill(b, read, benchKeys, time.Hour)
		until := time.Now().Add(3 * time.Second)
		fill(b, brief, due, time.Until(until))
		committed(b, db)
		time.Sleep(time.Until(until) + 10*time.Millisecond)

		var stop atomic.Bool
		reader := func() time.Duration {
			var took []time.Duration
			for i := 0; !stop.Load(); i++ {
				start := time.Now()
				var n int
				if found, err := read.Get(benchKey[i*7919%benchKeys], &n); err != nil || !found {
					b.Error(found, err)
					break
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			return took[len(took)*99/100]
		}
		time.AfterFunc(time.Second, func() { stop.Store(true) })
		rest := reader()

		stop.Store(false)
		swept := make(chan time.Duration)
		b.StartTimer()
		go func() {
			start := time.Now()
			removed, err := db.Sweep(b.Context())
			if err != nil || removed != due {
				b.Errorf("removed %d: %v", removed, err)
			}
			stop.Store(true)
			swept <- time.Since(start)
		}()
		busy := reader()
		took := <-swept
		b.ReportMetric(float64(rest.Nanoseconds()), "rest-p99-ns")
		b.ReportMetric(float64(busy.Nanoseconds()), "sweep-p99-ns")
		b.ReportMetric(float64(busy)/float64(rest), "p99-ratio")
		b.ReportMetric(float64(took.Milliseconds()), "sweep-ms")
		require.NoError(b, db.Close())
	}
}

// BenchmarkLoad_Hit measures GetOrLoad of a fresh value in memory beside Get through the same view: 1.3 times
// as much at most, and no allocation more.
func BenchmarkLoad_Hit(b *testing.B) {
	view := keepcache.Of[int](benchDB(b))
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, found, err := view.Get(benchKey[i%benchKeys]); err != nil || !found {
				b.Fatal(found, err)
			}
		}
	})
	opts := &keepcache.LoadOptions{TTL: time.Hour, StaleFor: time.Hour}
	ctx := context.Background()
	load := func(context.Context, *keepcache.Load) (int, error) { return 0, nil }
	b.Run("load", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := view.GetOrLoad(ctx, benchKey[i%benchKeys], load, opts); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkScan walks over 10,000 entries of 200 bytes in the file, forwards and backwards, with values and without.
func BenchmarkScan(b *testing.B) {
	const entries = 10_000
	db := newDB(b, nil)
	many := make(map[string]any, entries)
	for i := range entries {
		many[numbered(i)] = make([]byte, 200)
	}
	bucket := db.Bucket("b")
	require.NoError(b, bucket.SetMany(many, time.Hour))
	committed(b, db)
	for name, o := range map[string]keepcache.ScanOptions{
		"forward": {}, "reverse": {Reverse: true}, "keys": {KeysOnly: true},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				for _, err := range bucket.Scan(&o) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
				if n != entries {
					b.Fatal(n)
				}
			}
		})
	}
}
