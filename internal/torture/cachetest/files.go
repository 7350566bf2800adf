package cachetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
)

// WithBolt runs fn in a transaction of plain bbolt on the closed cache at path.
func WithBolt(t Tester, path string, readOnly bool, fn func(*bolt.Tx) error) {
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

// Offsets in what the file stores for an entry: the index row, then the record.
const (
	StoredRecord     = 8
	StoredFreshUntil = StoredRecord + 1
	StoredGoneAt     = StoredRecord + 9
	StoredRevision   = StoredRecord + 25
	StoredOptions    = StoredRecord + 33
	StoredValue      = StoredRecord + 35
)

// CrashCopy copies the files of the open cache at path to what it would find after a crash, and returns to.
func CrashCopy(t Tester, path, to string) string {
	t.Helper()
	beside, err := filepath.Glob(path + "-*")
	require.NoError(t, err)
	for _, name := range append(beside, path) {
		from, err := os.Open(name)
		require.NoError(t, err)
		target, err := os.OpenFile(to+strings.TrimPrefix(name, path), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
		require.NoError(t, err)
		_, err = io.Copy(target, from)
		require.NoError(t, err)
		require.NoError(t, target.Close())
		require.NoError(t, from.Close())
	}
	return to
}

// Crashed returns the path of a cache whose process died with everything in the journal: fill writes it.
func Crashed(t *testing.T, fill func(db *keepcache.DB)) string {
	t.Helper()
	db := New(t, &keepcache.Options{
		CommitInterval: time.Hour, SweepInterval: -1, CompactBytes: -1, MemoryBytes: 64 << 20, JournalBytes: 64 << 20,
	})
	MustSet(t, db.Bucket("b"), "first", 1, 0)
	Committed(t, db)
	fill(db)
	require.NoError(t, db.Sync(context.Background()))
	path := NewPath(t)
	from := filepath.Dir(path)
	stats := db.Stats()
	require.NotZero(t, stats.Journal.UsedBytes)
	return CrashCopy(t, dbPath(t, db), filepath.Join(from, "test.cache"))
}

// dbPath returns the path of an open cache, which its errors have.
func dbPath(t *testing.T, db *keepcache.DB) string {
	t.Helper()
	var e *keepcache.Error
	require.ErrorAs(t, db.Set("", 1, 0), &e)
	return e.Path
}

// BreakFile makes both meta pages of the closed cache at path unreadable, and returns what the file has then.
func BreakFile(t Tester, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	clear(content[:2*os.Getpagesize()])
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return content
}

// Snapshot describes the directory of path: names, modes and contents of all that is in it.
func Snapshot(t testing.TB, path string) map[string]string {
	t.Helper()
	found := map[string]string{}
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		text := info.Mode().String()
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(filepath.Join(dir, e.Name()))
			require.NoError(t, err)
			text += fmt.Sprintf(" %d %x %v", info.Size(), sha256.Sum256(content), info.ModTime())
		}
		found[e.Name()] = text
	}
	return found
}

// FileSize returns the size of a file, in bytes.
func FileSize(t Tester, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Size()
}

// EntryBucket returns the bbolt bucket of a cache's bucket, and its id.
func EntryBucket(tx *bolt.Tx, name string) (*bolt.Bucket, []byte) {
	id := bytes.Clone(tx.Bucket([]byte("buckets")).Get([]byte(name)))
	return tx.Bucket([]byte("entries")).Bucket(id), id
}

// Patch replaces what the closed cache at path stores for a key.
func Patch(t Tester, path, bucket, key string, change func(stored []byte) []byte) {
	t.Helper()
	WithBolt(t, path, false, func(tx *bolt.Tx) error {
		b, _ := EntryBucket(tx, bucket)
		stored := bytes.Clone(b.Get([]byte(key)))
		require.NotNil(t, stored)
		return b.Put([]byte(key), change(stored))
	})
}
