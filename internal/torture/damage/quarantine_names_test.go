package damage_test

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

// A bucket that was dropped is not listed again where the journal failed before it could take that, and so has only
// that the bucket was made: the table of the damaged file is later. One whose making the journal alone has is there.
func TestQuarantine_Names(t *testing.T) {
	cachetest.SkipOnWindows(t, "an open file cannot be replaced")
	var broken atomic.Bool
	disk.Between = func(op *disk.Op, do func() error) error {
		name := op.Path
		if op.File != nil {
			name = op.File.Name()
		}
		if broken.Load() && strings.Contains(name, "-journal") && op.Kind != disk.KindClose {
			return &os.PathError{Op: string(op.Kind), Path: name, Err: syscall.EIO}
		}
		return do()
	}
	t.Cleanup(func() { disk.Between = nil })
	path := cachetest.NewPath(t)
	db := cachetest.Open(t, path, &keepcache.Options{
		CommitInterval: time.Hour, SyncInterval: time.Hour, SweepInterval: -1, CompactBytes: -1, MemoryBytes: 4 << 20,
		JournalBytes: 4 << 20,
	})
	cachetest.Fill(t, db.Bucket("a"), 500, 0)
	cachetest.Committed(t, db)
	cachetest.MustSet(t, db.Bucket("dropped"), "k", 1, 0)
	cachetest.MustSet(t, db.Bucket("made"), "k", 1, 0)
	require.NoError(t, db.Sync(context.Background()))
	before := cachetest.CrashCopy(t, path, cachetest.NewPath(t))

	broken.Store(true)
	cachetest.MustSet(t, db.Bucket("made"), "more", 1, 0)
	_ = db.Sync(context.Background()) // meets the failure, and has everything go into the file
	cachetest.Committed(t, db)        // the next commit is not taken for this one, which could not renew the journal
	found, err := db.DropBucket("dropped")
	require.NoError(t, err)
	require.True(t, found)
	after := cachetest.CrashCopy(t, path, cachetest.NewPath(t))
	broken.Store(false)

	for at, want := range map[string][]string{before: {"a", "dropped", "made"}, after: {"a", "made"}} {
		content, err := os.ReadFile(at)
		require.NoError(t, err)
		for page := range slices.Chunk(content, os.Getpagesize()) {
			if bytes.Contains(page, []byte(cachetest.Numbered(100))) {
				clear(page)
			}
		}
		require.NoError(t, os.WriteFile(at, content, 0o600))
		db := cachetest.Open(t, at, nil)
		require.Equal(t, uint64(1), db.Stats().Health.Quarantined)
		names, err := db.Buckets()
		require.NoError(t, err)
		require.Equal(t, want, names)
	}
}
