package keepcache_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
)

func identityOf(t tester, path string) (id []byte) {
	withBolt(t, path, true, func(tx *bolt.Tx) error {
		id = bytes.Clone(tx.Bucket([]byte("meta")).Get([]byte("identity")))
		return nil
	})
	return id
}

// A backup is a whole cache with everything that was written before it, without free pages and with an identity of
// its own, although the cache is written to meanwhile and what it goes to is slow.
func TestBackup(t *testing.T) {
	path := newPath(t)
	db := kibibytes(t, path, 3000, &keepcache.Options{CommitInterval: time.Hour, CompactBytes: -1})
	require.NoError(t, db.Bucket("b1").Clear(t.Context()))
	mustSet(t, db.Bucket("b0"), "pinned", 1, time.Hour)
	copyPath := filepath.Join(t.TempDir(), "copy.cache")
	out, err := os.OpenFile(copyPath, os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	logRecords := 0
	slow := writerFunc(func(p []byte) (int, error) {
		mustSet(t, db.Bucket("b0"), "later", 1, 0)
		if logRecords++; runtime.GOOS != "windows" && logRecords%8 == 1 {
			require.NoError(t, db.Compact(t.Context())) // nothing is held back
		}
		return out.Write(p)
	})
	require.NoError(t, db.Backup(t.Context(), slow))
	require.NoError(t, out.Close())
	beside, err := filepath.Glob(path + ".*")
	require.NoError(t, err)
	require.Empty(t, beside)

	restored := open(t, copyPath, nil)
	sound(t, restored)
	requireValue(t, restored.Bucket("b0"), "pinned", int64(1))
	requireAbsent(t, restored.Bucket("b0"), "later")
	n, err := restored.Bucket("b2").Len()
	require.NoError(t, err)
	require.Equal(t, 1000, n)
	mustSet(t, restored.Bucket("new"), "k", 1, 0)
	require.NoError(t, restored.Close())
	require.NoError(t, db.Close())
	require.NotEqual(t, identityOf(t, path), identityOf(t, copyPath))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A cache that is open for reading only can be backed up, with what a crash has left in its journal, and is not
// changed.
func TestBackup_ReadOnly(t *testing.T) {
	path := crashed(t, func(db *keepcache.DB) {
		mustSet(t, db.Bucket("b"), "journal", 2, time.Hour)
		_, err := db.Bucket("b").Delete("first")
		require.NoError(t, err)
		require.NoError(t, db.Bucket("new").WithTags("t").Set("k", 3, 0))
		require.NoError(t, db.InvalidateTags("t"))
	})
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	db := open(t, path, &keepcache.Options{ReadOnly: true})
	var out bytes.Buffer
	require.NoError(t, db.Backup(t.Context(), &out))
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(before, after))
	require.FileExists(t, path+"-journal")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, db.Backup(ctx, io.Discard), context.Canceled)
	t.Run("without the lock, and with no room for a copy", func(t *testing.T) {
		for _, name := range []string{"TMPDIR", "TMP"} { // the second on Windows
			t.Setenv(name, filepath.Join(filepath.Dir(path), "none"))
		}
		requireError(t, beside(t, path).Backup(t.Context(), io.Discard), errors.ErrUnsupported, "backup", path)
	})

	copied := filepath.Join(t.TempDir(), "copy.cache")
	require.NoError(t, os.WriteFile(copied, out.Bytes(), 0o600))
	restored := open(t, copied, nil)
	sound(t, restored)
	requireValue(t, restored.Bucket("b"), "journal", int64(2))
	requireAbsent(t, restored.Bucket("b"), "first")
	requireAbsent(t, restored.Bucket("new"), "k")
	names, err := restored.Buckets()
	require.NoError(t, err)
	require.Equal(t, []string{"b", "new"}, names)
}

// A backup ends with its context, with its writer's error and with the cache, and leaves nothing.
func TestBackup_Ended(t *testing.T) {
	path := newPath(t)
	db := kibibytes(t, path, 3000, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, db.Backup(ctx, io.Discard), context.Canceled)
	full := errors.New("full")
	requireError(t, db.Backup(t.Context(), writerFunc(func([]byte) (int, error) { return 0, full })), full, "backup", path)
	require.NoError(t, db.Close())
	require.ErrorIs(t, db.Backup(t.Context(), io.Discard), keepcache.ErrClosed)
	beside, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	require.Equal(t, []string{path}, beside)
}
