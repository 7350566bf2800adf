package keepcache_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
)

// variants are sets of options under which the whole suite has to pass. The environment variable
// KEEPCACHE_VARIANT picks one; options that a test sets itself stay as the test sets them.
var variants = map[string]func(*keepcache.Options){
	"": func(*keepcache.Options) {},
	"unswept": func(o *keepcache.Options) {
		if o.SweepInterval == 0 {
			o.SweepInterval = -1
		}
	},
	"always": func(o *keepcache.Options) {
		if o.SyncInterval == 0 {
			o.Sync = keepcache.SyncAlways
		}
	},
	"tiny": func(o *keepcache.Options) { // everything is full all the time, so that every path runs
		if o.MemoryBytes == 0 {
			o.MemoryBytes = 64 << 10
		}
		if o.JournalBytes == 0 {
			o.JournalBytes = 64 << 10
		}
	},
}

// long asks for the full counts, which take minutes.
var long = os.Getenv("KEEPCACHE_LONG") != ""

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		runChild(name)
	}
	flag.Parse()
	if variants[os.Getenv("KEEPCACHE_VARIANT")] == nil {
		fmt.Fprintln(os.Stderr, "unknown KEEPCACHE_VARIANT")
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// raced says that the race detector is on, with which everything takes ten times as long.
var raced bool

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	FailNow()
	Cleanup(func())
}

// handles counts the caches that are open at each path, so that the last one to be closed checks the file.
var handles = struct {
	sync.Mutex
	open map[string]int
}{open: make(map[string]int)}

// open opens the cache at path under the variant of this run. When the test is over it closes the cache
// and proves that the file is sound.
func open(t tester, path string, opts *keepcache.Options) *keepcache.DB {
	t.Helper()
	return openThen(t, path, opts, checkFile)
}

// openDamaged is open for files that a test has damaged: it leaves out the proof.
func openDamaged(t tester, path string, opts *keepcache.Options) *keepcache.DB {
	t.Helper()
	return openThen(t, path, opts, func(tester, string) {})
}

func openThen(t tester, path string, opts *keepcache.Options, check func(tester, string)) *keepcache.DB {
	t.Helper()
	db, err := tryOpen(path, opts)
	require.NoError(t, err)
	handles.Lock()
	handles.open[path]++
	handles.Unlock()
	t.Cleanup(func() {
		require.NoError(t, db.Close())
		handles.Lock()
		handles.open[path]--
		last := handles.open[path] == 0
		handles.Unlock()
		if last {
			check(t, path)
		}
	})
	return db
}

// tryOpen opens the cache at path under the variant of this run, and leaves errors and closing to the caller.
func tryOpen(path string, opts *keepcache.Options) (*keepcache.DB, error) {
	var o keepcache.Options
	if opts != nil {
		o = *opts
	}
	variants[os.Getenv("KEEPCACHE_VARIANT")](&o)
	return keepcache.Open(path, &o)
}

// checkFile proves that the closed cache at path is sound: by Verify, by bbolt's own check, and that
// nothing was left beside it.
func checkFile(t tester, path string) {
	t.Helper()
	db, err := keepcache.Open(path, &keepcache.Options{SweepInterval: -1})
	require.NoError(t, err)
	report, err := db.Verify(context.Background())
	require.NoError(t, err)
	require.True(t, report.OK(), "%v", report.Problems)
	require.NoError(t, db.Close())

	withBolt(t, path, true, func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			require.NoError(t, err)
		}
		return nil
	})
	beside, err := filepath.Glob(path + "-*")
	require.NoError(t, err)
	require.Empty(t, beside, "files left beside the closed cache")
}

// withBolt runs fn in a transaction of plain bbolt on the closed cache at path.
func withBolt(t tester, path string, readOnly bool, fn func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, ReadOnly: readOnly})
	require.NoError(t, err)
	run := db.Update
	if readOnly {
		run = db.View
	}
	require.NoError(t, run(fn))
	require.NoError(t, db.Close())
}

// reopen closes db and opens its file again.
func reopen(t tester, db *keepcache.DB, path string, opts *keepcache.Options) *keepcache.DB {
	t.Helper()
	require.NoError(t, db.Close())
	return open(t, path, opts)
}

// newPath returns a path for a cache in a directory that is removed when the test is over.
func newPath(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "test.cache")
}

// newDB opens a fresh cache.
func newDB(t testing.TB, opts *keepcache.Options) *keepcache.DB {
	t.Helper()
	return open(t, newPath(t), opts)
}

// fill sets n entries in b, "k000000" and so on, to their number. Many writers share each flush.
func fill(t tester, b *keepcache.Bucket, n int, ttl time.Duration) {
	t.Helper()
	errs := make(chan error, n)
	var writers sync.WaitGroup
	per := n/1000 + 1
	for from := 0; from < n; from += per {
		writers.Go(func() {
			for i := from; i < min(from+per, n); i++ {
				if err := b.Set(numbered(i), i, ttl); err != nil {
					errs <- err
				}
			}
		})
	}
	writers.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
}

// committed has everything that was written go into the file.
func committed(t tester, db *keepcache.DB) {
	t.Helper()
	_, err := db.Sweep(context.Background())
	require.NoError(t, err)
}

func numbered(i int) string { return fmt.Sprintf("k%06d", i) }

// mustSet sets key in b.
func mustSet(t tester, b *keepcache.Bucket, key string, value any, ttl time.Duration) {
	t.Helper()
	require.NoError(t, b.Set(key, value, ttl))
}

// requireValue requires that key is in b and that it reads as want into an any.
func requireValue(t tester, b *keepcache.Bucket, key string, want any) {
	t.Helper()
	var got any = "untouched"
	found, err := b.Get(key, &got)
	require.NoError(t, err)
	require.True(t, found, "key %q is absent", key)
	require.Equal(t, want, got)
	exists, err := b.Exists(key)
	require.NoError(t, err)
	require.True(t, exists)
}

// requireAbsent requires that every operation that reads takes key for absent.
func requireAbsent(t tester, b *keepcache.Bucket, key string) {
	t.Helper()
	got := "untouched"
	found, err := b.Get(key, &got)
	require.NoError(t, err)
	require.False(t, found, "key %q is there", key)
	require.Equal(t, "untouched", got)
	exists, err := b.Exists(key)
	require.NoError(t, err)
	require.False(t, exists)
	_, found, err = b.GetBytes(key)
	require.NoError(t, err)
	require.False(t, found)
	ttl, found, err := b.TTL(key)
	require.NoError(t, err)
	require.False(t, found)
	require.Zero(t, ttl)
	entry, found, err := b.Stat(key)
	require.NoError(t, err)
	require.False(t, found)
	require.Equal(t, keepcache.Entry{}, entry)
	for e, err := range b.Prefix(key) {
		require.NoError(t, err)
		require.NotEqual(t, key, e.Key)
	}
}

// requireTTL requires that key is in b and has exactly want to live.
func requireTTL(t tester, b *keepcache.Bucket, key string, want time.Duration) {
	t.Helper()
	got, found, err := b.TTL(key)
	require.NoError(t, err)
	require.True(t, found, "key %q is absent", key)
	require.Equal(t, want, got)
}

// requireError requires that err is one of ours, for the given operation on the given file, caused by want.
func requireError(t tester, err, want error, op, path string) {
	t.Helper()
	require.ErrorIs(t, err, want)
	var e *keepcache.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, op, e.Op)
	require.Equal(t, path, e.Path)
	if op == "load" {
		requireLoadError(t, err, path)
		return
	}
	require.True(t, strings.HasPrefix(err.Error(), "keepcache: "+op), err.Error())
	require.Equal(t, 1, strings.Count(err.Error(), "keepcache: "), err.Error())
}

// requireLoadError requires the form of an error of a load: it may be shown to users of the program.
func requireLoadError(t tester, err error, path string) {
	t.Helper()
	require.Regexp(t, `[^ ].* \(load( ".*")?( in)?( bucket ".*")?(, remembered)?\)$`, err.Error())
	require.NotContains(t, err.Error(), path)
	require.NotContains(t, err.Error(), "keepcache: ")
	require.NotContains(t, err.Error(), "\n")
}

// keys returns the keys of b in the order of iteration.
func keys(t tester, b *keepcache.Bucket, prefix string) []string {
	t.Helper()
	found := []string{}
	for e, err := range b.Prefix(prefix) {
		require.NoError(t, err)
		found = append(found, e.Key)
	}
	return found
}

// skipOnWindows skips a test of what Windows does not have.
func skipOnWindows(t testing.TB, reason string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("on Windows: " + reason)
	}
}
