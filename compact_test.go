package keepcache_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// kibibytes opens a cache with n entries of about a kibibyte, three buckets, and lifetimes.
func kibibytes(t testing.TB, path string, n int, o *keepcache.Options) *keepcache.DB {
	t.Helper()
	db := open(t, path, o)
	value := strings.Repeat("v", 1000)
	for i := range n {
		ttl := []time.Duration{0, time.Hour, 2 * time.Hour}[i%3]
		mustSet(t, db.Bucket(fmt.Sprint("b", i%3)), numbered(i), value, ttl)
	}
	committed(t, db)
	return db
}

// After a compaction the file is small, has everything, is still locked, and is written to and read as before.
func TestCompact(t *testing.T) {
	skipOnWindows(t, "a file cannot be replaced while it is open")
	path := newPath(t)
	var told []keepcache.Event
	db := kibibytes(t, path, 9000, &keepcache.Options{CompactBytes: -1, Events: keepcache.Events{
		Kinds: keepcache.EventCompact | keepcache.EventProgress, Handle: func(e keepcache.Event) { told = append(told, e) },
	}})
	for i := range 9000 {
		if i%10 > 0 {
			_, err := db.Bucket(fmt.Sprint("b", i%3)).Delete(numbered(i))
			require.NoError(t, err)
		}
	}
	mustSet(t, db.Bucket("dropped"), "k", 1, 0)
	committed(t, db)
	_, err := db.DropBucket("dropped")
	require.NoError(t, err)
	before := db.Stats()
	require.Greater(t, before.FreeBytes, int64(5<<20))
	require.Greater(t, fileSize(t, path), int64(9<<20))
	mustSet(t, db.Bucket("b0"), "pinned", "before", 0)

	require.NoError(t, db.Compact(t.Context()))
	after := db.Stats()
	require.Less(t, after.FileBytes, int64(1600<<10))
	require.Less(t, fileSize(t, path), int64(6<<20))
	require.Equal(t, before.Bytes-before.Buckets["dropped"].Bytes,
		after.Bytes-after.Buckets["b0"].Bytes+before.Buckets["b0"].Bytes)
	require.Equal(t, uint64(1), after.Compact.Compactions)
	require.Positive(t, after.Compact.Took)
	require.InDelta(t, before.FileBytes-after.FileBytes, after.Compact.Gained, 1<<20)
	require.Equal(t, keepcache.EventCompact, told[len(told)-1].Kind)
	require.Equal(t, keepcache.EventProgress, told[0].Kind)
	require.Equal(t, told[len(told)-2].Total, told[len(told)-2].Done)

	value := strings.Repeat("v", 1000)
	check := func(db *keepcache.DB) {
		for i := 0; i < 9000; i += 10 {
			requireValue(t, db.Bucket(fmt.Sprint("b", i%3)), numbered(i), value)
			requireAbsent(t, db.Bucket(fmt.Sprint("b", i%3)), numbered(i+1))
		}
		requireValue(t, db.Bucket("b0"), "pinned", "before")
	}
	check(db)
	_, err = keepcache.Open(path, &keepcache.Options{LockTimeout: -1})
	require.ErrorIs(t, err, keepcache.ErrLocked)
	mustSet(t, db.Bucket("b0"), "after", 1, time.Hour)
	entry, found, err := db.Bucket("b0").Stat("after")
	require.NoError(t, err)
	require.True(t, found)
	require.Greater(t, entry.Revision, uint64(9000), "revisions went on")
	sound(t, db)
	require.NoError(t, db.Compact(t.Context())) // of what is compact already
	db = reopen(t, db, path, nil)
	check(db)
	requireValue(t, db.Bucket("b0"), "after", int64(1))
	require.NoFileExists(t, path+".compact")
}

// A compaction that ctx ends changes nothing, one after Close says so, and what a crash left is removed by Open.
func TestCompact_Ended(t *testing.T) {
	skipOnWindows(t, "a file cannot be replaced while it is open")
	path := newPath(t)
	ctx, cancel := context.WithCancel(t.Context())
	db := kibibytes(t, path, 9000, &keepcache.Options{CompactBytes: -1, Events: keepcache.Events{
		Kinds: keepcache.EventProgress, Handle: func(keepcache.Event) { cancel() },
	}})
	require.ErrorIs(t, db.Compact(ctx), context.Canceled)
	require.NoFileExists(t, path+".compact")
	require.Equal(t, uint64(1), db.Stats().Compact.Failed)
	require.ErrorIs(t, db.Stats().Compact.Err, context.Canceled)
	sound(t, db)
	require.NoError(t, db.Close())
	require.ErrorIs(t, db.Compact(t.Context()), keepcache.ErrClosed)
	require.NoError(t, os.WriteFile(path+".compact", []byte("half a file"), 0o600))
	db = open(t, path, nil)
	require.NoFileExists(t, path+".compact")
	n, err := db.Bucket("b1").Len()
	require.NoError(t, err)
	require.Equal(t, 3000, n)
}

// A file that was moved away is not replaced by what was copied from it.
func TestCompact_Moved(t *testing.T) {
	skipOnWindows(t, "an open file cannot be moved")
	path := newPath(t)
	db := openDamaged(t, path, &keepcache.Options{CompactBytes: -1})
	fill(t, db.Bucket("b"), 100, 0)
	require.NoError(t, os.Rename(path, path+".moved"))
	require.Error(t, db.Compact(t.Context()))
	require.NoFileExists(t, path)
	require.NoError(t, os.Rename(path+".moved", path))
	require.NoError(t, db.Compact(t.Context()))
	sound(t, db)
}

// What is freed goes back to the disk by itself, without a restart, however it was freed.
func TestCompact_Automatic(t *testing.T) {
	skipOnWindows(t, "a file cannot be replaced while it is open")
	if !long {
		t.Parallel() // it waits most of the time
	}
	n := 12_000
	if long {
		n = 1_000_000 // 1 GiB
	}
	for name, free := range map[string]func(b *keepcache.Bucket, db *keepcache.DB) error{
		"clear": func(b *keepcache.Bucket, _ *keepcache.DB) error { return b.Clear(t.Context()) },
		"drop": func(_ *keepcache.Bucket, db *keepcache.DB) error {
			_, err := db.DropBucket("b")
			return err
		},
		"prefix": func(b *keepcache.Bucket, _ *keepcache.DB) error {
			_, err := b.DeletePrefix(t.Context(), "")
			return err
		},
		"expiry": func(b *keepcache.Bucket, _ *keepcache.DB) error {
			for i := range n { // whatever the writing took
				if _, err := b.Touch(numbered(i), time.Second); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			if !long {
				t.Parallel()
			}
			path := newPath(t)
			db := open(t, path, &keepcache.Options{
				MaxBytes: -1, SyncInterval: time.Second, SweepInterval: time.Second, MemoryBytes: 64 << 20, JournalBytes: 64 << 20,
			})
			b, value := db.Bucket("b"), strings.Repeat("v", 1000)
			const together = 500
			for from := 0; from < n; from += together {
				ttl := time.Duration(from/together%2) * time.Hour
				values := make(map[string]any)
				for i := from; i < min(from+together, n); i++ {
					values[numbered(i)] = value
				}
				require.NoError(t, b.SetMany(values, ttl))
			}
			committed(t, db)
			large := fileSize(t, path)
			require.Greater(t, large, int64(n*1000))
			require.NoError(t, free(b, db))
			freed := time.Now()
			for fileSize(t, path) >= 16<<20 || db.Stats().Compact.Compactions == 0 || db.Stats().Entries > 0 {
				if time.Sleep(10 * time.Millisecond); time.Since(freed) > 2*time.Minute {
					s := db.Stats()
					t.Fatalf("the file has %d bytes, %d of them free, %d entries, %+v", s.FileBytes, s.FreeBytes, s.Entries, s.Compact)
				}
			}
			t.Logf("%d MiB became %d KiB %v after; the compaction took %v", large>>20, fileSize(t, path)>>10,
				time.Since(freed).Round(100*time.Millisecond), db.Stats().Compact.Took)
			require.Zero(t, db.Stats().Entries)
		})
	}
}

// Without free pages worth it nothing is compacted, nor with the option off.
func TestCompact_Idle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, o := range []keepcache.Options{{CompactBytes: -1}, {CompactBytes: 1 << 30}} {
			db := kibibytes(t, newPath(t), 3000, &o)
			require.NoError(t, db.Bucket("b0").Clear(t.Context()))
			require.NoError(t, db.Bucket("b1").Clear(t.Context()))
			committed(t, db)
			time.Sleep(time.Hour)
			require.Zero(t, db.Stats().Compact.Compactions)
		}
	})
}

// Two writers and two readers never pause while the file is compacted again and again: no error, no lost
// write, no wrong read, and nobody else gets the lock. Writes go to few keys and to many, so that what a
// compaction has to copy anew grows without end.
func TestCompact_UnderLoad(t *testing.T) {
	skipOnWindows(t, "a file cannot be replaced while it is open")
	entries, rounds, rest := effort.Of(6000, 20_000), effort.Of(2, 3), 300*time.Millisecond
	if long {
		entries, rounds, rest = 480_000, 2, 10*time.Second // 500 MiB
	}
	path := newPath(t)
	db := kibibytes(t, path, entries,
		&keepcache.Options{MaxBytes: -1, CompactBytes: -1, CommitInterval: 20 * time.Millisecond, CommitBytes: 1 << 20})
	value := strings.Repeat("v", 1000)
	const (
		reading    = iota // nobody writes
		writing           // nobody compacts
		compacting        // all at once
		phases
	)
	var phase atomic.Int32
	var stop atomic.Bool
	var work sync.WaitGroup
	last := [2]map[int]int{{}, {}}
	var slowest [2][phases]time.Duration
	var written [2][phases]int
	var reads [2][phases][]time.Duration
	for w := range 2 {
		work.Go(func() { // a reader
			r := rand.New(rand.NewPCG(2, uint64(w)))
			for !stop.Load() {
				i, at, start := r.IntN(entries), phase.Load(), time.Now()
				var got string
				found, err := db.Bucket(fmt.Sprint("b", i%3)).Get(numbered(i), &got)
				reads[w][at] = append(reads[w][at], time.Since(start))
				if err != nil || !found || got != value {
					t.Errorf("%s: %t %v", numbered(i), found, err)
				}
			}
		})
	}
	intruded := 0
	work.Go(func() {
		for !stop.Load() {
			other, err := keepcache.Open(path, &keepcache.Options{LockTimeout: -1})
			if err == nil {
				intruded++
				other.Close()
			}
			time.Sleep(time.Millisecond)
		}
	})
	time.Sleep(rest)
	phase.Store(writing)
	for w := range 2 {
		work.Go(func() { // a writer
			b, r := db.Bucket(fmt.Sprint("w", w)), rand.New(rand.NewPCG(1, uint64(w)))
			for n := 1; !stop.Load(); n++ {
				k, at, start := r.IntN([]int{5000, entries / 2}[n/5%2]), phase.Load(), time.Now()
				var err error
				if n%5 == 0 {
					_, err = b.Delete(numbered(k))
					delete(last[w], k)
				} else {
					err = b.Set(numbered(k), n, time.Duration(n%2)*time.Hour)
					last[w][k] = n
				}
				if err != nil {
					t.Error(err)
				}
				slowest[w][at] = max(slowest[w][at], time.Since(start))
				written[w][at]++
			}
		})
	}
	time.Sleep(rest)
	phase.Store(compacting)
	began := time.Now()
	for range rounds {
		require.NoError(t, db.Compact(t.Context()))
	}
	took := time.Since(began)
	phase.Store(writing)
	stop.Store(true)
	work.Wait()
	require.Zero(t, intruded, "another opener got the lock")
	for w := range 2 {
		b := db.Bucket(fmt.Sprint("w", w))
		n, err := b.Len()
		require.NoError(t, err)
		require.Equal(t, len(last[w]), n)
		for k, v := range last[w] {
			requireValue(t, b, numbered(k), int64(v))
		}
	}
	longest := max(slowest[0][compacting], slowest[1][compacting])
	p99 := func(phase int) time.Duration {
		all := slices.Concat(reads[0][phase], reads[1][phase])
		slices.Sort(all)
		return all[len(all)*99/100]
	}
	t.Logf("%d MiB; %d compactions took %v, the last %v; %d thousand writes a second before and %d during, the longest %v and %v; "+
		"p99 of %d reads %v with nobody writing, %v before, %v during", fileSize(t, path)>>20, rounds, took,
		db.Stats().Compact.Took,
		(written[0][writing]+written[1][writing])/int(rest.Milliseconds()),
		(written[0][compacting]+written[1][compacting])/int(took.Milliseconds()),
		max(slowest[0][writing], slowest[1][writing]), longest, len(reads[0][compacting])+len(reads[1][compacting]),
		p99(reading), p99(writing), p99(compacting))
	if long { // in small, beside other tests, they say nothing
		require.Less(t, longest, time.Second)
		require.Less(t, p99(compacting), 5*p99(writing))
	}
	sound(t, db)
}
