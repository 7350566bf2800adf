package keepcache_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/disk"
)

// Close leaves one file also where the journal failed at the last moment, once the file has everything.
func TestClose_FailedJournal(t *testing.T) {
	var broken atomic.Bool
	disk.Between = func(op *disk.Op, do func() error) error {
		if op.Kind == disk.KindSync && strings.HasSuffix(op.File.Name(), "-journal") && broken.Load() {
			return &os.PathError{Op: "sync", Path: op.File.Name(), Err: syscall.EIO}
		}
		return do()
	}
	defer func() { disk.Between = nil }()
	path := filepath.Join(t.TempDir(), "cache")
	db, err := keepcache.Open(path, &keepcache.Options{CommitInterval: -1, SyncInterval: -1, SweepInterval: -1})
	require.NoError(t, err)
	mustSet(t, db.Bucket("b"), "k", 1, 0)
	require.FileExists(t, path+"-journal")
	broken.Store(true)
	require.NoError(t, db.Close())
	require.NoFileExists(t, path+"-journal")
	broken.Store(false)
	requireValue(t, open(t, path, nil).Bucket("b"), "k", int64(1))
}

// What has come into the place of the failed journal and is no journal of this cache stays there.
func TestClose_ForeignJournal(t *testing.T) {
	skipOnWindows(t, "a file that is open cannot be replaced")
	dir := t.TempDir()
	o := &keepcache.Options{CommitInterval: -1, SyncInterval: -1, SweepInterval: -1}
	mustSet(t, open(t, filepath.Join(dir, "other"), o).Bucket("b"), "k", 1, 0)
	foreign, err := os.ReadFile(filepath.Join(dir, "other-journal"))
	require.NoError(t, err)
	for _, is := range [][]byte{foreign, []byte("a note")} {
		path := filepath.Join(t.TempDir(), "cache")
		db, err := keepcache.Open(path, o)
		require.NoError(t, err)
		mustSet(t, db.Bucket("b"), "k", 1, 0)
		require.NoError(t, os.Remove(path+"-journal"))
		require.NoError(t, os.WriteFile(path+"-journal", is, 0o600))
		require.NoError(t, db.Close())
		now, err := os.ReadFile(path + "-journal")
		require.NoError(t, err)
		require.Equal(t, is, now)
	}
}
