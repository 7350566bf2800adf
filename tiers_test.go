package keepcache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// A crash before any commit leaves the writes to the journal: the next Open has them all, and the journal is
// gone after its Close.
func TestJournal_Replay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		db := open(t, path, &keepcache.Options{CommitInterval: time.Hour, SweepInterval: -1})
		b := db.Bucket("b")
		mustSet(t, b, "stays", "one", 0)
		mustSet(t, b, "lives", "two", time.Hour)
		mustSet(t, b, "dies", "three", time.Second)
		mustSet(t, b, "changes", "old", 0)
		mustSet(t, b, "changes", "new", 2*time.Hour)
		mustSet(t, b, "goes", "four", 0)
		_, err := b.Delete("goes")
		require.NoError(t, err)
		mustSet(t, db.Bucket("dropped"), "k", 1, 0)
		_, err = db.DropBucket("dropped")
		require.NoError(t, err)
		require.NoError(t, b.SetMany(map[string]any{"m1": 1, "m2": 2.0}, 0))

		crashed := crashCopy(t, path, filepath.Join(t.TempDir(), "crashed"))
		time.Sleep(time.Second)
		db = open(t, crashed, nil)
		b = db.Bucket("b")
		requireValue(t, b, "stays", "one")
		requireValue(t, b, "lives", "two")
		requireValue(t, b, "changes", "new")
		requireValue(t, b, "m1", int64(1))
		requireValue(t, b, "m2", 2.0)
		requireAbsent(t, b, "dies")
		requireAbsent(t, b, "goes")
		ttl, found, err := b.TTL("lives")
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, time.Hour-time.Second, ttl)
		names, err := db.Buckets()
		require.NoError(t, err)
		require.Equal(t, []string{"b"}, names)
	})
}

// A DB that is open for reading only sees what the journal of a crashed one has, and changes neither file.
func TestJournal_Overlay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		db := open(t, path, &keepcache.Options{CommitInterval: time.Hour, SweepInterval: -1})
		fill(t, db.Bucket("b"), 300, 0)
		_, err := db.Sweep(t.Context())
		require.NoError(t, err)
		for i := 0; i < 300; i += 3 {
			_, err := db.Bucket("b").Delete(numbered(i))
			require.NoError(t, err)
			mustSet(t, db.Bucket("b"), numbered(i+1), "overwritten", time.Hour)
			mustSet(t, db.Bucket("b"), numbered(i+1000), "added", 0)
		}
		mustSet(t, db.Bucket("new"), "k", "v", 0)
		want := contents(t, db.Bucket("b"))
		require.Len(t, want, 300)

		crashed := crashCopy(t, path, filepath.Join(t.TempDir(), "crashed"))
		before := readFiles(t, crashed)
		reader, err := keepcache.Open(crashed, &keepcache.Options{ReadOnly: true})
		require.NoError(t, err)
		require.Equal(t, want, contents(t, reader.Bucket("b")))
		n, err := reader.Bucket("b").Len()
		require.NoError(t, err)
		require.Equal(t, 300, n)
		requireValue(t, reader.Bucket("new"), "k", "v")
		names, err := reader.Buckets()
		require.NoError(t, err)
		require.Equal(t, []string{"b", "new"}, names)
		require.ErrorIs(t, reader.Set("k", 1, 0), keepcache.ErrReadOnly)
		require.NoError(t, reader.Sync(t.Context()))
		require.NoError(t, reader.Close())
		require.Equal(t, before, readFiles(t, crashed))
		open(t, crashed, nil)
	})
}

// contents returns what a range over the bucket yields.
func contents(t *testing.T, b *keepcache.Bucket) map[string]any {
	t.Helper()
	all := map[string]any{}
	last := ""
	for e, err := range b.All() {
		require.NoError(t, err)
		require.Less(t, last, e.Key)
		last = e.Key
		var v any
		require.NoError(t, e.Decode(&v))
		all[e.Key] = v
	}
	return all
}

func readFiles(t *testing.T, path string) map[string]string {
	t.Helper()
	files := map[string]string{}
	names, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	for _, name := range names {
		content, err := os.ReadFile(name)
		require.NoError(t, err)
		files[name] = string(content)
	}
	return files
}

// A journal of another cache is put aside, and the cache opens without it.
func TestJournal_Foreign(t *testing.T) {
	path, other := newPath(t), newPath(t)
	db := open(t, path, &keepcache.Options{CommitInterval: time.Hour})
	mustSet(t, db.Bucket("b"), "k", "foreign", 0)
	journal, err := os.ReadFile(path + "-journal")
	require.NoError(t, err)

	own := open(t, other, nil)
	mustSet(t, own.Bucket("b"), "k", "own", 0)
	require.NoError(t, own.Close())
	require.NoError(t, os.WriteFile(other+"-journal", journal, 0o600))
	own = open(t, other, nil)
	requireValue(t, own.Bucket("b"), "k", "own")
	aside, err := filepath.Glob(other + "-journal.aside-*")
	require.NoError(t, err)
	require.Len(t, aside, 1)
	kept, err := os.ReadFile(aside[0])
	require.NoError(t, err)
	require.True(t, bytes.Equal(journal, kept))
	require.NoError(t, os.Remove(aside[0]))
}

// Memory stays within its bound, pinned entries within three quarters of it, and everything is there all the same.
func TestMemory_Bound(t *testing.T) {
	const limit = 1 << 20
	db := newDB(t, &keepcache.Options{MemoryBytes: limit, JournalBytes: 1 << 20, SweepInterval: -1})
	b := db.Bucket("b")
	value := strings.Repeat("v", 1000)
	for i := range 10_000 {
		mustSet(t, b, numbered(i), value, 0)
		if i%100 == 0 {
			m := db.Stats().Memory
			require.LessOrEqual(t, m.PinnedBytes+m.CachedBytes, int64(limit))
			require.LessOrEqual(t, m.PinnedBytes, int64(limit/4*3+2000))
		}
	}
	for i := range 10_000 {
		requireValue(t, b, numbered(i), value)
	}
	s := db.Stats()
	require.LessOrEqual(t, s.Memory.PinnedBytes+s.Memory.CachedBytes, int64(limit))
	require.Positive(t, s.FileHits)
	require.LessOrEqual(t, s.Journal.FileBytes, int64(1<<20))
	n, err := b.Len()
	require.NoError(t, err)
	require.Equal(t, 10_000, n)
}

// A value larger than the journal is committed at once, with everything before it, and survives a crash.
func TestJournal_LargeValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		db := open(t, path, &keepcache.Options{JournalBytes: 256 << 10, CommitInterval: time.Hour})
		large := strings.Repeat("x", 1<<20)
		mustSet(t, db.Bucket("b"), "before", 1, 0)
		mustSet(t, db.Bucket("b"), "large", large, 0)
		mustSet(t, db.Bucket("b"), "after", 2, 0)
		many := map[string]any{}
		for i := range 2000 {
			many[numbered(i)] = strings.Repeat("y", 200)
		}
		require.NoError(t, db.Bucket("b").SetMany(many, 0))

		db = open(t, crashCopy(t, path, filepath.Join(t.TempDir(), "crashed")), nil)
		requireValue(t, db.Bucket("b"), "before", int64(1))
		requireValue(t, db.Bucket("b"), "large", large)
		requireValue(t, db.Bucket("b"), "after", int64(2))
		for key, v := range many {
			requireValue(t, db.Bucket("b"), key, v)
		}
	})
}

// What was set and deleted between two commits costs the file nothing; what the file has already is removed
// from it.
func TestCommit_CameAndWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, &keepcache.Options{CommitInterval: time.Hour, SweepInterval: -1})
		b := db.Bucket("b")
		commit := func() { _, err := db.Sweep(t.Context()); require.NoError(t, err) }
		mustSet(t, b, "old", 1, time.Minute)
		commit()
		require.Equal(t, int64(1), db.Stats().Entries)
		for i := range 1000 {
			mustSet(t, b, numbered(i), i, time.Second)
		}
		mustSet(t, b, "old", 2, time.Second) // earlier than the row that stands
		time.Sleep(time.Second)
		commit()
		require.Zero(t, db.Stats().Entries)
		report := sound(t, db)
		require.Zero(t, report.Rows)
	})
}

// A commit that is due by age comes by itself, and one that is due by size before that.
func TestCommit_AgeAndSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, &keepcache.Options{CommitInterval: time.Minute, CommitBytes: 64 << 10, SweepInterval: -1})
		b := db.Bucket("b")
		mustSet(t, b, "k", 1, 0)
		time.Sleep(59 * time.Second)
		require.Zero(t, db.Stats().Commit.Commits)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, uint64(1), db.Stats().Commit.Commits)
		require.Zero(t, db.Stats().Memory.PinnedBytes)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, uint64(1), db.Stats().Commit.Commits, "an idle cache committed")
		for i := range 100 {
			mustSet(t, b, numbered(i), strings.Repeat("v", 1000), 0)
		}
		synctest.Wait()
		require.Greater(t, db.Stats().Commit.Commits, uint64(1))
	})
}

// SyncPeriodic flushes within the interval, SyncAlways before a write returns, Sync at once.
func TestSync_Modes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		periodic := newDB(t, &keepcache.Options{Sync: keepcache.SyncPeriodic, SyncInterval: time.Second,
			CommitInterval: time.Hour, SweepInterval: -1})
		mustSet(t, periodic.Bucket("b"), "k", 1, 0)
		mustSet(t, periodic.Bucket("b"), "k", 2, 0)
		synctest.Wait()
		require.Zero(t, periodic.Stats().Journal.Flushes)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, uint64(1), periodic.Stats().Journal.Flushes)
		time.Sleep(time.Hour / 2)
		require.Equal(t, uint64(1), periodic.Stats().Journal.Flushes, "an idle cache flushed")
		mustSet(t, periodic.Bucket("b"), "k", 3, 0)
		require.NoError(t, periodic.Sync(t.Context()))
		require.Equal(t, uint64(2), periodic.Stats().Journal.Flushes)

		always := newDB(t, &keepcache.Options{Sync: keepcache.SyncAlways, CommitInterval: time.Hour, SweepInterval: -1})
		for i := range 10 {
			mustSet(t, always.Bucket("b"), "k", i, 0)
			require.Equal(t, uint64(i+1), always.Stats().Journal.Flushes)
		}
	})
}

// SetMany stores all or nothing, GetMany returns what is there, DeleteMany counts what was.
func TestBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, nil)
		b := db.Bucket("b")
		require.NoError(t, b.SetMany(map[string]any{"a": 1, "b": "two", "c": nil}, time.Minute))
		require.NoError(t, b.SetMany(nil, 0))
		mustSet(t, b, "d", 4.5, time.Second)

		err := b.SetMany(map[string]any{"a": "changed", "bad": make(chan int)}, 0)
		require.ErrorIs(t, err, keepcache.ErrUnsupportedValue)
		err = b.SetMany(map[string]any{"a": "changed", "": 1}, 0)
		require.ErrorIs(t, err, keepcache.ErrInvalidKey)
		require.ErrorIs(t, b.SetMany(map[string]any{"a": 1}, -1), keepcache.ErrInvalidTTL)

		entries, err := b.GetMany([]string{"a", "b", "c", "d", "absent", "a"})
		require.NoError(t, err)
		require.Len(t, entries, 4)
		var v any
		require.NoError(t, entries["a"].Decode(&v))
		require.Equal(t, int64(1), v)
		require.NoError(t, entries["c"].Decode(&v))
		require.Nil(t, v)
		_, err = b.GetMany([]string{"a", ""})
		require.ErrorIs(t, err, keepcache.ErrInvalidKey)

		time.Sleep(time.Second)
		deleted, err := b.DeleteMany([]string{"a", "c", "d", "absent", "a"})
		require.NoError(t, err)
		require.Equal(t, 2, deleted)
		deleted, err = b.DeleteMany(nil)
		require.NoError(t, err)
		require.Zero(t, deleted)
		_, err = b.DeleteMany([]string{"b", strings.Repeat("k", keepcache.MaxKeyBytes+1)})
		require.ErrorIs(t, err, keepcache.ErrInvalidKey)
		requireValue(t, b, "b", "two")
		n, err := b.Len()
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}

// Close leaves one file, whatever was on its way, and calls that come later say so.
func TestClose_OneFile(t *testing.T) {
	path := newPath(t)
	db := open(t, path, &keepcache.Options{CommitInterval: time.Hour})
	for i := range 1000 {
		mustSet(t, db.Bucket("b"), numbered(i), i, 0)
	}
	require.FileExists(t, path+"-journal")
	require.NoError(t, db.Close())
	require.NoFileExists(t, path+"-journal")
	require.ErrorIs(t, db.Bucket("b").SetMany(map[string]any{"k": 1}, 0), keepcache.ErrClosed)
	_, err := db.Bucket("b").GetMany([]string{"k"})
	require.ErrorIs(t, err, keepcache.ErrClosed)
	_, err = db.Bucket("b").DeleteMany([]string{"k"})
	require.ErrorIs(t, err, keepcache.ErrClosed)
	require.ErrorIs(t, db.Sync(context.Background()), keepcache.ErrClosed)
}

// Writers, readers and a Close at the same time: what a writer was told to be stored is there after.
func TestClose_UnderLoad(t *testing.T) {
	for _, mode := range []keepcache.SyncMode{keepcache.SyncPeriodic, keepcache.SyncAlways} {
		path := newPath(t)
		db := open(t, path, &keepcache.Options{Sync: mode, MemoryBytes: 256 << 10, JournalBytes: 256 << 10})
		const writers = 8
		stored := make([]int, writers)
		done := make(chan int)
		for w := range writers {
			go func() {
				b := db.Bucket("b")
				for i := 0; ; i++ {
					err := b.Set(fmt.Sprintf("%d-%d", w, i), i, 0)
					if err != nil {
						if !errors.Is(err, keepcache.ErrClosed) {
							t.Error(err)
						}
						stored[w] = i
						done <- w
						return
					}
				}
			}()
		}
		for db.Stats().Sets < 500 {
			time.Sleep(time.Millisecond)
		}
		require.NoError(t, db.Close())
		for range writers {
			<-done
		}
		db = open(t, path, nil)
		for w := range writers {
			for i := range stored[w] {
				requireValue(t, db.Bucket("b"), fmt.Sprintf("%d-%d", w, i), int64(i))
			}
		}
	}
}

// Many writers that wait for room do not all take it at once, nor does one take what another is about to have.
func TestMemory_BoundForMany(t *testing.T) {
	const limit = 4 << 20
	db := newDB(t, &keepcache.Options{MemoryBytes: limit, SweepInterval: -1})
	value := make([]byte, 200<<10)
	var writers sync.WaitGroup
	for writer := range 32 {
		writers.Go(func() {
			for i := range 10 {
				if err := db.Bucket("b").SetBytes(numbered(writer*10+i), value, 0); err != nil {
					t.Error(err)
				}
				if pinned := db.Stats().Memory.PinnedBytes; pinned > limit/4*3 {
					t.Errorf("%d bytes are pinned", pinned)
				}
			}
		})
	}
	writers.Wait()
}

// That a key was absent is forgotten as soon as it is written, also when memory no longer has what was written.
func TestMemory_Absent(t *testing.T) {
	const n = 3000
	db := open(t, newPath(t), &keepcache.Options{MemoryBytes: 1 << 20, SweepInterval: -1})
	b, value := db.Bucket("b"), strings.Repeat("v", 1000)
	mustSet(t, b, "other", 1, 0)
	committed(t, db)
	for round := range 3 {
		for range 2 {
			for i := range n {
				requireAbsent(t, b, numbered(i))
			}
		}
		for i := range n {
			mustSet(t, b, numbered(i), fmt.Sprint(round, i, value), 0)
		}
		committed(t, db)
		before := db.Stats().FileHits
		for i := range n {
			requireValue(t, b, numbered(i), fmt.Sprint(round, i, value))
		}
		require.Greater(t, db.Stats().FileHits-before, uint64(n/2), "most must have left memory")
		for i := range n {
			found, err := b.Delete(numbered(i))
			require.NoError(t, err)
			require.True(t, found)
		}
		if round == 1 {
			committed(t, db)
		}
	}
	added, err := b.Add(numbered(0), 1, 0)
	require.NoError(t, err)
	require.True(t, added)
}
