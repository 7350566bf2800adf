// Package cachetest has what tests of caches share: they open them through it, so that each one is proved when its test
// is over, run programs in processes of their own, and look at files with plain bbolt. Tests import it and nothing else
// does.
package cachetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
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

// Long asks for the full counts, which take minutes.
var Long = os.Getenv("KEEPCACHE_LONG") != ""

// Raced says that the race detector is on, with which everything takes ten times as long.
var Raced bool

// Tester is what [*testing.T], rapid's T and the children have in common.
type Tester interface {
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

// Open opens the cache at path under the variant of this run. When the test is over it closes the cache
// and proves that the file is sound.
func Open(t Tester, path string, opts *keepcache.Options) *keepcache.DB {
	t.Helper()
	return openThen(t, path, opts, CheckFile)
}

// OpenDamaged is Open for files that a test has damaged: it leaves out the proof.
func OpenDamaged(t Tester, path string, opts *keepcache.Options) *keepcache.DB {
	t.Helper()
	return openThen(t, path, opts, func(Tester, string) {})
}

func openThen(t Tester, path string, opts *keepcache.Options, check func(Tester, string)) *keepcache.DB {
	t.Helper()
	db, err := TryOpen(path, opts)
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

// OpenUnchecked opens the cache at path with the defaults, and leaves closing and proving to the test.
func OpenUnchecked(t testing.TB, path string) *keepcache.DB {
	t.Helper()
	db, err := TryOpen(path, nil)
	require.NoError(t, err)
	return db
}

// TryOpen opens the cache at path under the variant of this run, and leaves errors and closing to the caller.
func TryOpen(path string, opts *keepcache.Options) (*keepcache.DB, error) {
	var o keepcache.Options
	if opts != nil {
		o = *opts
	}
	variants[os.Getenv("KEEPCACHE_VARIANT")](&o)
	return keepcache.Open(path, &o)
}

// CheckFile proves that the closed cache at path is sound: by Verify, by bbolt's own check, and that
// nothing was left beside it.
func CheckFile(t Tester, path string) {
	t.Helper()
	db, err := keepcache.Open(path, &keepcache.Options{SweepInterval: -1})
	require.NoError(t, err)
	report, err := db.Verify(context.Background())
	require.NoError(t, err)
	require.True(t, report.OK(), "%v", report.Problems)
	require.NoError(t, db.Close())

	WithBolt(t, path, true, func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			require.NoError(t, err)
		}
		return nil
	})
	beside, err := filepath.Glob(path + "-*")
	require.NoError(t, err)
	require.Empty(t, beside, "files left beside the closed cache")
}

// Sound requires that a cache in use is sound, and returns the report.
func Sound(t Tester, db *keepcache.DB) keepcache.Report {
	t.Helper()
	report, err := db.Verify(context.Background())
	require.NoError(t, err)
	require.True(t, report.OK(), "%v", report.Problems)
	return report
}

// Reopen closes db and opens its file again.
func Reopen(t Tester, db *keepcache.DB, path string, opts *keepcache.Options) *keepcache.DB {
	t.Helper()
	require.NoError(t, db.Close())
	return Open(t, path, opts)
}

// NewPath returns a path for a cache in a directory that is removed when the test is over.
func NewPath(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "test.cache")
}

// New opens a fresh cache.
func New(t testing.TB, opts *keepcache.Options) *keepcache.DB {
	t.Helper()
	return Open(t, NewPath(t), opts)
}

// Fill sets n entries in b, "k000000" and so on, to their number. Many writers share each flush.
func Fill(t Tester, b *keepcache.Bucket, n int, ttl time.Duration) {
	t.Helper()
	errs := make(chan error, n)
	var writers sync.WaitGroup
	per := n/1000 + 1
	for from := 0; from < n; from += per {
		writers.Go(func() {
			for i := from; i < min(from+per, n); i++ {
				if err := b.Set(Numbered(i), i, ttl); err != nil {
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

// Numbered returns the key that Fill gives the i-th entry.
func Numbered(i int) string { return fmt.Sprintf("k%06d", i) }

// Committed has everything that was written go into the file.
func Committed(t Tester, db *keepcache.DB) {
	t.Helper()
	_, err := db.Sweep(context.Background())
	require.NoError(t, err)
}

// AwaitHealed waits in real time until a cache takes writes again, and its file too.
func AwaitHealed(db *keepcache.DB) error {
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = db.Set("probe", 1, 0); err != nil {
			continue
		}
		if _, err = db.Sweep(context.Background()); err == nil && !db.Stats().Health.Unavailable {
			return nil
		}
	}
	return fmt.Errorf("not healed: %w, %+v", err, db.Stats().Health)
}

// SkipOnWindows skips a test of what Windows does not have.
func SkipOnWindows(t testing.TB, reason string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("on Windows: " + reason)
	}
}
