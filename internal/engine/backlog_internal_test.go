package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
)

// killedCache makes a cache as a killed process leaves it: some entries, tags and buckets are in the file, later ones
// only in the journal. With cut, a commit was interrupted after its first transaction.
func killedCache(t *testing.T, cut bool) (path string) {
	dir := t.TempDir()
	at := filepath.Join(dir, "living.cache")
	db := open(t, at, Config{CommitInterval: time.Hour, CommitBytes: 1 << 30, SweepInterval: -1, CompactBytes: Unlimited})
	set := func(name, key string, value any, ttl time.Duration) {
		require.NoError(t, db.Bucket(name).WithTags(name).Set(key, value, ttl))
	}
	for i := range 100 {
		set("b", fmt.Sprint("key", i), "old", time.Hour)
	}
	for _, name := range []string{"cleared", "cleared twice", "dropped", "made anew", "invalid", "invalid before"} {
		set(name, "before", 1, 0)
	}
	require.NoError(t, db.Sweep(t.Context())) // commits too

	for i := range 50 {
		set("b", fmt.Sprint("key", i), "new", 0)
	}
	require.NoError(t, db.Bucket("b").DeleteMany([]string{"key1", "key98", "key99"}))
	require.NoError(t, db.Bucket("b").Touch("key97", time.Minute))
	require.NoError(t, db.Bucket("b").Increment("sum", 5))
	require.NoError(t, db.Bucket("b").Increment("sum", 6))
	clear := func(name string) {
		set(name, "late", 1, 0)
		_, err := db.Replace(name, false)
		require.NoError(t, err)
		set(name, "after", 1, 0)
	}
	clear("cleared")
	clear("cleared twice")
	clear("cleared twice")
	for _, name := range []string{"dropped", "made anew"} {
		_, err := db.Replace(name, true)
		require.NoError(t, err)
	}
	set("made anew", "between", 1, 0)
	_, err := db.Replace("made anew", true)
	require.NoError(t, err)
	require.NoError(t, db.InvalidateTags([]string{"invalid"}))
	for _, name := range []string{"made anew", "new", "invalid"} {
		set(name, "after", 1, 0)
	}
	set("large", "after", make([]byte, 200<<10), 0)
	require.NoError(t, db.InvalidateTags([]string{"invalid before"}))

	path = filepath.Join(dir, "killed.cache")
	if !cut {
		copyCache(t, at, path)
		require.NoError(t, db.Close())
		return path
	}
	st := db.writer.position()
	require.NoError(t, st.journal.Flush(st.mark))
	pins, _ := split(db.memory.Collect(nil, false), st.names)
	memory.SortPins(pins)
	changes, _ := changesOf(nil, pins[:len(pins)-1])
	require.NoError(t, db.store.Apply(st.names, 0, changes, db.commits.committed(), nil))
	clear("cleared")
	copyCache(t, at, path)
	require.NoError(t, db.Close())
	return path
}

// requireKilled fails unless db has what killedCache left.
func requireKilled(t *testing.T, db *cache) {
	b := db.Bucket("b")
	for i := range 100 {
		want := "old"
		if i < 50 {
			want = "new"
		}
		var got string
		found, err := b.Get(fmt.Sprint("key", i), &got)
		require.NoError(t, err)
		require.Equal(t, i != 1 && i < 98, found, i)
		require.True(t, !found || got == want, "%d is %s", i, got)
	}
	r, err := db.Read(&b.at, "key97", false)
	require.NoError(t, err)
	require.True(t, r.Live)
	require.LessOrEqual(t, format.Remaining(db.Now(), r.Header.ExpiresAt), time.Minute)
	var sum int
	_, err = b.Get("sum", &sum)
	require.NoError(t, err)
	require.Equal(t, 11, sum)
	all, err := b.All()
	require.NoError(t, err)
	require.Len(t, all, 98)
	for name, key := range map[string]string{
		"cleared": "after", "cleared twice": "after", "made anew": "after", "new": "after", "invalid": "after",
		"large": "after", "dropped": "", "invalid before": "",
	} {
		var got []string
		all, err := db.Bucket(name).All()
		require.NoError(t, err)
		for _, e := range all {
			got = append(got, e.Key)
		}
		require.Equal(t, key, strings.Join(got, " "), name)
	}
	report, err := db.Verify(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Problems)
}

// What a killed process has left in the journal is there as soon as the cache is open, before it is in the file. It is
// still there if the next process is killed in turn, and the one after that.
func TestBacklog(t *testing.T) {
	if !store.CanReplace {
		t.Skip("an open file cannot be replaced")
	}
	for _, cut := range []bool{false, true} {
		path := killedCache(t, cut)
		conf := Config{CommitInterval: time.Hour, SweepInterval: -1}
		last := uint64(0)
		for range 3 {
			db := open(t, path, conf)
			require.Less(t, db.commits.committed(), db.Revision(), "nothing was committed")
			require.LessOrEqual(t, last, db.Revision())
			require.NoError(t, db.Bucket("other").Set("k", 1, 0))
			last = db.Revision()
			copyCache(t, path, path+"next")
			requireKilled(t, db) // commits too
			require.NoError(t, db.Close())
			path += "next"
		}
		// A reader sees the same, and the commit has the same result.
		readOnly := open(t, path, Config{ReadOnly: true})
		requireKilled(t, readOnly)
		require.NoError(t, readOnly.Close())
		db := open(t, path, conf)
		last = db.Revision()
		require.NoError(t, db.Sweep(t.Context()))
		require.GreaterOrEqual(t, db.commits.committed(), last)
		requireKilled(t, db)
		report, err := db.Verify(t.Context())
		require.NoError(t, err)
		require.Zero(t, report.Pending, "the sweeper knows of all that was cleared")
		require.NoError(t, db.Close())
		require.NoFileExists(t, path+"-journal")
		db = open(t, path, conf)
		requireKilled(t, db)
		require.NoError(t, db.Close())
	}
}

// If the journal can have no successor, because the disk is full or the journal has too much for one, all of it goes
// into the file at once.
func TestBacklog_NoSuccessor(t *testing.T) {
	for name, test := range map[string]struct {
		fails func(op *disk.Op) bool
		conf  Config
	}{
		"not made": {fails: func(op *disk.Op) bool {
			return op.Kind == disk.KindCreate && strings.HasSuffix(op.Path, "-journal.new")
		}},
		"not written": {fails: func(op *disk.Op) bool {
			return op.Kind == disk.KindWrite && strings.HasSuffix(op.File.Name(), "-journal.new") && op.Off > 0
		}},
		"not flushed": {fails: func(op *disk.Op) bool {
			return op.Kind == disk.KindSync && strings.HasSuffix(op.File.Name(), "-journal.new")
		}},
		"not renamed": {fails: func(op *disk.Op) bool {
			return op.Kind == disk.KindRename && strings.HasSuffix(op.To, "-journal")
		}},
		"too large": {conf: Config{JournalBytes: 64 << 10}, fails: func(*disk.Op) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			path := killedCache(t, true)
			failing, failed := true, 0
			disk.Between = func(op *disk.Op, do func() error) error {
				if failing && test.fails(op) {
					failed++
					return &os.PathError{Op: string(op.Kind), Path: path, Err: syscall.ENOSPC}
				}
				return do()
			}
			defer func() { disk.Between = nil }()
			test.conf.CommitInterval, test.conf.SweepInterval = time.Hour, -1
			db := open(t, path, test.conf)
			failing = false
			require.True(t, failed > 0 || !store.CanReplace || name == "too large")
			require.Equal(t, db.Revision(), db.commits.committed())
			require.NoFileExists(t, path+"-journal.new")
			requireKilled(t, db)
			require.NoError(t, db.Bucket("other").Set("k", 1, 0))
			require.NoError(t, db.Close())
		})
	}
}

// A commit may write entries of a bucket that was created after the commit read the names. If the process is killed
// then, the next one does not take the bucket for a cleared one.
func TestBacklog_UnnamedBucket(t *testing.T) {
	dir := t.TempDir()
	at, path := filepath.Join(dir, "living.cache"), filepath.Join(dir, "killed.cache")
	conf := Config{CommitInterval: time.Hour, SweepInterval: -1, CompactBytes: Unlimited}
	db := open(t, at, conf)
	require.NoError(t, db.Bucket("b").Set("k", 1, 0))
	st := db.writer.position()
	require.NoError(t, db.Bucket("new").Set("k", 1, 0))
	pins := db.memory.Collect(nil, false)
	require.NoError(t, st.journal.Flush(db.writer.lastRevision()))
	_, err := db.commits.transact(st.names, nil, pins, st.mark, st.journal, false)
	require.NoError(t, err)
	copyCache(t, at, path)
	require.NoError(t, db.Close())

	for range 2 {
		db := open(t, path, conf)
		require.NoError(t, db.Sweep(t.Context()))
		report, err := db.Verify(t.Context())
		require.NoError(t, err)
		require.Empty(t, report.Problems)
		require.Equal(t, 2, report.Entries)
		require.NoError(t, db.Close())
	}
}

// The name of the successor is on disk before anything depends on it: a Sync, a commit, and every write after
// SyncInterval.
func TestBacklog_Name(t *testing.T) {
	if !store.CanReplace {
		t.Skip("an open file cannot be replaced")
	}
	for name, call := range map[string]func(db *cache) error{
		"Sync":     func(db *cache) error { return db.Flush() },
		"commit":   func(db *cache) error { return db.commits.commit() },
		"interval": func(*cache) error { time.Sleep(syncInterval + time.Millisecond); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			path := killedCache(t, false)
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var after []disk.Kind // after the rename
				disk.Between = func(op *disk.Op, do func() error) error {
					mu.Lock()
					defer mu.Unlock()
					switch {
					case op.Kind == disk.KindRename && strings.HasSuffix(op.To, "-journal"):
						after = []disk.Kind{}
					case after != nil && (op.Kind == disk.KindSync || op.Kind == disk.KindSyncDir):
						after = append(after, op.Kind)
					}
					return do()
				}
				defer func() { disk.Between = nil }()
				db := open(t, path, Config{CommitInterval: time.Hour, SweepInterval: -1})
				require.NoError(t, call(db))
				synctest.Wait()
				mu.Lock()
				require.Equal(t, []disk.Kind{disk.KindSync, disk.KindSyncDir}, after)
				mu.Unlock()
				require.NoError(t, db.Close())
			})
		})
	}
}

// With little memory, what the journal has goes into the file at once: otherwise writers would wait long for room.
func TestBacklog_LittleMemory(t *testing.T) {
	path := killedCache(t, false)
	db := open(t, path, Config{MemoryBytes: 64 << 10, CommitInterval: time.Hour, SweepInterval: -1})
	require.Equal(t, db.Revision(), db.commits.committed())
	requireKilled(t, db)
	require.NoError(t, db.Close())
}
