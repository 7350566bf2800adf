//go:build unix

package keepcache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// pathCases are run in processes of their own, each in a fresh directory that is their working directory: where that is
// belongs to a whole process.
var pathCases = map[string]func(t tester, dir string){
	"chdir":                pathChdir,
	"chdir, nothing there": pathChdirNothing,
	"chdir, read only":     pathChdirReaders,
	"link turned":          pathLinkTurned,
	"spellings":            pathSpellings,
	"renamed":              pathRenamed,
	"renamed, long":        pathRenamedLong,
	"renamed, readers":     pathRenamedReaders,
	"removed":              pathRemoved,
	"removed, taken":       pathRemovedTaken,
	"removed, poisoned":    pathRemovedPoisoned,
	"repair and backup":    pathCopies,
	"refused":              pathRefused,
}

func init() {
	children["path"] = func(t tester, args []string) {
		require.NoError(t, os.Chdir(args[1]))
		pathCases[args[0]](t, args[1])
	}
}

// A cache is the file that Open found or made, whatever becomes of the working directory, of links and of directories.
func TestPath(t *testing.T) {
	for name := range pathCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := filepath.EvalSymlinks(t.TempDir())
			require.NoError(t, err)
			cmd := childCommand("path", name, dir)
			cmd.Stdout = os.Stdout
			require.NoError(t, cmd.Run())
		})
	}
}

// foreignCache makes a cache in dir, which it makes too, and returns a function that requires that nothing has touched
// it.
func foreignCache(t tester, dir string) (untouched func()) {
	require.NoError(t, os.MkdirAll(dir, 0o700))
	dir, err := filepath.Abs(dir)
	require.NoError(t, err)
	path := filepath.Join(dir, "app.cache")
	db, err := keepcache.Open(path, nil)
	require.NoError(t, err)
	require.NoError(t, db.Set("k", "foreign", 0))
	require.NoError(t, db.Close())
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	return func() {
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(before, after), "the file of another cache has changed")
		now, err := os.Stat(path)
		require.NoError(t, err)
		require.True(t, os.SameFile(info, now), "the file of another cache was replaced")
		require.Equal(t, []string{"app.cache"}, namesIn(t, dir))
	}
}

func namesIn(t tester, dir string) []string {
	names := []string{}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// holds requires that the closed cache at path has n entries of fillPath, and nothing beside it.
func holds(t tester, path string, n int) {
	db, err := keepcache.Open(path, nil)
	require.NoError(t, err)
	for i := range n {
		requireValue(t, db.Bucket("b"), numbered(i), int64(i))
	}
	require.Zero(t, db.Stats().Health.Quarantined)
	require.NoError(t, db.Close())
	checkFile(t, path)
	require.Equal(t, []string{filepath.Base(path)}, namesIn(t, filepath.Dir(path)))
}

func pathChdir(t tester, dir string) {
	require.NoError(t, os.Mkdir("a", 0o700))
	untouched := foreignCache(t, "b")
	require.NoError(t, os.Chdir("a"))
	db, err := keepcache.Open("app.cache", &keepcache.Options{CommitInterval: time.Hour})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "a", "app.cache"), db.Path())
	fill(t, db.Bucket("b"), 500, 0)
	require.NoError(t, os.Chdir("../b"))
	db.Heal()
	require.Zero(t, db.Stats().Health.Failures)
	fill(t, db.Bucket("b"), 1000, 0)
	require.NoError(t, db.Compact(context.Background()))
	var backup bytes.Buffer
	require.NoError(t, db.Backup(context.Background(), &backup))
	for _, other := range []string{"../a/app.cache", filepath.Join(dir, "a/app.cache")} {
		_, err = keepcache.Open(other, &keepcache.Options{LockTimeout: -1})
		require.ErrorIs(t, err, keepcache.ErrLocked)
	}
	fill(t, db.Bucket("b"), 1500, 0)
	require.NoError(t, os.Chdir("/"))
	require.NoError(t, db.Close())
	require.NoError(t, os.Chdir(filepath.Join(dir, "b")))
	untouched()
	holds(t, filepath.Join(dir, "a", "app.cache"), 1500)
}

func pathChdirNothing(t tester, dir string) {
	require.NoError(t, errors.Join(os.Mkdir("a", 0o700), os.Mkdir("b", 0o700), os.Chdir("a")))
	db, err := keepcache.Open("app.cache", nil)
	require.NoError(t, err)
	require.NoError(t, os.Chdir("../b"))
	fill(t, db.Bucket("b"), 300, 0)
	db.Heal()
	require.NoError(t, db.Close())
	require.Empty(t, namesIn(t, "."))
	holds(t, filepath.Join(dir, "a", "app.cache"), 300)
}

func pathChdirReaders(t tester, dir string) {
	require.NoError(t, errors.Join(os.Mkdir("a", 0o700)))
	untouched := foreignCache(t, "b")
	require.NoError(t, os.Chdir("a"))
	db, err := keepcache.Open("app.cache", nil)
	require.NoError(t, err)
	require.NoError(t, db.Set("k", "ours", 0))
	reader, err := keepcache.Open("app.cache", &keepcache.Options{NoLock: true, ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, os.Chdir("../b"))
	requireValue(t, reader.Bucket(keepcache.DefaultBucket), "k", "ours")
	require.NoError(t, db.Close())
	require.NoError(t, os.Chdir("../a"))
	sharing, err := keepcache.Open("app.cache", &keepcache.Options{ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, os.Chdir("../b"))
	sharing.Heal()
	requireValue(t, sharing.Bucket(keepcache.DefaultBucket), "k", "ours")
	require.Error(t, sharing.PanicInView())
	sharing.Heal()
	requireValue(t, sharing.Bucket(keepcache.DefaultBucket), "k", "ours")
	require.NoError(t, errors.Join(sharing.Close(), reader.Close()))
	require.ErrorIs(t, errOf(reader.Exists("k")), keepcache.ErrClosed)
	require.NoError(t, os.Chdir(dir))
	untouched()
}

func pathLinkTurned(t tester, dir string) {
	require.NoError(t, errors.Join(os.MkdirAll("releases/1", 0o700), os.Symlink("releases/1", "current")))
	old, err := keepcache.Open("current/app.cache", nil) // which makes it
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "releases/1/app.cache"), old.Path())
	fill(t, old.Bucket("b"), 100, 0)
	untouched := foreignCache(t, "releases/2")
	require.NoError(t, errors.Join(os.Symlink("releases/2", "next"), os.Rename("next", "current")))
	old.Heal()
	fill(t, old.Bucket("b"), 300, 0)
	committed(t, old)
	require.NoError(t, old.Close())
	untouched()
	holds(t, filepath.Join(dir, "releases/1/app.cache"), 300)
	holds(t, "releases/2/app.cache", 0)
}

func pathSpellings(t tester, dir string) {
	require.NoError(t, errors.Join(
		os.MkdirAll("deep/er/a", 0o700), os.Symlink("deep/er/a", "link"), os.Symlink("../link", "deep/chain"),
		os.MkdirAll("elsewhere/a", 0o700), os.Chdir("deep"),
		os.Setenv("PWD", filepath.Join(dir, "deep")),
	))
	spellings := []string{
		"er/a/app.cache", "./er//a/./app.cache", "../link/app.cache", "chain/app.cache", "er/a/../a/app.cache",
		"chain/../a/app.cache",
		filepath.Join(dir, "link/app.cache"), dir + "/link/../a/app.cache", "../deep/../link/app.cache",
	}
	for _, made := range spellings {
		db, err := keepcache.Open(made, nil)
		require.NoError(t, err, made)
		require.Equal(t, filepath.Join(dir, "deep/er/a/app.cache"), db.Path(), made)
		for _, again := range spellings {
			_, err := keepcache.Open(again, &keepcache.Options{LockTimeout: -1})
			require.ErrorIs(t, err, keepcache.ErrLocked, "%s and %s", made, again)
		}
		require.NoError(t, db.Close())
		require.NoError(t, os.Remove("er/a/app.cache"))
	}
	// A working directory whose name has a link in it, and a path that goes up from there.
	require.NoError(t, errors.Join(os.Chdir(filepath.Join(dir, "link")), os.Setenv("PWD", filepath.Join(dir, "link"))))
	db, err := keepcache.Open("../a/app.cache", nil)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "deep/er/a/app.cache"), db.Path())
	require.NoError(t, db.Close())
}

func pathRenamed(t tester, dir string) {
	require.NoError(t, os.MkdirAll("p/a", 0o700))
	db, err := keepcache.Open("p/a/app.cache", &keepcache.Options{CommitInterval: time.Hour})
	require.NoError(t, err)
	fill(t, db.Bucket("b"), 100, 0)
	require.NoError(t, os.Rename("p/a", "p/moved"))
	require.True(t, db.Stats().Health.Moved)
	untouched := foreignCache(t, "p/a")
	db.Heal()
	fill(t, db.Bucket("b"), 200, 0)
	require.NoError(t, db.Compact(context.Background()))
	db.FailSync(os.ErrInvalid)
	db.Heal()
	require.Zero(t, db.Stats().Health.Quarantined)
	require.False(t, db.Stats().Health.Unavailable)
	fill(t, db.Bucket("b"), 300, 0)
	_, err = keepcache.Open("p/moved/app.cache", &keepcache.Options{LockTimeout: -1})
	require.ErrorIs(t, err, keepcache.ErrLocked)
	require.NoError(t, os.Rename("p", "q"))
	fill(t, db.Bucket("b"), 400, 0)
	require.NoError(t, db.Close())
	require.NoError(t, os.Rename("q", "p"))
	untouched()
	holds(t, "p/moved/app.cache", 400)
}

// With a journal that is lost and made anew, and a file that is removed in the directory that was renamed.
func pathRenamedLong(t tester, dir string) {
	require.NoError(t, os.Mkdir("a", 0o700))
	db, err := keepcache.Open("a/app.cache", &keepcache.Options{JournalBytes: 64 << 10})
	require.NoError(t, err)
	fill(t, db.Bucket("b"), 100, 0)
	require.NoError(t, os.Rename("a", "moved"))
	untouched := foreignCache(t, "a")
	require.NoError(t, errors.Join(os.Remove("moved/app.cache"), os.Remove("moved/app.cache-journal")))
	db.Heal()
	require.Equal(t, uint64(1), db.Stats().Health.Healed)
	_ = db.Sync(context.Background())
	fill(t, db.Bucket("b"), 200, 0)
	committed(t, db)
	require.NoError(t, db.Set("k", bytes.Repeat([]byte("x"), 1<<20), 0)) // too large for the journal
	fill(t, db.Bucket("b"), 300, 0)
	require.NoError(t, db.Close())
	untouched()
	holds(t, "moved/app.cache", 300)
}

func pathRenamedReaders(t tester, dir string) {
	require.NoError(t, os.Mkdir("a", 0o700))
	db, err := keepcache.Open("a/app.cache", nil)
	require.NoError(t, err)
	b := db.Bucket("b")
	mustSet(t, b, "k", "before", 0)
	reader, err := keepcache.Open("a/app.cache", &keepcache.Options{NoLock: true, ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, os.Rename("a", "moved"))
	untouched := foreignCache(t, "a")
	requireValue(t, reader.Bucket("b"), "k", "before")
	mustSet(t, b, "k", "after", 0)
	requireValue(t, reader.Bucket("b"), "k", "after")
	committed(t, db)
	require.NoError(t, db.Compact(context.Background()))
	requireValue(t, reader.Bucket("b"), "k", "after")
	require.NoError(t, db.Close())
	require.NoError(t, reader.Close())
	sharing, err := keepcache.Open("moved/app.cache", &keepcache.Options{ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, os.Rename("moved", "again"))
	sharing.Heal()
	require.Error(t, sharing.PanicInView())
	sharing.Heal()
	requireValue(t, sharing.Bucket("b"), "k", "after")
	require.NoError(t, sharing.Close())
	untouched()
}

func pathRemoved(t tester, dir string) {
	require.NoError(t, os.MkdirAll("p/a", 0o700))
	db, err := keepcache.Open("p/a/app.cache", nil)
	require.NoError(t, err)
	fill(t, db.Bucket("b"), 500, 0)
	committed(t, db)
	reader, err := keepcache.Open("p/a/app.cache", &keepcache.Options{NoLock: true, ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll("p"))
	db.Heal()
	health := db.Stats().Health
	require.True(t, health.Unavailable)
	require.ErrorContains(t, health.Err, "its directory was removed")
	requireValue(t, db.Bucket("b"), numbered(7), int64(7)) // the open file is read on
	require.Error(t, errOf(reader.Bucket("b").Exists(numbered(7))))
	require.True(t, reader.Stats().Health.Moved)

	require.NoError(t, os.MkdirAll("p/a", 0o700))
	db.Heal()
	require.False(t, db.Stats().Health.Unavailable, "%v", db.Stats().Health.Err)
	require.False(t, db.Stats().Health.Moved)
	fill(t, db.Bucket("b"), 600, 0)
	requireValue(t, reader.Bucket("b"), numbered(7), int64(7))
	requireValue(t, reader.Bucket("b"), numbered(599), int64(599))
	require.False(t, reader.Stats().Health.Moved)
	require.NoError(t, db.Set("k", 1, 0))
	require.FileExists(t, "p/a/app.cache-journal")
	require.NoError(t, errors.Join(reader.Close(), db.Close()))
	holds(t, "p/a/app.cache", 600)
}

func pathRemovedTaken(t tester, dir string) {
	require.NoError(t, os.Mkdir("a", 0o700))
	db, err := keepcache.Open("a/app.cache", nil)
	require.NoError(t, err)
	fill(t, db.Bucket("b"), 500, 0)
	committed(t, db)
	require.NoError(t, os.RemoveAll("a"))
	untouched := foreignCache(t, "a")
	db.Heal()
	require.True(t, db.Stats().Health.Unavailable)
	require.ErrorContains(t, db.Stats().Health.Err, "another cache")
	untouched()
	// Nor is a journal alone taken for ours.
	require.NoError(t, os.Rename("a/app.cache", "a/app.cache-journal"))
	db.Heal()
	require.True(t, db.Stats().Health.Unavailable)
	require.NoError(t, os.Rename("a/app.cache-journal", "a/app.cache"))
	untouched()
	require.NoError(t, os.Rename("a", "theirs"))
	require.NoError(t, os.Symlink("theirs", "a"))
	db.Heal()
	require.True(t, db.Stats().Health.Unavailable, "a link is not the directory that was removed")
	require.NoError(t, errors.Join(os.Remove("a"), os.Mkdir("a", 0o700)))
	db.Heal()
	require.False(t, db.Stats().Health.Unavailable)
	require.NoError(t, db.Close())
	require.Equal(t, []string{"app.cache"}, namesIn(t, "theirs"))
	holds(t, "a/app.cache", 500)
}

func pathRemovedPoisoned(t tester, dir string) {
	require.NoError(t, os.Mkdir("a", 0o700))
	db, err := keepcache.Open("a/app.cache", nil)
	require.NoError(t, err)
	fill(t, db.Bucket("b"), 100, 0)
	require.NoError(t, os.RemoveAll("a"))
	untouched := foreignCache(t, "a")
	require.Error(t, db.PanicInView())
	db.Heal()
	require.True(t, db.Stats().Health.Unavailable)
	untouched()
	require.NoError(t, errors.Join(os.Rename("a", "b"), os.Mkdir("a", 0o700)))
	db.Heal()
	require.False(t, db.Stats().Health.Unavailable, "%v", db.Stats().Health.Err)
	require.NoError(t, db.Close())
	require.Equal(t, []string{"app.cache"}, namesIn(t, "b"))
	holds(t, "a/app.cache", 100) // memory had all of it
}

func pathCopies(t tester, dir string) {
	require.NoError(t, errors.Join(os.MkdirAll("a", 0o700), os.Mkdir("b", 0o700)))
	db, err := keepcache.Open("a/app.cache", nil)
	require.NoError(t, err)
	fill(t, db.Bucket("b"), 100, 0)
	require.NoError(t, os.Rename("a", "moved"))
	require.NoError(t, os.Mkdir("a", 0o700))
	require.NoError(t, db.Backup(context.Background(), atFirst(func() { require.NoError(t, os.Chdir("b")) })))
	require.NoError(t, os.Chdir(dir))
	// A copy that is still written out when the cache is closed leaves nothing behind.
	require.ErrorIs(t, db.Backup(context.Background(), atFirst(func() { require.NoError(t, db.Close()) })),
		keepcache.ErrClosed)
	require.Empty(t, namesIn(t, "a"))
	holds(t, "moved/app.cache", 100)
	require.NoError(t, os.Symlink("b", "to"))
	report, err := keepcache.Repair(context.Background(), "moved/app.cache", "to/repaired.cache", nil)
	require.NoError(t, err)
	require.Equal(t, 100, report.Entries)
	holds(t, "b/repaired.cache", 100)
}

// atFirst returns a writer that calls fn with the first write.
func atFirst(fn func()) io.Writer {
	var once sync.Once
	return funcWriter(func() { once.Do(fn) })
}

type funcWriter func()

func (w funcWriter) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}

func pathRefused(t tester, dir string) {
	require.NoError(t, os.Mkdir("a", 0o700))
	foreignCache(t, "b")
	require.NoError(t, errors.Join(os.Symlink("../b/app.cache", "a/link.cache"),
		os.Symlink("nowhere", "a/dangling.cache"), os.Symlink("gone", "lost")))
	for _, o := range []*keepcache.Options{nil, {ReadOnly: true}, {NoLock: true, ReadOnly: true}} {
		for _, path := range []string{"a/link.cache", "a/dangling.cache"} {
			_, err := keepcache.Open(path, o)
			require.ErrorContains(t, err, "symbolic link")
			require.ErrorContains(t, err, fmt.Sprintf("%q", path))
		}
		for _, path := range []string{"a", "a/", "a/.", "a/..", ".", "b/app.cache/", "lost/app.cache", "none/app.cache",
			"b/app.cache/x"} {
			_, err := keepcache.Open(path, o)
			require.Error(t, err, path)
			require.NotErrorIs(t, err, keepcache.ErrLocked)
		}
	}
	require.Len(t, namesIn(t, "a"), 2)
}

func errOf[T any](_ T, err error) error { return err }
