package keepcache_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
)

// InvalidateTags makes the entries of a tag absent to everything, in all buckets, from before it and not from after.
func TestTags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		db := open(t, path, nil)
		a, b := db.Bucket("a"), db.Bucket("b")
		mustSet(t, a.WithTags("user:1", "tenant:7"), "k1", 1, 0)
		require.NoError(t, b.WithTags("tenant:7", "user:2", "user:2").SetBytes("k2", []byte("2"), time.Hour))
		require.NoError(t, b.WithTags("user:1").SetMany(map[string]any{"k3": 3, "k4": 4}, 0))
		mustSet(t, b, "k5", 5, 0)
		tagged := func(b *keepcache.Bucket, tag string) (found []string) {
			for e, err := range b.Tagged(tag) {
				require.NoError(t, err)
				found = append(found, e.Key)
			}
			return found
		}
		entry, _, err := b.Stat("k2")
		require.NoError(t, err)
		require.Equal(t, []string{"tenant:7", "user:2"}, entry.Tags)
		require.Equal(t, []string{"k1"}, tagged(a, "user:1"))
		require.Equal(t, []string{"k3", "k4"}, tagged(b, "user:1"))
		for range b.Tagged("user:1") {
			break
		}

		require.NoError(t, db.InvalidateTags("nobody's"))
		require.NoError(t, db.InvalidateTags("user:1"))
		mustSet(t, b.WithTags("user:1"), "k3", "after", 0)
		check := func(db *keepcache.DB) {
			a, b := db.Bucket("a"), db.Bucket("b")
			requireAbsent(t, a, "k1")
			requireAbsent(t, b, "k4")
			require.Equal(t, []string{"k2", "k3", "k5"}, keys(t, b, ""))
			n, err := b.Len()
			require.NoError(t, err)
			require.Equal(t, 3, n)
			requireValue(t, b, "k3", "after")
		}
		check(db)
		// It survives a crash, a restart, and a look by a reader.
		crashed := crashCopy(t, path, filepath.Join(t.TempDir(), "crashed"))
		reader, err := keepcache.Open(crashed, &keepcache.Options{ReadOnly: true})
		require.NoError(t, err)
		check(reader)
		require.NoError(t, reader.Close())
		check(open(t, crashed, nil))
		db = reopen(t, db, path, nil)
		check(db)
		require.Equal(t, int64(5), db.Stats().Entries)
		// The sweep frees the room; writes that depend on the key take it for absent.
		added, err := db.Bucket("a").Add("k1", "added", 0)
		require.NoError(t, err)
		require.True(t, added)
		removed, err := db.Sweep(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, removed)
		committed(t, db)
		require.Equal(t, int64(4), db.Stats().Entries)
		check2 := keys(t, db.Bucket("a"), "")
		require.Equal(t, []string{"k1"}, check2)
	})
}

// What keeps an entry keeps its tags, as of when they were given: Touch, Update, Increment and compare-and-swap
// bring nothing back that was invalidated, also if they began before.
func TestTags_Kept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, nil)
		b := db.Bucket("b")
		tagged := b.WithTags("t")
		for name, change := range map[string]func() error{
			"touch":     func() error { _, err := b.Touch("k", time.Hour); return err },
			"increment": func() error { _, err := b.Increment("k", 1, 0); return err },
			"update":    func() error { return update(b, "k", func(keepcache.Entry, bool) (any, error) { return 7, nil }) },
			"cas": func() error {
				e, _, err := b.Stat("k")
				if err == nil {
					_, err = compareAndSwap(b, "k", e.Revision, 9)
				}
				return err
			},
		} {
			mustSet(t, tagged, "k", 1, time.Minute)
			before, _, err := b.Stat("k")
			require.NoError(t, err)
			require.NoError(t, change(), name)
			after, found, err := b.Stat("k")
			require.NoError(t, err)
			require.True(t, found)
			require.Greater(t, after.Revision, before.Revision)
			require.Equal(t, []string{"t"}, after.Tags, name)
			require.NoError(t, db.InvalidateTags("t"))
			requireAbsent(t, b, "k")
		}
		// The invalidation comes between the look of an Update and its write.
		mustSet(t, tagged, "k", 1, time.Minute)
		require.NoError(t, update(b, "k", func(_ keepcache.Entry, found bool) (any, error) {
			require.True(t, found)
			return 2, db.InvalidateTags("t")
		}))
		requireAbsent(t, b, "k")
		// A plain Set forgets the tags.
		mustSet(t, tagged, "k", 1, time.Minute)
		mustSet(t, b, "k", 2, time.Minute)
		require.NoError(t, db.InvalidateTags("t"))
		requireValue(t, b, "k", int64(2))
		// What is created through a handle has its tags.
		_, err := tagged.Increment("n", 1, 0)
		require.NoError(t, err)
		require.NoError(t, update(tagged, "u", func(keepcache.Entry, bool) (any, error) { return 1, nil }))
		added, err := keepcache.Of[int](tagged).Add("a", 1, 0)
		require.NoError(t, err)
		require.True(t, added)
		require.NoError(t, db.InvalidateTags("t"))
		require.Equal(t, []string{"k"}, keys(t, b, ""))
	})
}

// A load stores as of its beginning: an invalidation that comes while it runs makes what it brings absent, and
// who comes after the invalidation gets what is loaded after it.
func TestTags_Load(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Hour})
		s.b = s.b.WithTags("t")
		require.NoError(t, s.db.InvalidateTags("t"))
		s.get("one", false, 1)
		s.get("one", false, 1) // invalidated before it began
		require.NoError(t, s.db.InvalidateTags("t"))
		s.answer("old", nil, time.Minute)
		var waiters sync.WaitGroup
		wait := func(want string) {
			waiters.Go(func() {
				var got string
				_, err := s.b.GetOrLoad(t.Context(), "k", &got, s.load, &s.opts)
				require.NoError(t, err)
				require.Equal(t, want, got)
			})
			synctest.Wait()
		}
		wait("old")
		time.Sleep(time.Second)
		require.NoError(t, s.db.InvalidateTags("t"))
		s.answer("new", nil, 0)
		wait("new")
		waiters.Wait()
		s.get("new", false, 3)
		many, err := s.b.GetOrLoadMany(t.Context(), []string{"k"}, nil, &s.opts)
		require.NoError(t, err)
		require.Len(t, many, 1)
	})
}

// A stale value with an invalidated tag is not served, and a negative entry can have tags too.
func TestTags_Stale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour, NegativeTTL: time.Hour})
		s.b = s.b.WithTags("t")
		s.get("one", false, 1)
		time.Sleep(time.Minute)
		require.NoError(t, s.db.InvalidateTags("t"))
		_, found, err := s.b.Stat("k")
		require.NoError(t, err)
		require.False(t, found)
		s.answer(nil, keepcache.ErrNotFound, 0)
		s.fails(keepcache.ErrNotFound, 2)
		s.fails(keepcache.ErrNotFound, 2)
		require.NoError(t, s.db.InvalidateTags("t"))
		s.answer("two", nil, 0)
		s.get("two", false, 3)
	})
}

// Number and length of tags are bounded.
func TestTags_Invalid(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	b := db.Bucket("b")
	many := make([]string, keepcache.MaxTags+1)
	for i := range many {
		many[i] = numbered(i) + strings.Repeat("x", keepcache.MaxTagBytes-7)
	}
	require.NoError(t, b.WithTags(many[1:]...).Set("k", 1, 0))
	entry, _, err := b.Stat("k")
	require.NoError(t, err)
	require.Equal(t, many[1:], entry.Tags)
	for _, tags := range [][]string{{""}, {strings.Repeat("x", keepcache.MaxTagBytes+1)}, many} {
		bad := b.WithTags(tags...)
		requireError(t, bad.Set("k", 1, 0), keepcache.ErrInvalidTag, "set", path)
		_, err := bad.Increment("n", 1, 0)
		requireError(t, err, keepcache.ErrInvalidTag, "increment", path)
		err = update(bad, "n", func(keepcache.Entry, bool) (any, error) { return 1, nil })
		requireError(t, err, keepcache.ErrInvalidTag, "update", path)
		requireValue(t, bad.WithTags(), "k", int64(1))
	}
	requireError(t, db.InvalidateTags(""), keepcache.ErrInvalidTag, "invalidate tags", path)
	require.NoError(t, db.Close())
	requireError(t, db.InvalidateTags("t"), keepcache.ErrClosed, "invalidate tags", path)
}

// InvalidateTags costs one write, however many entries have the tag; every later read misses.
func TestTags_Many(t *testing.T) {
	n := 20_000
	if long {
		n = 1_000_000
	}
	path := newPath(t)
	db := open(t, path, &keepcache.Options{SweepInterval: -1})
	b := db.Bucket("b")
	fill(t, b.WithTags("all"), n, 0)
	mustSet(t, b, "untagged", 1, 0)
	appends := db.Stats().Journal.Appends
	start := time.Now()
	require.NoError(t, db.InvalidateTags("all"))
	took := time.Since(start)
	require.LessOrEqual(t, db.Stats().Journal.Appends, appends+1)
	t.Logf("%d entries in %v", n, took)
	for i := range n {
		found, err := b.Exists(numbered(i))
		require.NoError(t, err)
		require.False(t, found)
	}
	db = reopen(t, db, path, &keepcache.Options{SweepInterval: -1})
	require.Equal(t, []string{"untagged"}, keys(t, db.Bucket("b"), ""))
	committed(t, db)
	committed(t, db)
	require.Equal(t, int64(1), db.Stats().Entries)
}

// The table of tags is bounded: what is forgotten costs misses, and never brings anything back.
func TestTags_Bounded(t *testing.T) {
	path := newPath(t)
	opts := &keepcache.Options{SweepInterval: -1}
	db := open(t, path, opts)
	b := db.Bucket("b")
	mustSet(t, b.WithTags("old"), "k1", 1, 0)
	mustSet(t, b.WithTags("unharmed"), "k2", 1, 0)
	require.NoError(t, db.InvalidateTags("old"))
	var writers sync.WaitGroup
	for g := range 64 {
		writers.Go(func() {
			for i := range 1030 {
				if err := db.InvalidateTags(fmt.Sprint(g, "-", i)); err != nil {
					t.Errorf("invalidate: %v", err)
				}
			}
		})
	}
	writers.Wait()
	mustSet(t, b.WithTags("old"), "k3", 3, 0)
	requireAbsent(t, b, "k1")
	requireAbsent(t, b, "k2") // the price
	requireValue(t, b, "k3", int64(3))
	db = reopen(t, db, path, opts)
	b = db.Bucket("b")
	requireAbsent(t, b, "k1")
	requireAbsent(t, b, "k2")
	requireValue(t, b, "k3", int64(3))
	require.NoError(t, db.Close())
	withBolt(t, path, true, func(tx *bolt.Tx) error {
		require.Less(t, tx.Bucket([]byte("tags")).Stats().KeyN, 40_000)
		return nil
	})
}

// Invalidations beside reads, writes and sweeps: what was set before one that returned is never seen again.
func TestTags_Concurrent(t *testing.T) {
	db := newDB(t, &keepcache.Options{SweepInterval: time.Millisecond})
	var users sync.WaitGroup
	for g := range 8 {
		users.Go(func() {
			tag := fmt.Sprint("t", g)
			b := db.Bucket("b").WithTags(tag, "shared")
			for i := range 100 {
				key := fmt.Sprint(tag, "-", i%10)
				err := b.Set(key, i, time.Hour)
				if err == nil {
					err = db.InvalidateTags(tag)
				}
				if err != nil {
					t.Errorf("%v", err)
				}
				if found, err := b.Exists(key); err != nil || found {
					t.Errorf("%s: %t %v", key, found, err)
				}
				if i%20 == 0 {
					if _, err := db.Sweep(context.Background()); err != nil {
						t.Errorf("sweep: %v", err)
					}
				}
			}
		})
	}
	users.Wait()
}

// A backup and a compacted file know what was invalidated, also where nothing was swept.
func TestTags_Copied(t *testing.T) {
	path := newPath(t)
	db := open(t, path, &keepcache.Options{SweepInterval: -1, CompactBytes: -1})
	b := db.Bucket("b")
	mustSet(t, b.WithTags("old"), "gone", 1, 0)
	mustSet(t, b, "stays", 1, 0)
	require.NoError(t, db.InvalidateTags("old"))
	copied := filepath.Join(t.TempDir(), "copy.cache")
	out, err := os.Create(copied)
	require.NoError(t, err)
	require.NoError(t, db.Backup(t.Context(), out))
	require.NoError(t, out.Close())
	if runtime.GOOS != "windows" {
		require.NoError(t, db.Compact(t.Context()))
	}
	db = reopen(t, db, path, nil)
	for _, db := range []*keepcache.DB{db, open(t, copied, nil)} {
		requireAbsent(t, db.Bucket("b"), "gone")
		requireValue(t, db.Bucket("b"), "stays", int64(1))
		require.NoError(t, db.InvalidateTags("another"))
	}
}

// Several tags are invalidated at once, by one write of the journal, also in what a crash leaves and without the lock.
func TestInvalidateTags_Several(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		db := open(t, path, &keepcache.Options{CommitInterval: time.Hour, SweepInterval: -1})
		b := db.Bucket("b")
		set := func() {
			for _, tag := range []string{"a", "b", "c"} {
				require.NoError(t, b.WithTags(tag).Set(tag, tag, 0))
			}
		}
		set()
		require.NoError(t, db.InvalidateTags())
		requireValue(t, b, "a", "a")
		require.ErrorIs(t, db.InvalidateTags("a", ""), keepcache.ErrInvalidTag)
		requireValue(t, b, "a", "a")
		before := db.Stats().Journal.Appends
		require.NoError(t, db.InvalidateTags("a", "c", "nobody's", "a"))
		require.Equal(t, before+1, db.Stats().Journal.Appends)
		check := func(b *keepcache.Bucket) {
			requireAbsent(t, b, "a")
			requireValue(t, b, "b", "b")
			requireAbsent(t, b, "c")
		}
		check(b)
		reader := open(t, path, &keepcache.Options{ReadOnly: true, NoLock: true})
		check(reader.Bucket("b"))
		require.NoError(t, reader.Close())
		crashed := open(t, crashCopy(t, path, newPath(t)), nil)
		check(crashed.Bucket("b"))
		require.NoError(t, crashed.Close())
		require.NoError(t, db.Close())
		check(open(t, path, nil).Bucket("b"))
	})
}
