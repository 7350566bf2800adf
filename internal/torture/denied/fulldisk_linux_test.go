package denied_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

// The size of the disk, and that of the largest file, in the tests below, in bytes. bbolt grows its file by
// 16 MiB at a time, in holes that take no room on a disk but count for the limit.
const (
	diskSize  = 12 << 20
	fileLimit = 40 << 20
)

func init() {
	cachetest.Children["full disk"] = fullDisk
	cachetest.Children["file size limit"] = fileSizeLimit
	cachetest.Children["sweep on full disk"] = sweepOnFullDisk
}

// On a full disk a write fails with the cause and changes nothing, reads go on, and writes too when there
// is room again; nothing is left of a cache that could not be created.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	cmd := cachetest.ChildCommand("full disk", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.Output()
	if errors.Is(err, syscall.EPERM) || string(out) == "skip\n" {
		t.Skip("mounting is not allowed here")
	}
	require.NoError(t, err, string(out))
}

// A limit on the size of files is met as a full disk is.
func TestFullDisk_FileSizeLimit(t *testing.T) {
	t.Parallel()
	cmd := cachetest.ChildCommand("file size limit", t.TempDir())
	cmd.Stdout = os.Stdout
	require.NoError(t, cmd.Run())
}

func fullDisk(t cachetest.Tester, args []string) {
	dir := args[0]
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=", diskSize)); err != nil {
		fmt.Println("skip")
		return
	}
	ballast := filepath.Join(dir, "ballast")
	content := make([]byte, diskSize/2)
	require.NoError(t, os.WriteFile(ballast, content, 0o600))
	runFull(t, filepath.Join(dir, "test.cache"), syscall.ENOSPC, func() { require.NoError(t, os.Remove(ballast)) })

	// No room to create one.
	rest, err := os.Create(ballast)
	require.NoError(t, err)
	for err == nil {
		_, err = rest.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	path := filepath.Join(dir, "new.cache")
	_, err = cachetest.TryOpen(path, nil)
	cachetest.RequireError(t, err, syscall.ENOSPC, "open", path)
	left, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, rest.Close())
	require.NoError(t, os.Remove(ballast))
	require.NoError(t, cachetest.Open(t, path, nil).Set("k", 1, 0))
}

func fileSizeLimit(t cachetest.Tester, args []string) {
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit))
	set := func(bytes uint64) {
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: bytes, Max: limit.Max}))
	}
	set(fileLimit)
	runFull(t, filepath.Join(args[0], "test.cache"), syscall.EFBIG, func() { set(limit.Cur) })

	set(4096)
	path := filepath.Join(args[0], "new.cache")
	_, err := cachetest.TryOpen(path, nil)
	cachetest.RequireError(t, err, syscall.EFBIG, "open", path)
	left, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	require.Empty(t, left)
	set(limit.Cur)
}

// runFull fills the cache at path until writes fail with cause, looks that nothing is lost, makes room,
// and goes on.
func runFull(t cachetest.Tester, path string, cause error, makeRoom func()) {
	small := &keepcache.Options{MemoryBytes: 2 << 20, JournalBytes: 2 << 20} // so that the disk is met soon
	db, err := cachetest.TryOpen(path, small)
	require.NoError(t, err)
	b := db.Bucket("b")
	cachetest.MustSet(t, b, "old", "value", time.Hour)
	cachetest.MustSet(t, b, "brief", "value", time.Millisecond)
	value := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 300_000) }
	fill, n := error(nil), 0
	for ; fill == nil; n++ {
		require.Less(t, n, 2*fileLimit/300_000, "the disk is not small")
		fill = b.SetBytes(cachetest.Numbered(n), value(n), time.Hour)
	}
	n--
	failed := func(err error, op string) {
		var e *keepcache.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, op, e.Op)
		require.Equal(t, path, e.Path)
		require.ErrorContains(t, err, cause.Error())
		require.NotErrorIs(t, err, keepcache.ErrUnknownOutcome)
	}
	failed(fill, "set")
	require.ErrorIs(t, fill, keepcache.ErrNoRoom)
	require.ErrorContains(t, fill, cachetest.Numbered(n))

	intact := func(b *keepcache.Bucket) {
		cachetest.RequireValue(t, b, "old", "value")
		cachetest.RequireAbsent(t, b, cachetest.Numbered(n))
		for i := range n {
			got, found, err := b.GetBytes(cachetest.Numbered(i))
			require.NoError(t, err)
			require.True(t, found)
			require.True(t, bytes.Equal(value(i), got))
		}
	}
	failed(b.SetBytes("old", make([]byte, 10<<20), time.Second), "set")
	_, err = b.Add(cachetest.Numbered(n), make([]byte, 10<<20), 0)
	failed(err, "add")
	// A load is no outage: what it brings is handed out, and that it could not be stored is counted.
	var loaded []byte
	_, err = b.GetOrLoad(context.Background(), cachetest.Numbered(n), &loaded,
		func(context.Context, *keepcache.Load) (any, error) {
			return make([]byte, 10<<20), nil
		}, nil)
	require.NoError(t, err)
	require.Len(t, loaded, 10<<20)
	require.Equal(t, uint64(1), db.Stats().Loads.CacheErrors)
	intact(b)
	ttl, _, err := b.TTL("old")
	require.NoError(t, err)
	require.Greater(t, ttl, 50*time.Minute)
	cachetest.Sound(t, db)
	require.NotZero(t, db.Stats().Commit.Failed)

	// Closed while the disk is full, it is whole.
	_ = db.Close()
	db, err = cachetest.TryOpen(path, &keepcache.Options{ReadOnly: true})
	require.NoError(t, err)
	intact(db.Bucket("b"))
	cachetest.Sound(t, db)
	require.NoError(t, db.Close())

	makeRoom()
	db = cachetest.Open(t, path, nil)
	b = db.Bucket("b")
	intact(b)
	require.NoError(t, b.SetBytes("old", make([]byte, 1<<20), time.Second))
	_, err = db.Sweep(context.Background())
	require.NoError(t, err)
	deleted, err := b.DeletePrefix(context.Background(), "k")
	require.NoError(t, err)
	require.Equal(t, n, deleted)
	cachetest.Sound(t, db)
	require.NoError(t, db.Close())
}

// sweepOnFullDisk lets entries expire while no write to the file succeeds.
func sweepOnFullDisk(t cachetest.Tester, args []string) {
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit))
	var log bytes.Buffer
	db := cachetest.Open(t, filepath.Join(args[0], "test.cache"), &keepcache.Options{
		SweepInterval: time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	cachetest.Fill(t, db.Bucket("b"), 100, time.Second)
	cachetest.Committed(t, db)
	until := func(what string, done func(keepcache.SweepStats) bool) {
		for end := time.Now().Add(20 * time.Second); !done(db.Stats().Sweep); time.Sleep(time.Millisecond) {
			require.True(t, time.Now().Before(end), "waited in vain for %s: %+v", what, db.Stats().Sweep)
		}
	}
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 4096, Max: limit.Max}))
	until("failing sweeps", func(s keepcache.SweepStats) bool { return s.Err != nil && s.Lag > 20*time.Millisecond })
	cachetest.RequireAbsent(t, db.Bucket("b"), cachetest.Numbered(0))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
	until("the sweep", func(s keepcache.SweepStats) bool { return s.Err == nil && s.Removed == 100 })
	require.NoError(t, db.Close())
	require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("sweep failed")), "logged at the first failure alone: %s",
		log.String())
}

// While the disk is full the sweeper tries on, says so in Stats and once in the log, and recovers by itself.
func TestSweep_FullDisk(t *testing.T) {
	t.Parallel()
	cmd := cachetest.ChildCommand("sweep on full disk", t.TempDir())
	cmd.Stdout = os.Stdout
	require.NoError(t, cmd.Run())
}
