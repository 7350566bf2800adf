package keepcache_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
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

var liveReads = flag.Int("live.reads", effort.Of(1000, 3000),
	"how many reads without the lock to check beside a writer")

// beside opens the cache at path without its lock.
func beside(t tester, path string) *keepcache.DB {
	t.Helper()
	db, err := keepcache.Open(path, &keepcache.Options{ReadOnly: true, NoLock: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// A reader without the lock sees each write that has returned, in the file or in the journal, and nothing else.
func TestNoLock_Follows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		db := open(t, path, nil)
		r := beside(t, path)
		b, rb := db.Bucket("b"), r.Bucket("b")
		requireAbsent(t, rb, "k")
		names, err := r.Buckets()
		require.NoError(t, err)
		require.Empty(t, names)

		mustSet(t, b, "k", "journal", time.Minute)
		requireValue(t, rb, "k", "journal")
		requireTTL(t, rb, "k", time.Minute)
		committed(t, db)
		requireValue(t, rb, "k", "journal")
		mustSet(t, b, "k", "over", 0)
		requireValue(t, rb, "k", "over")
		requireTTL(t, rb, "k", keepcache.NoExpiry)
		_, err = b.Delete("k")
		require.NoError(t, err)
		requireAbsent(t, rb, "k")

		mustSet(t, b, "brief", 1, time.Second)
		requireValue(t, rb, "brief", int64(1))
		time.Sleep(time.Second)
		requireAbsent(t, rb, "brief")

		mustSet(t, b, "big", strings.Repeat("x", 3<<20), 0) // pages of values overflow
		committed(t, db)
		requireValue(t, rb, "big", strings.Repeat("x", 3<<20))
		names, err = r.Buckets()
		require.NoError(t, err)
		require.Equal(t, []string{"b"}, names)

		require.NoError(t, b.Clear(context.Background()))
		requireAbsent(t, rb, "big")
		mustSet(t, b, "big", "small", 0)
		requireValue(t, rb, "big", "small")
		committed(t, db)
		requireValue(t, rb, "big", "small")
		_, err = db.DropBucket("b")
		require.NoError(t, err)
		requireAbsent(t, rb, "big")
		names, err = r.Buckets()
		require.NoError(t, err)
		require.Empty(t, names)
	})
}

// A tag that was invalidated hides its entries from a reader without the lock, wherever the invalidation is.
func TestNoLock_Tags(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	r := beside(t, path)
	tagged := db.Bucket("b").WithTags("red", "blue")
	mustSet(t, tagged, "k", 1, 0)
	requireValue(t, r.Bucket("b"), "k", int64(1))
	require.NoError(t, db.InvalidateTags("red"))
	requireAbsent(t, r.Bucket("b"), "k")
	committed(t, db)
	requireAbsent(t, beside(t, path).Bucket("b"), "k")
	mustSet(t, tagged, "k", 2, 0)
	committed(t, db)
	requireValue(t, r.Bucket("b"), "k", int64(2))
	require.Empty(t, keys(t, beside(t, path).Bucket("b"), "x"))
	require.Equal(t, []string{"k"}, keys(t, beside(t, path).Bucket("b"), ""))
}

// Without the lock nothing can be written, and what needs the lock says so.
func TestNoLock_Refuses(t *testing.T) {
	path := newPath(t)
	_, err := keepcache.Open(path, &keepcache.Options{NoLock: true})
	require.ErrorContains(t, err, "ReadOnly")
	_, err = keepcache.Open(path, &keepcache.Options{NoLock: true, ReadOnly: true})
	requireError(t, err, os.ErrNotExist, "open", path)

	db := open(t, path, nil)
	mustSet(t, db.Bucket("b"), "k", 1, 0)
	r, err := keepcache.Open(path, &keepcache.Options{NoLock: true, ReadOnly: true})
	require.NoError(t, err)
	requireError(t, r.Set("k", 1, 0), keepcache.ErrReadOnly, "set", path)
	_, err = r.Delete("k")
	requireError(t, err, keepcache.ErrReadOnly, "delete", path)
	requireError(t, r.Compact(context.Background()), keepcache.ErrReadOnly, "compact", path)
	require.NoError(t, r.Sync(context.Background()))

	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, []byte(strings.Repeat("no cache ", 9999)), 0o600))
	_, err = keepcache.Open(text, &keepcache.Options{NoLock: true, ReadOnly: true})
	requireError(t, err, keepcache.ErrFormat, "open", text)

	require.NoError(t, r.Close())
	_, err = r.Bucket("b").Exists("k")
	requireError(t, err, keepcache.ErrClosed, "exists", path)
	_, err = r.Buckets()
	require.ErrorIs(t, err, keepcache.ErrClosed)
	for _, err := range r.Bucket("b").All() {
		require.ErrorIs(t, err, keepcache.ErrClosed)
	}
	require.Zero(t, r.Stats().Entries)
}

// A reader without the lock looks at an entry as Stat reads it.
func TestNoLock_Look(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	r := beside(t, path)
	for _, commit := range []bool{false, true} {
		mustSet(t, db.Bucket("b"), "k", commit, time.Hour)
		if commit {
			committed(t, db)
		}
		want, found, err := db.Bucket("b").Stat("k")
		require.NoError(t, err)
		require.True(t, found)
		got, found, err := r.Bucket("b").Stat("k")
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, want, got)
		_, found, err = r.Bucket("b").Stat("none")
		require.NoError(t, err)
		require.False(t, found)
	}
}

// The statistics of a reader without the lock are those of the file and of the journal.
func TestNoLock_Stats(t *testing.T) {
	path := newPath(t)
	db := open(t, path, &keepcache.Options{SweepInterval: -1, CommitInterval: time.Hour})
	r := beside(t, path)
	fill(t, db.Bucket("b"), 3000, 0)
	mustSet(t, db.Bucket("c"), "k", 1, 10*time.Millisecond)
	require.NoError(t, db.Bucket("b").SetBytes("journal", make([]byte, 1000), 0))
	if s := r.Stats(); db.Stats().Memory.PinnedBytes > 0 {
		require.Positive(t, s.Memory.PinnedBytes)
	}
	require.NoError(t, db.Compact(context.Background()))
	fill(t, db.Bucket("b"), 3000, 0)
	time.Sleep(20 * time.Millisecond)
	committed(t, db) // and drops c, of which the one entry has expired
	committed(t, db)
	want, got := db.Stats(), r.Stats()
	require.Equal(t, want.Buckets, got.Buckets)
	require.Equal(t, want.Entries, got.Entries)
	require.Equal(t, want.Bytes, got.Bytes)
	require.Equal(t, want.FileBytes, got.FileBytes)
	require.Zero(t, got.Memory.PinnedBytes)
}

// Whatever a cache does, a reader without the lock finds after each step what the cache itself finds.
func TestNoLock_Model(t *testing.T) {
	steps := effort.Of(300, 800)
	if long {
		steps = 50_000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	path := newPath(t)
	opts := &keepcache.Options{SweepInterval: time.Millisecond, CommitInterval: 3 * time.Millisecond,
		CompactBytes: 1 << 10}
	db := open(t, path, opts)
	r := beside(t, path)
	names := []string{"a", "b", "c"}
	key := func() string { return fmt.Sprintf("%c%02d", 'a'+rng.IntN(3), rng.IntN(40)) }
	ctx := context.Background()
	for range steps {
		b := db.Bucket(names[rng.IntN(len(names))])
		var err error
		switch n := rng.IntN(100); {
		case n < 60:
			err = b.WithTags(fmt.Sprint("t", rng.IntN(9))).SetBytes(key(), make([]byte, 1<<rng.IntN(15)), 0)
		case n < 70:
			_, err = b.Delete(key())
		case n < 75:
			_, err = b.Touch(key(), time.Hour)
		case n < 78:
			_, err = b.DeletePrefix(ctx, key()[:2])
		case n < 80:
			err = b.Clear(ctx)
		case n < 81:
			_, err = db.DropBucket(b.Name())
		case n < 85:
			err = db.InvalidateTags(fmt.Sprint("t", rng.IntN(9)))
		case n < 88:
			_, err = db.Sweep(ctx)
		case n < 89:
			if err = db.Compact(ctx); errors.Is(err, errors.ErrUnsupported) {
				err = nil
			}
		case n < 90:
			db = reopen(t, db, path, opts)
			continue
		default:
			time.Sleep(time.Duration(rng.IntN(1000)) * time.Microsecond)
		}
		require.NoError(t, err)

		rb, k := r.Bucket(b.Name()), key()
		want, found, err := b.Stat(k)
		require.NoError(t, err)
		got, foundToo, err := rb.Stat(k)
		require.NoError(t, err)
		require.Equal(t, found, foundToo, "key %s", k)
		require.Equal(t, want, got)
		if rng.IntN(10) == 0 {
			prefix := ""
			if rng.IntN(2) == 0 {
				prefix = k[:1+rng.IntN(2)]
			}
			require.Equal(t, keys(t, b, prefix), keys(t, rb, prefix))
			for try := range 3 { // a sweep in between drops a bucket that has no entries any more
				want, err := db.Buckets()
				require.NoError(t, err)
				got, err := r.Buckets()
				require.NoError(t, err)
				if try == 2 || reflect.DeepEqual(want, got) {
					require.Equal(t, want, got)
					break
				}
			}
		}
	}
}

// tracked is a key whose writer counts its writes: write n sets the value n, or removes the key where n is a multiple
// of 5. What a read finds must be a write that was not over before it began, or the last one before that.
type tracked struct {
	key         string
	tried, done atomic.Int64
}

func (k *tracked) write(b *keepcache.Bucket, rng *rand.Rand) error {
	n := k.tried.Add(1)
	var err error
	if n%5 == 0 {
		_, err = b.Delete(k.key)
	} else {
		value := append(fmt.Appendf(nil, "%s %d ", k.key, n), make([]byte, rng.IntN(1<<rng.IntN(14)))...)
		err = b.SetBytes(k.key, value, 0)
	}
	if err == nil {
		k.done.Store(n)
	}
	return err
}

// check says what is wrong with what a read found that began when done was low.
func (k *tracked) check(value []byte, found bool, low int64) error {
	high := k.tried.Load()
	if !found {
		if low == 0 || low/5*5 == low || (low/5+1)*5 <= high {
			return nil
		}
		return fmt.Errorf("%s is absent between %d and %d", k.key, low, high)
	}
	var n int64
	var key string
	if _, err := fmt.Sscan(string(value[:min(len(value), 40)]), &key, &n); err != nil {
		return err
	}
	if key != k.key || n < low || n > high || n%5 == 0 {
		return fmt.Errorf("%s reads as %d of %s between %d and %d", k.key, n, key, low, high)
	}
	return nil
}

// liveScene is a cache that is written to without a pause, while reads without the lock are checked.
func liveScene(
	t *testing.T, count, readers int, opts *keepcache.Options, pause time.Duration, disturb func(*keepcache.DB),
) {
	path := newPath(t)
	db := open(t, path, opts)
	b := db.Bucket("b")
	fill(t, b, 5000, 0) // pages around those that are looked at
	all := make([]*tracked, 64)
	for i := range all {
		all[i] = &tracked{key: fmt.Sprintf("key%04d", i*37)}
	}
	stop := make(chan struct{})
	over := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	var work sync.WaitGroup
	for w := range 4 {
		work.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for !over() {
				if err := all[w*16+rng.IntN(16)].write(b, rng); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(pause)
			}
		})
	}
	work.Go(func() {
		for !over() {
			disturb(db)
		}
	})
	start, before := time.Now(), db.Stats().Commit.Commits
	var reads, wrong, busy atomic.Int64
	var reading sync.WaitGroup
	for w := range readers {
		reading.Go(func() {
			r := beside(t, path)
			rng := rand.New(rand.NewPCG(uint64(w), 2))
			for int(reads.Add(1)) <= count && wrong.Load() < 10 {
				k := all[rng.IntN(len(all))]
				low := k.done.Load()
				value, found, err := r.Bucket("b").GetBytes(k.key)
				switch {
				case err != nil && strings.Contains(err.Error(), "faster than it can be read"):
					busy.Add(1)
				case err == nil:
					err = k.check(value, found, low)
					fallthrough
				default:
					if err != nil {
						wrong.Add(1)
						t.Error(err)
					}
				}
				if rng.IntN(200) == 0 {
					if err := checkRange(r.Bucket("b"), all); err != nil {
						wrong.Add(1)
						t.Error(err)
					}
				}
			}
		})
	}
	reading.Wait()
	took := time.Since(start)
	s := db.Stats()
	close(stop)
	work.Wait()
	t.Logf("%d reads in %s (%s each, %d at a time): %d wrong, %d too busy; %.0f commits/s, %d compactions, journal of %d KiB",
		count, took.Round(time.Millisecond), (time.Duration(readers) * took / time.Duration(count)).Round(time.Microsecond),
		readers, wrong.Load(), busy.Load(),
		float64(s.Commit.Commits-before)/took.Seconds(), s.Compact.Compactions, s.Journal.FileBytes>>10)
	require.Zero(t, wrong.Load())
	require.Less(t, int(busy.Load()), max(count/100, 2))
}

// checkRange ranges over the tracked keys: each that is there all the while is there once.
func checkRange(b *keepcache.Bucket, all []*tracked) error {
	lows := make(map[string]int64)
	byKey := make(map[string]*tracked)
	for _, k := range all {
		lows[k.key], byKey[k.key] = k.done.Load(), k
	}
	seen := make(map[string]bool)
	var last string
	for e, err := range b.Prefix("key") {
		if err != nil {
			return err
		}
		if e.Key <= last {
			return fmt.Errorf("%s comes after %s", e.Key, last)
		}
		last = e.Key
		seen[e.Key] = true
		var value []byte
		if err := e.Decode(&value); err != nil {
			return err
		}
		if err := byKey[e.Key].check(value, true, lows[e.Key]); err != nil {
			return err
		}
	}
	for _, k := range all {
		if !seen[k.key] {
			if err := k.check(nil, false, lows[k.key]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Beside a thousand commits a second no read without the lock is wrong.
func TestNoLock_Commits(t *testing.T) {
	liveScene(t, *liveReads, 1, &keepcache.Options{CommitInterval: 200 * time.Microsecond,
		SweepInterval: time.Millisecond}, 50*time.Microsecond,
		func(db *keepcache.DB) {
			_, err := db.Sweep(context.Background()) // commits first
			if err != nil {
				t.Error(err)
			}
		})
}

// Nor is one while the file is replaced by its compaction again and again.
func TestNoLock_Compactions(t *testing.T) {
	liveScene(t, *liveReads/2, 2, &keepcache.Options{CommitInterval: time.Millisecond}, 100*time.Microsecond,
		func(db *keepcache.DB) {
			if err := db.Compact(context.Background()); err != nil && !errors.Is(err, errors.ErrUnsupported) {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
		})
}

// Nor is one while the few segments of a small journal are released and used again.
func TestNoLock_Recycling(t *testing.T) {
	liveScene(t, *liveReads, 2, &keepcache.Options{CommitInterval: 20 * time.Millisecond, JournalBytes: 128 << 10},
		20*time.Microsecond,
		func(*keepcache.DB) { time.Sleep(time.Millisecond) })
}

// Nor is one while writers go as fast as they can, and each read has tens of MiB of journal to look through.
func TestNoLock_Flood(t *testing.T) {
	liveScene(t, *liveReads/100, 2, nil, 0, func(*keepcache.DB) { time.Sleep(time.Millisecond) })
}

// A file whose pages are damaged gives errors or misses, and never a wrong value, a crash or a wait without end.
func TestNoLock_Damage(t *testing.T) {
	path := newPath(t)
	db, err := tryOpen(path, nil)
	require.NoError(t, err)
	fill(t, db.Bucket("b"), 2000, 0)
	require.NoError(t, db.Bucket("b").SetBytes("big", make([]byte, 100_000), 0))
	require.NoError(t, db.Close())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	runs := effort.Of(30, 80)
	if long {
		runs = 20_000
	}
	rng := rand.New(rand.NewPCG(1, 2))
	failed := 0
	for range runs {
		content := slices.Clone(whole)
		for range 1 + rng.IntN(4) {
			at := 8192 + rng.IntN(len(content)-8192)
			switch rng.IntN(3) {
			case 0:
				content[at] ^= 1 << rng.IntN(8)
			case 1:
				copy(content[at&^15:], []byte{0xff, 0xff, 0xff, 0x7f})
			default:
				copy(content[at&^4095:at&^4095+4096], content[rng.IntN(len(content)/4096)*4096:])
			}
		}
		if rng.IntN(10) == 0 {
			content = content[:rng.IntN(len(content))]
		}
		require.NoError(t, os.WriteFile(path, content, 0o600))
		r, err := keepcache.Open(path, &keepcache.Options{ReadOnly: true, NoLock: true})
		if err != nil {
			failed++
			continue
		}
		for range 20 {
			n := rng.IntN(2000)
			var got int
			found, err := r.Bucket("b").Get(numbered(n), &got)
			if err == nil && found {
				require.Equal(t, n, got)
			}
		}
		for e, err := range r.Bucket("b").All() {
			var got any
			if err == nil && e.Key != "big" {
				require.NoError(t, e.Decode(&got))
				require.Equal(t, e.Key, numbered(int(got.(int64))))
			}
		}
		r.Stats()
		require.NoError(t, r.Close())
	}
	t.Logf("%d of %d files could not be opened", failed, runs)
}
