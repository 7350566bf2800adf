package denied_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

func init() { cachetest.Children["compact on full disk"] = compactOnFullDisk }

// compactOnFullDisk asks for copies that have no room.
func compactOnFullDisk(t cachetest.Tester, args []string) {
	if err := syscall.Mount("tmpfs", args[0], "tmpfs", 0, fmt.Sprint("size=", diskSize)); err != nil {
		fmt.Println("skip")
		return
	}
	path := filepath.Join(args[0], "test.cache")
	db := cachetest.Open(t, path, &keepcache.Options{CompactBytes: -1, JournalBytes: 1 << 20, MemoryBytes: 1 << 20})
	b := db.Bucket("b")
	for i := range 5000 {
		require.NoError(t, b.Set(cachetest.Numbered(i), strings.Repeat("v", 1000), time.Hour))
	}
	for _, err := range []error{db.Compact(context.Background()), db.Backup(context.Background(), os.Stderr)} {
		require.ErrorContains(t, err, "the disk has no room for a copy")
	}
	beside, err := filepath.Glob(path + ".*")
	require.NoError(t, err)
	require.Empty(t, beside)
	cachetest.Sound(t, db)
	for i := range 5000 {
		if i%10 > 0 {
			_, err := b.Delete(cachetest.Numbered(i))
			require.NoError(t, err)
		}
	}
	require.NoError(t, db.Compact(context.Background())) // now the copy is small
	require.Less(t, cachetest.FileSize(t, path), int64(4<<20))
	cachetest.Sound(t, db)
	require.NoError(t, db.Close())
}

// Without room for the copy a compaction and a backup are refused, with nothing left of them.
func TestCompact_FullDisk(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	cmd := cachetest.ChildCommand("compact on full disk", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.Output()
	if errors.Is(err, syscall.EPERM) || string(out) == "skip\n" {
		t.Skip("mounting is not allowed here")
	}
	require.NoError(t, err, string(out))
}
