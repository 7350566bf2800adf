package keepcache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// manyMemory is the MemoryBytes of the tests with many buckets, and manySlack what the heap may have beyond it.
const (
	manyMemory = 16 << 20
	manySlack  = 10 << 20
)

var manyOptions = &keepcache.Options{MemoryBytes: manyMemory, CommitInterval: 300 * time.Millisecond}

// toll is what a test with many buckets has cost.
type toll struct {
	t       *testing.T
	path    string
	heap    uint64 // before
	written int64  // before, of the whole process; -1 where the system does not count
	changes int    // transactions that changed the file
	last    int    // number of the last of them
	lag     time.Duration
	begun   time.Time
	stop    chan struct{}
	done    sync.WaitGroup
}

// charge begins to count. The test must not be parallel to others.
func charge(t *testing.T, db *keepcache.DB) *toll {
	c := &toll{t: t, path: db.Path(), heap: liveHeap(), written: writtenBytes(), begun: time.Now(),
		stop: make(chan struct{})}
	c.last = db.Transactions()
	c.done.Go(func() {
		for done := false; !done; {
			select {
			case <-c.stop:
				done = true
			case <-time.After(200 * time.Millisecond):
			}
			now := db.Transactions()
			if now < c.last {
				c.last = 0 // the file was compacted
			}
			c.changes += now - c.last
			c.last = now
			c.lag = max(c.lag, db.Stats().Sweep.Lag)
		}
	})
	return c
}

// settle ends the counting, when nothing is left to do, and logs what there was.
func (c *toll) settle(db *keepcache.DB) (changes int, written, file int64) {
	c.t.Helper()
	for {
		st := db.Stats()
		if st.Sweep.Pending == 0 && st.Entries == 0 && st.Memory.PinnedBytes == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(c.begun)
	close(c.stop)
	c.done.Wait()
	for range 2 { // drops what is empty, and has the file forget it
		committed(c.t, db)
	}
	require.Zero(c.t, db.Stats().Sweep.Pending)
	require.Zero(c.t, db.Names(), "names that are gone stay in memory")
	heap := int64(liveHeap()) - int64(c.heap)
	info, err := os.Stat(c.path)
	require.NoError(c.t, err)
	if c.written >= 0 {
		written = writtenBytes() - c.written
	}
	changes, file = c.changes, info.Size()
	names, err := db.Buckets()
	require.NoError(c.t, err)
	c.t.Logf("in %v: %d transactions, %d kB written, file %d kB, heap +%d kB, most lag %v, %d buckets, %d names",
		took.Round(time.Millisecond),
		changes, written>>10, file>>10, heap>>10, c.lag.Round(time.Millisecond), len(names), db.Names())
	require.LessOrEqual(c.t, heap, int64(manyMemory+manySlack))
	if long {
		require.Less(c.t, c.lag, 2*time.Second)
	}
	return changes, written, file
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// writtenBytes returns what the process has handed to the system to be written, or -1 where that is not counted.
func writtenBytes() int64 {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return -1
	}
	var n int64 = -1
	for line := range bytes.Lines(text) {
		fmt.Sscanf(string(line), "wchar: %d", &n)
	}
	return n
}

// manyTimes is how many buckets a test has: the given number, or a small part of it by default.
func manyTimes(n int) int {
	if long {
		return n
	}
	return n / 20
}

// longName returns a bucket's name of its own, of a length that is no exception.
func longName(i int) string { return fmt.Sprintf("tenant/%08d/%s", i, strings.Repeat("n", 40)) }

// Buckets that are written once and dropped leave nothing behind, and what expires meanwhile goes in time.
func TestManyBuckets_Drop(t *testing.T) {
	db := newDB(t, manyOptions)
	c := charge(t, db)
	n := manyTimes(200_000)
	for i := range n {
		name := longName(i)
		mustSet(t, db.Bucket(name), "k", i, 0)
		if i%10 == 0 {
			mustSet(t, db.Bucket("other"), numbered(i), i, time.Second)
		}
		found, err := db.DropBucket(name)
		require.NoError(t, err)
		require.True(t, found)
	}
	_, err := db.DropBucket("other")
	require.NoError(t, err)
	changes, _, file := c.settle(db)
	require.Less(t, changes, n/20+200, "dropped buckets have transactions of their own")
	require.Less(t, file, int64(24<<20))
}

// Buckets that the file has and that are dropped are removed many at a time.
func TestManyBuckets_DropFiled(t *testing.T) {
	db := newDB(t, manyOptions)
	n := manyTimes(100_000)
	for i := range n {
		mustSet(t, db.Bucket(longName(i)), "k", i, time.Hour)
	}
	require.NoError(t, db.Sync(context.Background()))
	committed(t, db)
	c := charge(t, db)
	mustSet(t, db.Bucket("other"), "k", 1, time.Second)
	for i := range n {
		_, err := db.DropBucket(longName(i))
		require.NoError(t, err)
	}
	_, err := db.DropBucket("other")
	require.NoError(t, err)
	changes, _, _ := c.settle(db)
	require.Less(t, changes, n/20+200, "dropped buckets have transactions of their own")
}

// A bucket that is filled and cleared time and again costs the file what one such round does.
func TestManyBuckets_Clear(t *testing.T) {
	db := newDB(t, manyOptions)
	c := charge(t, db)
	n := manyTimes(20_000)
	b := db.Bucket("b")
	for i := range n {
		mustSet(t, b, "k", i, 0)
		require.NoError(t, b.Clear(context.Background()))
	}
	changes, written, file := c.settle(db)
	require.Less(t, changes, n/20+200, "ids have transactions of their own")
	require.Less(t, written, int64(n)*1000+(8<<20))
	require.Less(t, file, int64(4<<20))
}

// A load in a bucket that does not exist leaves nothing of its name behind when it finds nothing, fails or is not
// stored.
func TestManyBuckets_Loads(t *testing.T) {
	db := newDB(t, manyOptions)
	c := charge(t, db)
	n := manyTimes(200_000)
	for i := range n {
		b := db.Bucket(longName(i))
		_, err := b.GetOrLoad(context.Background(), "k", new(any), func(context.Context, *keepcache.Load) (any, error) {
			return nil, keepcache.ErrNotFound
		}, nil)
		require.ErrorIs(t, err, keepcache.ErrNotFound)
	}
	c.settle(db)
}

// Buckets whose only entry expires go with it.
func TestManyBuckets_Expire(t *testing.T) {
	db := newDB(t, manyOptions)
	c := charge(t, db)
	n := manyTimes(150_000)
	for i := range n {
		mustSet(t, db.Bucket(longName(i)), "k", i, time.Second)
	}
	_, _, file := c.settle(db)
	require.Less(t, file, int64(64<<20))
}

// Looking at a bucket that does not exist, and writes to it that fail or have nothing to do, leave nothing behind.
func TestManyBuckets_Unknown(t *testing.T) {
	db := newDB(t, &keepcache.Options{SweepInterval: -1, MaxBytes: 1 << 20})
	ctx := context.Background()
	broken := errors.New("broken")
	for name, do := range map[string]func(*keepcache.Bucket) error{
		"Get":    func(b *keepcache.Bucket) error { _, err := b.Get("k", new(any)); return err },
		"Exists": func(b *keepcache.Bucket) error { _, err := b.Exists("k"); return err },
		"Len":    func(b *keepcache.Bucket) error { _, err := b.Len(); return err },
		"TTL":    func(b *keepcache.Bucket) error { _, _, err := b.TTL("k"); return err },
		"Delete": func(b *keepcache.Bucket) error { _, err := b.Delete("k"); return err },
		"Touch":  func(b *keepcache.Bucket) error { _, err := b.Touch("k", 0); return err },
		"Clear":  func(b *keepcache.Bucket) error { return b.Clear(ctx) },
		"Update": func(b *keepcache.Bucket) error {
			err := update(b, "k", func(keepcache.Entry, bool) (any, error) { return nil, broken })
			return failsWith(err, broken)
		},
		"too large": func(b *keepcache.Bucket) error {
			return failsWith(b.SetBytes("k", make([]byte, 2<<20), 0), keepcache.ErrTooLarge)
		},
		"batch": func(b *keepcache.Bucket) error {
			var batch keepcache.Batch
			batch.Delete(b, "k")
			return db.Apply(&batch)
		},
		"load that fails": func(b *keepcache.Bucket) error {
			_, err := b.GetOrLoad(ctx, "k", new(any),
				func(context.Context, *keepcache.Load) (any, error) { return nil, broken }, &keepcache.LoadOptions{RetryAfter: -1})
			return failsWith(err, broken)
		},
		"load not stored": func(b *keepcache.Bucket) error {
			_, err := b.GetOrLoad(ctx, "k", new(any), func(_ context.Context, l *keepcache.Load) (any, error) {
				l.NoStore = true
				return 1, nil
			}, nil)
			return err
		},
		"loads": func(b *keepcache.Bucket) error {
			_, err := b.GetOrLoadMany(ctx, []string{"k", "l"}, func(context.Context, []string) (map[string]any, error) {
				return nil, nil
			}, nil)
			return err
		},
		"delete during a load": func(b *keepcache.Bucket) error {
			_, err := b.GetOrLoad(ctx, "k", new(any), func(context.Context, *keepcache.Load) (any, error) {
				_, err := b.Delete("k")
				return 1, err
			}, nil)
			return err
		},
	} {
		require.NoError(t, do(db.Bucket("unknown")), name)
		require.Zero(t, db.Names(), name)
	}
}

func failsWith(err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	return fmt.Errorf("not %v but: %w", want, err)
}

// What is told of entries of many buckets that go at once has the names of their buckets.
func TestManyBuckets_Events(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		told := make(map[string]string)
		db := newDB(t, &keepcache.Options{SweepInterval: -1, Events: keepcache.Events{
			Kinds:  keepcache.EventExpire,
			Handle: func(e keepcache.Event) { mu.Lock(); told[e.Bucket] = e.Key; mu.Unlock() },
		}})
		const n = 3000
		for i := range n {
			mustSet(t, db.Bucket(longName(i)), numbered(i), i, time.Minute)
		}
		committed(t, db)
		time.Sleep(time.Hour)
		committed(t, db)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, told, n)
		for i := range n {
			require.Equal(t, numbered(i), told[longName(i)])
		}
	})
}

// A cache that ends without Close with hundreds of thousands of bucket changes in its journal, and with dropped buckets
// in its file, opens with what was there, removes what is left of the others, and gives no id out twice.
func TestManyBuckets_Reopen(t *testing.T) {
	path := newPath(t)
	n := manyTimes(100_000)
	o := &keepcache.Options{MemoryBytes: 64 << 20, SweepInterval: -1, CommitInterval: time.Hour, CommitBytes: 1 << 30,
		CompactBytes: -1}
	db := open(t, path, o)
	for i := range n {
		mustSet(t, db.Bucket(longName(i)), "k", i, 0)
	}
	committed(t, db)
	for i := range n {
		if _, err := db.DropBucket(longName(i)); err != nil {
			require.NoError(t, err)
		}
	}
	committed(t, db)
	for i := range n {
		b := db.Bucket(longName(i))
		mustSet(t, b, "k", -i, 0)
		if i%100 != 0 {
			_, err := db.DropBucket(longName(i))
			require.NoError(t, err)
		}
	}
	at := newPath(t)
	for _, suffix := range []string{"", "-journal"} {
		text, err := os.ReadFile(path + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(at+suffix, text, 0o600))
	}
	db = open(t, at, o)
	for i := range n {
		if i%100 == 0 {
			requireValue(t, db.Bucket(longName(i)), "k", int64(-i))
		}
	}
	names, err := db.Buckets()
	require.NoError(t, err)
	require.Len(t, names, (n+99)/100)
	committed(t, db)
	committed(t, db)
	require.Zero(t, db.Stats().Sweep.Pending)
	require.Equal(t, (n+99)/100, db.Names())
	report := sound(t, db)
	require.Equal(t, (n+99)/100, report.Entries)
	require.Zero(t, report.Pending)
}
