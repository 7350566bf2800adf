//go:build unix

package keepcache_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

func init() {
	children["lock holder"] = lockHolder
	children["unprivileged"] = unprivileged
}

// What is no regular file is refused without being opened: a pipe would block, a device do anything.
func TestOpen_NotRegular(t *testing.T) {
	path := newPath(t)
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	require.ErrorContains(t, requireRefused(t, path, nil), "not a regular file")
	require.NoError(t, os.Remove(path))

	dir, err := os.MkdirTemp("", "s") // a socket's path must be short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, err := net.Listen("unix", dir+"/socket")
	require.NoError(t, err)
	requireRefused(t, dir+"/socket", nil)
	require.NoError(t, socket.Close())

	_, err = tryOpen("/dev/null", nil)
	require.ErrorContains(t, err, "not a regular file")
}

// lockHolder keeps a cache open until its standard input ends.
func lockHolder(t tester, args []string) {
	open(t, args[0], nil)
	fmt.Println("open")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
}

// A cache that another process has open gives ErrLocked in time, with the pid where the system tells it.
func TestOpen_LockedByProcess(t *testing.T) {
	path := newPath(t)
	cmd := childCommand("lock holder", path)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "open\n", line)

	start := time.Now()
	_, err = tryOpen(path, &keepcache.Options{LockTimeout: 100 * time.Millisecond})
	requireError(t, err, keepcache.ErrLocked, "open", path)
	require.Less(t, time.Since(start), time.Second)
	if runtime.GOOS == "linux" {
		require.ErrorContains(t, err, fmt.Sprint("process ", cmd.Process.Pid))
	}
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
	require.NoError(t, open(t, path, nil).Set("k", 1, 0))
}

// unprivileged opens what its user must not touch, in the directory it is given.
func unprivileged(t tester, args []string) {
	require.NoError(t, os.Chdir(args[0]))
	if os.Getuid() == 0 {
		require.NoError(t, syscall.Setgroups(nil))
		require.NoError(t, syscall.Setgid(nobody))
		require.NoError(t, syscall.Setuid(nobody))
	}
	refused := func(path string, opts *keepcache.Options) {
		_, err := tryOpen(path, opts)
		requireError(t, err, fs.ErrPermission, "open", path)
		var e *keepcache.Error
		require.True(t, errors.As(err, &e) && e.Hint != "", err)
	}
	refused("new.cache", nil)        // the directory cannot be written
	refused("readable.cache", nil)   // the file cannot be written
	refused("unreadable.cache", nil) // nor even read
	refused("unreadable.cache", &keepcache.Options{ReadOnly: true})

	db, err := tryOpen("readable.cache", &keepcache.Options{ReadOnly: true})
	require.NoError(t, err)
	requireValue(t, db.Bucket("default"), "k", "v")
	require.NoError(t, db.Close())
}

// Where permissions forbid it Open fails with fs.ErrPermission and writes nothing; reading needs no right to write.
func TestOpen_Permissions(t *testing.T) {
	path := newPath(t)
	dir := strings.TrimSuffix(path, "test.cache")
	for name, mode := range map[string]fs.FileMode{"readable.cache": 0o444, "unreadable.cache": 0} {
		db := openUnchecked(t, dir+name)
		require.NoError(t, db.Set("k", "v", 0))
		require.NoError(t, db.Close())
		require.NoError(t, os.Chmod(dir+name, mode))
	}
	require.NoError(t, os.Chmod(dir, 0o555))
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	before := ""
	if os.Getuid() == 0 {
		before = fmt.Sprint(snapshot(t, path))
	}
	cmd := childCommand("unprivileged", dir)
	cmd.Stdout = os.Stdout
	require.NoError(t, cmd.Run())
	if os.Getuid() == 0 {
		require.Equal(t, before, fmt.Sprint(snapshot(t, path)))
	}
}
