package denied_test

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
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

func init() {
	cachetest.Children["unknown clear"] = func(t cachetest.Tester, args []string) { unknownOutcome(t, args, "clear") }
	cachetest.Children["unknown first write"] = func(t cachetest.Tester,
		args []string) {
		unknownOutcome(t, args, "first")
	}
}

// After a Clear whose outcome is unknown, what is set and acknowledged is not lost.
func TestUnknown_Clear(t *testing.T) {
	t.Parallel()
	cmd := cachetest.ChildCommand("unknown clear", t.TempDir())
	cmd.Stdout = os.Stdout
	require.NoError(t, cmd.Run())
}

// After a first write whose outcome is unknown, the bucket has one id in memory and in the file.
func TestUnknown_FirstWrite(t *testing.T) {
	t.Parallel()
	cmd := cachetest.ChildCommand("unknown first write", t.TempDir())
	cmd.Stdout = os.Stdout
	require.NoError(t, cmd.Run())
}

func unknownOutcome(t cachetest.Tester, args []string, what string) {
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit))
	path := filepath.Join(args[0], "test.cache")
	var full atomic.Bool // the disk is to be full from the next flush of the journal on
	disk.Between = func(op *disk.Op, do func() error) error {
		if op.Kind == disk.KindSync && strings.HasSuffix(op.File.Name(), "-journal") && full.CompareAndSwap(true, false) {
			require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 4096, Max: limit.Max}))
		}
		return do()
	}
	db, err := cachetest.TryOpen(path,
		&keepcache.Options{Sync: keepcache.SyncAlways, CommitInterval: time.Hour, SweepInterval: -1})
	require.NoError(t, err)
	b := db.Bucket("b")
	cachetest.MustSet(t, b, "old", 1, 0)
	_, err = db.Sweep(context.Background())
	require.NoError(t, err)
	cachetest.MustSet(t, b, "pinned", 1, 0)
	// The journal is removed under us, and the disk is full for a moment when that is noticed.
	require.NoError(t, os.Remove(path+"-journal"))
	full.Store(true)
	if what == "clear" {
		err = b.Clear(context.Background())
	} else {
		err = db.Bucket("new").Set("k", "first", 0)
	}
	require.ErrorIs(t, err, keepcache.ErrUnknownOutcome)
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
	time.Sleep(300 * time.Millisecond) // this is a process of its own, in real time: a failed commit is tried again
	if what == "clear" {
		cachetest.MustSet(t, b, "after1", 1, 0) // acknowledged
		cachetest.MustSet(t, b, "after2", 2, 0)
		_, err = db.Sweep(context.Background())
		require.NoError(t, err)
		cachetest.MustSet(t, b, "after3", 3, 0)
		_, err = db.Sweep(context.Background())
		require.NoError(t, err)
		require.NoError(t, db.Close())
		db, err = cachetest.TryOpen(path, nil)
		require.NoError(t, err)
		for _, k := range []string{"after1", "after2", "after3"} {
			found, err := db.Bucket("b").Exists(k)
			require.NoError(t, err)
			require.True(t, found, "acknowledged %s is lost", k)
		}
		require.NoError(t, db.Close())
		return
	}
	n := db.Bucket("new")
	found, err := n.Exists("k")
	require.NoError(t, err)
	require.True(t, found)
	cachetest.MustSet(t, n, "other", 1, 0)
	_, err = db.Sweep(context.Background())
	require.NoError(t, err)
	_, err = db.Sweep(context.Background())
	require.NoError(t, err)
	r, err := db.Verify(context.Background())
	require.NoError(t, err)
	require.Zero(t, r.Pending)
}
