//go:build unix

package keepcache_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

func init() {
	children["another user"] = anotherUser
}

// inTime fails the test if fn takes long: it may wait for a pipe for ever.
func inTime(t *testing.T, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("it waits")
		return nil
	}
}

// What lies where a journal or the source of Repair belongs is opened only if it is a regular file: a pipe would keep
// Open waiting past every timeout, and what a link leads to is none of ours.
func TestOpen_JournalNotRegular(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	require.NoError(t, os.WriteFile(elsewhere, []byte("theirs"), 0o600))
	for name, put := range map[string]func(path string) error{
		"pipe": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"link": func(path string) error { return os.Symlink(elsewhere, path) },
	} {
		path := newPath(t)
		db := openUnchecked(t, path)
		require.NoError(t, db.Set("k", "v", 0))
		require.NoError(t, db.Close())
		require.NoError(t, os.RemoveAll(path+"-journal"))
		require.NoError(t, put(path+"-journal"), name)
		for _, o := range []*keepcache.Options{nil, {ReadOnly: true}, {NoLock: true, ReadOnly: true}} {
			err := inTime(t, func() error {
				db, err := keepcache.Open(path, o)
				if err != nil {
					return err
				}
				var v string
				_, err = db.Get("k", &v)
				_ = db.Close()
				return err
			})
			require.ErrorContains(t, err, "not a regular file", name)
		}
		require.NoError(t, os.Remove(path+"-journal"))
		require.NoError(t, os.Rename(path, path+".kept"))
		require.NoError(t, put(path), name)
		err := inTime(t, func() error {
			_, err := keepcache.Repair(t.Context(), path, path+".saved", nil)
			return err
		})
		require.ErrorContains(t, err, "not a regular file", name)
	}
	text, err := os.ReadFile(elsewhere)
	require.NoError(t, err)
	require.Equal(t, "theirs", string(text))
}

// someone and nobody are users and groups of whom the tests own nothing.
const (
	someone = 65533
	nobody  = 65534
)

// anotherUser becomes another user, from root, and does something to the cache at a path.
func anotherUser(t tester, args []string) {
	uid, path := nobody, args[1]
	if args[0] == "someone" {
		uid = someone
	}
	require.NoError(t, syscall.Setgroups(nil))
	require.NoError(t, syscall.Setgid(uid))
	require.NoError(t, syscall.Setuid(uid))
	switch args[2] {
	case "make": // a trap: a cache that everybody may use
		db, err := tryOpen(path, nil)
		require.NoError(t, err)
		require.NoError(t, db.Set("k", "theirs", 0))
		require.NoError(t, db.Close())
		require.NoError(t, os.Chmod(path, 0o666))
	case "touch":
		require.NoError(t, os.WriteFile(path, nil, 0o666))
		require.NoError(t, os.Chmod(path, 0o666))
		old := time.Now().Add(-time.Hour)
		require.NoError(t, os.Chtimes(path, old, old))
	case "use":
		for _, o := range []*keepcache.Options{nil, {ReadOnly: true}, {ReadOnly: true, NoLock: true}} {
			db, err := tryOpen(path, o)
			require.NoError(t, err)
			requireValue(t, db.Bucket("default"), "k", "theirs")
			require.NoError(t, db.Close())
		}
	case "stopped":
		_, err := tryOpen(path, nil)
		require.ErrorContains(t, err, "belongs to another user (user id 65533)")
	case "refused":
		for _, o := range []*keepcache.Options{nil, {ReadOnly: true}, {ReadOnly: true, NoLock: true}} {
			_, err := tryOpen(path, o)
			require.ErrorContains(t, err, "belongs to another user (user id ")
			require.ErrorContains(t, err, "keep the cache in a directory")
		}
	}
}

// In a sticky directory, where everybody may put files, nobody is led to use a file or a journal of another user, and
// what others left is not removed.
func TestOpen_OtherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("it takes root to become others")
	}
	top, err := os.MkdirTemp("", "sticky") // t.TempDir is under a directory that others cannot enter
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	require.NoError(t, os.Chmod(top, 0o755))
	dir := func(name string, mode fs.FileMode) string {
		path := filepath.Join(top, name)
		require.NoError(t, os.Mkdir(path, 0o700))
		require.NoError(t, os.Chmod(path, mode))
		return path
	}
	does := func(who, path, what string) {
		t.Helper()
		require.NoError(t, childCommand("another user", who, path, what).Run(), "%s %s", who, what)
	}
	refused := func(path string) {
		t.Helper()
		for _, o := range []*keepcache.Options{nil, {ReadOnly: true}, {ReadOnly: true, NoLock: true}} {
			_, err := keepcache.Open(path, o)
			require.ErrorContains(t, err, "belongs to another user")
		}
	}
	sticky := dir("tmp", 0o777|fs.ModeSticky)
	trap := filepath.Join(sticky, "app.cache")
	does("nobody", trap, "make")
	does("nobody", trap, "use")
	does("someone", trap, "refused")
	refused(trap) // root as well

	own := filepath.Join(dir("own", 0o777|fs.ModeSticky), "app.cache")
	require.NoError(t, os.Chown(filepath.Dir(own), nobody, -1))
	does("nobody", own, "make")
	does("someone", own, "use") // the owner of the directory may put there what he likes

	shared := filepath.Join(dir("shared", 0o777), "app.cache")
	does("nobody", shared, "make")
	does("someone", shared, "use") // where all may replace each other's files there is nothing to protect

	// A journal that another has put beside one's own file.
	mine := filepath.Join(sticky, "mine.cache")
	db := openUnchecked(t, mine)
	require.NoError(t, db.Close())
	require.NoError(t, os.RemoveAll(mine+"-journal"))
	does("someone", mine+"-journal", "touch")
	_, err = keepcache.Open(mine, nil)
	require.ErrorContains(t, err, "belongs to another user")

	// And the name under which one is made: an owner who is not root cannot take it away.
	theirs := filepath.Join(sticky, "theirs.cache")
	does("nobody", theirs, "make")
	does("someone", theirs+"-journal.new", "touch")
	does("nobody", theirs, "stopped")

	// What looks like left behind is removed only if it is one's own.
	fresh := filepath.Join(sticky, "fresh.cache")
	does("someone", fresh+".new-1", "touch")
	require.NoError(t, os.WriteFile(fresh+".new-2", nil, 0o600))
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(fresh+".new-2", old, old))
	db = openUnchecked(t, fresh)
	require.NoError(t, db.Close())
	require.FileExists(t, fresh+".new-1")
	require.NoFileExists(t, fresh+".new-2")
}
