package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// everyInDir makes each call of a Dir once, under the paths that files had when it was opened, and returns the errors.
func everyInDir(t *testing.T, d *Dir, dir string) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	f, name, err := d.CreateTemp(at("temp-"))
	if note(err); err == nil {
		require.Equal(t, at("temp-"), name[:len(at("temp-"))])
		note(f.Close())
		note(d.Rename(name, at("a")))
	}
	f, err = d.OpenFile(at("a"), os.O_RDWR|os.O_CREATE, 0o600)
	if note(err); err == nil {
		note(f.Close())
	}
	note(d.Link(at("a"), at("b")))
	info, err := d.Lstat(at("b"))
	if note(err); err == nil {
		require.Equal(t, "b", info.Name())
	}
	note(d.Chtimes(at("a"), time.Time{}, time.Unix(1e9, 0)))
	note(d.Remove(at("b")))
	note(d.Sync(at("a")))
	if errors.Join(errs...) == nil {
		require.Equal(t, []string{at("a")}, d.Beside(at("")+string(filepath.Separator)))
		require.Empty(t, d.Beside(at("b")))
	}
	return errors.Join(errs...)
}

// A directory that is held open is the same under another name, and whatever takes its path is left alone.
func TestDir_Renamed(t *testing.T) {
	if !canHold {
		t.Skip("directories go by their paths here")
	}
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	at := filepath.Join(root, "d")
	require.NoError(t, os.Mkdir(at, 0o700))
	d, real, err := OpenDir(filepath.Join(at, "f"))
	require.NoError(t, err)
	defer d.Close()
	require.Equal(t, filepath.Join(at, "f"), real)
	require.NoError(t, everyInDir(t, d, at))
	require.False(t, d.Moved())
	require.NoError(t, os.Rename(at, at+"2"))
	require.True(t, d.Moved())
	require.False(t, d.Removed())
	require.NoError(t, os.Mkdir(at, 0o700))
	require.NoError(t, everyInDir(t, d, at))
	require.True(t, d.Moved())
	again, err := d.Again()
	require.NoError(t, err)
	require.NoError(t, everyInDir(t, again, at))
	require.NoError(t, again.Close())
	left, err := os.ReadDir(at)
	require.NoError(t, err)
	require.Empty(t, left)

	_, err = d.Lstat(filepath.Join(at, "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, filepath.Join(at, "none"))
	require.ErrorContains(t, d.Rename(filepath.Join(at, "none"), filepath.Join(at, "a")), filepath.Join(at, "none"))
	require.Error(t, d.Remove(filepath.Join(root, "d2", "a")), "a path of another directory")
	require.Error(t, d.Rename(filepath.Join(at, "a"), filepath.Join(root, "a")))

	require.NoError(t, os.RemoveAll(at+"2"))
	require.True(t, d.Removed())
	require.ErrorIs(t, everyInDir(t, d, at), fs.ErrNotExist)
	require.NoError(t, d.Close())
	require.ErrorIs(t, everyInDir(t, d, at), fs.ErrClosed)
}

// A directory that cannot be held open is used as long as its path leads to it.
func TestDir_NotHeld(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	at := filepath.Join(root, "d")
	require.NoError(t, os.Mkdir(at, 0o700))
	info, err := os.Stat(at)
	require.NoError(t, err)
	d := &Dir{path: at, info: info}
	require.NoError(t, everyInDir(t, d, at))
	require.NoError(t, os.Rename(at, at+"2"))
	require.NoError(t, os.Mkdir(at, 0o700))
	require.True(t, d.Moved())
	require.False(t, d.Removed(), "it may be anywhere")
	require.ErrorIs(t, everyInDir(t, d, at), ErrElsewhere)
	require.Nil(t, d.Beside(at))
	require.NoError(t, errors.Join(os.Remove(at), os.Rename(at+"2", at)))
	require.NoError(t, everyInDir(t, d, at))
	require.NoError(t, d.Close())

	// No directory at all.
	require.NoError(t, everyInDir(t, nil, at))
}

// What Between returns is what the caller gets, and it learns of every call but those that need no record.
func TestDir_Between(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	d, _, err := OpenDir(filepath.Join(root, "f"))
	require.NoError(t, err)
	defer d.Close()
	seen := map[Kind]int{}
	Between = func(op *Op, do func() error) error {
		seen[op.Kind]++
		require.True(t, filepath.IsAbs(op.Path))
		return do()
	}
	defer func() { Between = nil }()
	require.NoError(t, everyInDir(t, d, root))
	require.Equal(t, map[Kind]int{KindCreate: 2, KindRename: 1, KindLink: 1, KindStat: 1, KindRemove: 1, KindSyncDir: 1},
		seen)
}

// A path is made absolute and free of links, but for the file itself.
func TestResolve(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it has other paths")
	}
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	at := func(name string) string { return filepath.Join(root, name) }
	require.NoError(t, os.MkdirAll(at("x/y/z"), 0o700))
	require.NoError(t, os.Symlink("x/y", at("link")))
	require.NoError(t, os.Symlink("../link", at("x/chain")))
	require.NoError(t, os.Symlink("loop", at("loop")))
	require.NoError(t, os.Symlink("nowhere", at("x/y/file")))
	t.Chdir(at("link"))
	for path, want := range map[string]string{
		"f": "x/y/f", "./f": "x/y/f", "z/f": "x/y/z/f", "../f": "x/f", "z/../f": "x/y/f", "..//y/./f": "x/y/f",
		"../chain/f":    "x/y/f",
		"../chain/../f": "x/f", "../../link/../f": "x/f", "file": "x/y/file", at("link/f"): "x/y/f",
		root + "/link/../f": "x/f", "...": "x/y/...",
	} {
		got, err := Resolve(path)
		require.NoError(t, err, path)
		require.Equal(t, at(want), got, path)
	}
	for _, path := range []string{"", ".", "..", "z/", "z/.", "z/..", "/", "none/f", at("loop/f"), "file/f"} {
		_, err := Resolve(path)
		require.Error(t, err, path)
	}
}
