package inspect_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
	"github.com/keepcache/keepcache/internal/wire"
)

// dial returns a client of the socket of the cache at path.
func dial(t *testing.T, path string) *wire.Client {
	c, err := wire.New("unix:" + wire.SocketPath(path))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// TestListen serves beside the file, for its owner alone, until the cache is closed.
func TestListen(t *testing.T) {
	db := open(t, nil)
	require.NoError(t, db.Set("a", 1, 0))
	_, err := inspect.Listen(db, nil)
	require.NoError(t, err)
	info, err := os.Lstat(db.Path() + ".sock")
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		require.Equal(t, os.ModeSocket|0o600, info.Mode())
	}
	c := dial(t, db.Path())
	e, err := c.Entry(t.Context(), "", "a", true)
	require.NoError(t, err)
	require.Equal(t, "1", string(e.Value), "who can open the socket can open the file")
	require.ErrorIs(t, c.Set(t.Context(), wire.Write{Key: "a", Value: []byte("2")}), wire.ErrNoWrites)

	_, err = inspect.Listen(db, nil)
	require.ErrorContains(t, err, "another process serves there", "a live socket is not stolen")
	_, err = c.Hello(t.Context())
	require.NoError(t, err)

	seen := stream(t, c, wire.Watch{})
	watching(t, db, "x", seen)
	begun := time.Now()
	require.NoError(t, db.Close())
	require.Less(t, time.Since(begun), 5*time.Second, "a stream does not hold up Close")
	_, err = os.Lstat(db.Path() + ".sock")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = c.Hello(t.Context())
	require.ErrorIs(t, err, wire.ErrNoServer)
	left, err := filepath.Glob(filepath.Join(filepath.Dir(db.Path()), ".keepcache-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestListen_Stop ends before the cache does, and leaves room for another.
func TestListen_Stop(t *testing.T) {
	db := open(t, nil)
	for range 2 {
		stop, err := inspect.Listen(db, &inspect.Options{})
		require.NoError(t, err)
		c := dial(t, db.Path())
		h, err := c.Hello(t.Context())
		require.NoError(t, err)
		require.False(t, h.Values, "options that are given hold as they are")
		require.NoError(t, stop())
		require.NoError(t, stop())
		_, err = c.Hello(t.Context())
		require.ErrorIs(t, err, wire.ErrNoServer)
	}
}

// TestListen_Stale replaces a socket that a killed process left behind, and nothing else.
func TestListen_Stale(t *testing.T) {
	db := open(t, nil)
	path := wire.SocketPath(db.Path())
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	stop, err := inspect.Listen(db, nil)
	require.NoError(t, err)
	require.NoError(t, stop())

	require.NoError(t, os.WriteFile(path, []byte("mine"), 0o600))
	_, err = inspect.Listen(db, nil)
	require.ErrorContains(t, err, "something else")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "mine", string(text))
}

// TestListen_LongPath serves where the path is longer than a socket's address may be.
func TestListen_LongPath(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("short names of directories are Linux's own")
	}
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	require.NoError(t, os.MkdirAll(dir, 0o700))
	db, err := keepcache.Open(filepath.Join(dir, "app.cache"), nil)
	require.NoError(t, err)
	_, err = inspect.Listen(db, nil)
	require.NoError(t, err)
	c := dial(t, db.Path())
	h, err := c.Hello(context.Background())
	require.NoError(t, err)
	require.Equal(t, db.Path(), string(h.Path))
	require.NoError(t, db.Close())
	_, err = os.Lstat(wire.SocketPath(db.Path()))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestListen_Link leads to one socket, whatever name the cache was opened by.
func TestListen_Link(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	db := open(t, nil)
	if err := os.Symlink(db.Path(), link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	require.Equal(t, wire.SocketPath(db.Path()), wire.SocketPath(link))
}

// TestListen_Moved puts the socket beside the file that was opened, wherever the process is by then, and not into a
// directory that has taken the place of the file's.
func TestListen_Moved(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.Mkdir(at("a"), 0o700))
	require.NoError(t, os.Mkdir(at("b"), 0o700))
	require.NoError(t, os.Symlink(at("a"), at("link")))
	t.Chdir(at("link"))
	db, err := keepcache.Open("app.cache", nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	t.Chdir(at("b"))
	stop, err := inspect.Listen(db, nil)
	require.NoError(t, err)
	require.FileExists(t, at("a/app.cache.sock"))
	for _, path := range []string{at("a/app.cache"), at("link/app.cache"), "../link/app.cache", "../a/app.cache"} {
		h, err := dial(t, path).Hello(t.Context())
		require.NoError(t, err, path)
		require.Equal(t, at("a/app.cache"), string(h.Path))
	}
	require.NoError(t, stop())
	require.NoFileExists(t, at("a/app.cache.sock"))

	if runtime.GOOS == "windows" {
		return // where the directory of an open file cannot be renamed
	}
	require.NoError(t, os.Rename(at("a"), at("moved")))
	require.NoError(t, os.Rename(at("b"), at("a")))
	_, err = inspect.Listen(db, nil)
	require.ErrorContains(t, err, "was renamed")
	left, err := os.ReadDir(at("a"))
	require.NoError(t, err)
	require.Empty(t, left)
}
