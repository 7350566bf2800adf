package disk_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/disk"
)

// every makes each call once, in a directory of its own, and returns the errors by kind.
func every(t *testing.T) map[disk.Kind]error {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(at("a"), []byte("content"), 0o600))
	errs := map[disk.Kind]error{}
	note := func(kind disk.Kind, err error) { errs[kind] = errors.Join(errs[kind], err) }

	f, err := disk.OpenFile(at("a"), os.O_RDWR, 0)
	note(disk.KindOpen, err)
	if err != nil {
		f, err = os.OpenFile(at("a"), os.O_RDWR, 0)
		require.NoError(t, err)
	}
	b := make([]byte, 4)
	_, err = disk.ReadAt(f, b, 0)
	note(disk.KindRead, err)
	_, err = disk.In(f).ReadAt(b, 0)
	note(disk.KindRead, err)
	_, err = disk.WriteAt(f, []byte("new"), 2)
	note(disk.KindWrite, err)
	note(disk.KindTruncate, disk.Truncate(f, 4))
	note(disk.KindSync, disk.Sync(f))
	note(disk.KindSync, disk.Datasync(f))
	mem, err := disk.Map(f, 0, 4, func() ([]byte, error) { return b, nil })
	note(disk.KindMap, err)
	note(disk.KindUnmap, disk.Unmap(mem, func([]byte) error { return nil }))
	if err = disk.Close(f); err != nil {
		f.Close()
	}
	note(disk.KindClose, err)
	f, err = disk.CreateTemp(dir, "temp-*")
	note(disk.KindCreate, err)
	f.Close()
	f, err = disk.OpenFile(at("b"), os.O_RDWR|os.O_CREATE, 0o600)
	note(disk.KindCreate, err)
	f.Close()
	note(disk.KindLink, disk.Link(at("a"), at("c")))
	note(disk.KindRename, disk.Rename(at("a"), at("d")))
	note(disk.KindSyncDir, disk.SyncDir(dir))
	_, err = disk.Stat(at("d"))
	note(disk.KindStat, err)
	note(disk.KindRemove, disk.Remove(at("d")))
	return errs
}

// Each call does what the one of package os does, and tells Between what it is.
func TestBetween(t *testing.T) {
	for kind, err := range every(t) {
		require.NoError(t, err, kind)
	}
	seen := map[disk.Kind]int{}
	disk.Between = func(op *disk.Op, do func() error) error {
		seen[op.Kind]++
		err := do()
		switch op.Kind {
		case disk.KindOpen, disk.KindCreate:
			require.Equal(t, op.Path, op.File.Name())
		case disk.KindRead, disk.KindWrite:
			require.Equal(t, len(op.Data), op.N)
		case disk.KindMap:
			require.Len(t, op.Data, 4)
		}
		return err
	}
	defer func() { disk.Between = nil }()
	errs := every(t)
	for kind, err := range errs {
		require.NoError(t, err, kind)
		require.NotZero(t, seen[kind], kind)
	}
	require.Len(t, seen, len(errs))

	// What Between returns is what the caller gets, also where the call was made.
	for _, made := range []bool{false, true} {
		disk.Between = func(_ *disk.Op, do func() error) error {
			if made {
				_ = do()
			}
			return io.ErrUnexpectedEOF
		}
		for kind, err := range every(t) {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, kind)
		}
	}
}
