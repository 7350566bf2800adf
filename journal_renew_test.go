package keepcache_test

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// Where something stands in the place of the journal, so that there can be none after one that failed, the file takes
// what is written, and nothing fails for that: neither writes in a row, nor what commits first and has nothing to
// commit, nor Close. Once the place is free there is a journal again.
func TestJournal_NotRenewed(t *testing.T) {
	skipOnWindows(t, "a file that is open cannot be removed")
	for name, o := range map[string]keepcache.Options{
		"periodic":         {},
		"always":           {Sync: keepcache.SyncAlways},
		"without interval": {CommitInterval: -1, SweepInterval: -1},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "cache")
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				db, err := keepcache.Open(path, &o)
				require.NoError(t, err)
				b := db.Bucket("b")
				mustSet(t, b, "first", 1, 0)
				require.NoError(t, os.Remove(path+"-journal"))
				require.NoError(t, os.Mkdir(path+"-journal", 0o700))
				time.Sleep(3 * time.Second)
				for i := range 40 {
					start := time.Now()
					require.NoError(t, b.Set(numbered(i), i, 0))
					require.Less(t, time.Since(start), time.Second)
					time.Sleep(7 * time.Millisecond)
				}
				time.Sleep(3 * time.Second)
				require.True(t, db.Stats().Journal.Failed)
				for range 2 { // idle
					require.NoError(t, db.Sync(ctx))
					_, err = db.Sweep(ctx)
					require.NoError(t, err)
					require.NoError(t, db.Backup(ctx, io.Discard))
					require.NoError(t, db.Compact(ctx))
				}
				require.Zero(t, db.Stats().Commit.Failed)
				require.NoError(t, db.Stats().Commit.Err)

				require.NoError(t, os.Remove(path+"-journal"))
				mustSet(t, b, "last", 1, 0)
				synctest.Wait() // the new journal is made right after the commit for which that write waited
				require.False(t, db.Stats().Journal.Failed)
				mustSet(t, b, "last", 2, 0)
				require.NoError(t, os.Remove(path+"-journal"))
				require.NoError(t, os.Mkdir(path+"-journal", 0o700))
				time.Sleep(3 * time.Second)
				_ = db.Sync(ctx) // notices that
				require.NoError(t, db.Close())
			})
			require.NoError(t, os.RemoveAll(path+"-journal"))
			db := open(t, path, nil)
			n, err := db.Bucket("b").Len()
			require.NoError(t, err)
			require.Equal(t, 42, n)
			requireValue(t, db.Bucket("b"), "last", int64(2))
		})
	}
}

// The same where it is the first write that finds the place taken.
func TestJournal_NotMade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	var log syncBuffer
	db := open(t, path, &keepcache.Options{CommitInterval: -1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, os.Mkdir(path+"-journal", 0o700))
	for i := range 5 {
		mustSet(t, db.Bucket("b"), numbered(i), i, 0)
	}
	require.NoError(t, db.Sync(t.Context()))
	require.True(t, db.Stats().Journal.Failed)
	require.NoError(t, os.Remove(path+"-journal"))
	mustSet(t, db.Bucket("b"), "last", 1, 0)
	require.Eventually(t, func() bool { return !db.Stats().Journal.Failed }, time.Minute, time.Millisecond,
		"made right after the commit")
	require.NoError(t, db.Close())
	require.Equal(t, 1, strings.Count(log.String(), "there can be no journal"))
}
