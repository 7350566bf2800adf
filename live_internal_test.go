package keepcache

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/store"
)

// What happens while a read without the lock is under way makes it read again, whatever it has taken already.
func TestLive_ReadsAgain(t *testing.T) {
	large := bytes.Repeat([]byte("x"), 200_000) // goes past the journal
	for name, disturb := range map[string]func(*testing.T, *DB) string{
		"a commit": func(t *testing.T, db *DB) string {
			require.NoError(t, db.Set("k", "new", 0))
			require.NoError(t, db.local().commits.commit())
			return "new"
		},
		"a write into the journal, and a transaction that leaves the mark": func(t *testing.T, db *DB) string {
			require.NoError(t, db.Set("k", "new", 0))
			require.NoError(t, db.local().store.Update(func(tx *bolt.Tx) error { return tx.Bucket(format.MetaBucket).Put([]byte("test"), nil) }))
			return "new"
		},
		"a write that is in no journal": func(t *testing.T, db *DB) string {
			require.NoError(t, db.main.SetBytes("k", large, 0))
			return string(large)
		},
		"a compaction, and a Close that removes the journal": func(t *testing.T, db *DB) string {
			if !store.CanReplace {
				t.Skip("an open file cannot be replaced")
			}
			require.NoError(t, db.Compact(t.Context()))
			require.NoError(t, db.Set("k", "new", 0))
			require.NoError(t, db.Close())
			return "new"
		},
		"a bucket that comes with a write that is in no journal": func(t *testing.T, db *DB) string {
			_, err := db.DropBucket(DefaultBucket)
			require.NoError(t, err)
			require.NoError(t, db.main.SetBytes("k", large, 0))
			return string(large)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "test.cache")
			db, err := Open(path, &Options{JournalBytes: 64 << 10, SweepInterval: -1, CommitInterval: 1 << 40})
			require.NoError(t, err)
			defer db.Close()
			require.NoError(t, db.Set("k", "old", 0))
			l, err := openLive(nil, path)
			require.NoError(t, err)
			tail := newTail(DefaultBucket)
			calls, want := 0, ""
			var got []byte
			require.NoError(t, l.look(tail, func(v *liveView) error {
				rec, known := tail.find(v.id(), "k", v.mark)
				if !known {
					entries, err := v.entries(v.id())
					require.NoError(t, err)
					stored, _, err := entries.Get([]byte("k"))
					require.NoError(t, err)
					_, rec = format.SplitRow(stored, []byte("k"))
				}
				got = format.Value(rec)
				if calls++; calls == 1 {
					want = disturb(t, db)
				}
				return nil
			}))
			require.GreaterOrEqual(t, calls, 2)
			require.True(t, bytes.HasSuffix(got, []byte(want)), "%.20q", got)
		})
	}
}

// A reader without the lock that has gone on in a directory that came back lets go of that one, and moves nowhere any more.
func TestLive_CloseMoved(t *testing.T) {
	if !store.CanReplace {
		t.Skip("the directory of an open file cannot be removed")
	}
	path := filepath.Join(t.TempDir(), "in", "test.cache")
	fill := func() {
		require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
		db, err := Open(path, nil)
		require.NoError(t, err)
		require.NoError(t, db.Set("k", "v", 0))
		require.NoError(t, db.Close())
	}
	fill()
	db, err := Open(path, &Options{ReadOnly: true, NoLock: true})
	require.NoError(t, err)
	was := db.engine.backend.(*live).dir.Load()
	require.NoError(t, os.RemoveAll(filepath.Dir(path)))
	fill()
	found, err := db.Exists("k")
	require.NoError(t, err)
	require.True(t, found)
	now := db.engine.backend.(*live).dir.Load()
	require.NotSame(t, was, now)
	require.NoError(t, db.Close())
	for _, dir := range []*disk.Dir{was, now} {
		_, err := dir.Lstat(path)
		require.ErrorIs(t, err, fs.ErrClosed)
	}
	require.False(t, db.engine.backend.(*live).move(now, was))
}
