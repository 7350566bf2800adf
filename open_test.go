package keepcache_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
)

// requireRefused requires that Open refuses path within a second, with an error that names it and that is
// want (any error if that is nil), and that nothing is written.
func requireRefused(t testing.TB, path string, want error) error {
	t.Helper()
	before := snapshot(t, path)
	var last error
	for _, opts := range []keepcache.Options{{OnCorruption: keepcache.CorruptionFail}, {ReadOnly: true}} {
		start := time.Now()
		db, err := tryOpen(path, &opts)
		if err == nil {
			_ = db.Close()
		}
		require.Error(t, err)
		require.Nil(t, db)
		require.Less(t, time.Since(start), time.Second)
		if want != nil {
			require.ErrorIs(t, err, want)
		}
		var e *keepcache.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, "open", e.Op)
		require.Equal(t, path, e.Path)
		require.Contains(t, err.Error(), strconv.Quote(path))
		require.Equal(t, before, snapshot(t, path))
		last = err
	}
	return last
}

// Open creates the file for its owner alone, and nothing else.
func TestOpen_Creates(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	info, err := os.Stat(path)
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		require.Equal(t, fs.FileMode(0o600), info.Mode())
	}
	require.NoError(t, db.Close())
	require.Len(t, snapshot(t, path), 1)
}

// A relative path works, and so do a path with pattern characters and one through a link to a directory. A link to a
// cache is refused, and its target opens.
func TestOpen_Paths(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	require.NoError(t, open(t, "relative.cache", nil).Close())
	require.NoError(t, open(t, "./[a-z]*.cache", nil).Close())
	db := open(t, filepath.Join(dir, "relative.cache"), nil)
	require.NoError(t, db.Set("k", 1, 0))
	require.NoError(t, db.Close())
	if runtime.GOOS == "windows" {
		return
	}
	require.NoError(t, os.Symlink(".", "linked"))
	requireValue(t, open(t, "linked/relative.cache", nil).Bucket("default"), "k", int64(1))
	require.NoError(t, os.Symlink("relative.cache", "link.cache"))
	_, err := tryOpen("link.cache", nil)
	require.ErrorContains(t, err, "symbolic link")
	require.ErrorContains(t, err, "open the file that it leads to")
}

// An empty path is refused.
func TestOpen_EmptyPath(t *testing.T) {
	t.Chdir(t.TempDir())
	_, err := keepcache.Open("", nil)
	require.ErrorContains(t, err, "empty path")
	left, err := os.ReadDir(".")
	require.NoError(t, err)
	require.Empty(t, left)
}

// A directory is refused, also one that is named with a slash at its end.
func TestOpen_Directory(t *testing.T) {
	path := newPath(t)
	require.NoError(t, os.Mkdir(path, 0o700))
	err := requireRefused(t, path, nil)
	require.ErrorContains(t, err, "is a directory")
	_, err = tryOpen(path+"/", nil)
	require.Error(t, err)
	left, err := os.ReadDir(path)
	require.NoError(t, err)
	require.Empty(t, left)
}

// A path in a directory that does not exist is refused, as is one below a file.
func TestOpen_MissingDirectory(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "missing", "test.cache")
	_, err := tryOpen(path, nil)
	requireError(t, err, fs.ErrNotExist, "open", path)
	require.ErrorContains(t, err, path)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	_, err = tryOpen(filepath.Join(dir, "file", "test.cache"), nil)
	require.Error(t, err)
}

// A reader does not create the file that it does not find.
func TestOpen_ReadOnlyMissing(t *testing.T) {
	path := newPath(t)
	_, err := tryOpen(path, &keepcache.Options{ReadOnly: true})
	requireError(t, err, fs.ErrNotExist, "open", path)
	require.Empty(t, snapshot(t, path))
}

// A symbolic link that points nowhere, or at itself, is refused.
func TestOpen_BadLinks(t *testing.T) {
	skipOnWindows(t, "symbolic links need a privilege")
	path := newPath(t)
	require.NoError(t, os.Symlink("nowhere", path))
	requireRefused(t, path, nil)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Symlink(filepath.Base(path), path))
	requireRefused(t, path, nil)
}

// Files that are no cache are refused as such: bytes of any kind, and the database of another program.
func TestOpen_Foreign(t *testing.T) {
	random := make([]byte, 100_000)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	for name, content := range map[string][]byte{
		"one byte": {0}, "text": []byte("#!/bin/sh\necho this is no cache\n"), "random": random,
		"zeros": make([]byte, 65_536),
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			require.NoError(t, os.WriteFile(path, content, 0o600))
			requireRefused(t, path, keepcache.ErrFormat)
		})
	}
	for name, bucket := range map[string]string{"no bucket": "", "another program's": "users",
		"with a bucket meta": "meta"} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			withBolt(t, path, false, func(tx *bolt.Tx) error {
				if bucket == "" {
					return nil
				}
				b, err := tx.CreateBucket([]byte(bucket))
				if err != nil {
					return err
				}
				return b.Put([]byte("k"), []byte("v"))
			})
			requireRefused(t, path, keepcache.ErrFormat)
		})
	}
}

// soundFile returns the content of a closed cache with a few entries.
func soundFile(t testing.TB) []byte {
	t.Helper()
	path := newPath(t)
	db := open(t, path, nil)
	fill(t, db.Bucket("b"), 50, time.Hour)
	mustSet(t, db.Bucket("large"), "k", bytes.Repeat([]byte("x"), 50_000), 0)
	require.NoError(t, db.Close())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return content
}

// A file that was cut short is refused at any length that it cannot have.
func TestOpen_Truncated(t *testing.T) {
	content := soundFile(t)
	used := usedBytes(t, content)
	lengths := []int{1, 15, 16, 79, 80, 81, 4095, 4096, 4097, 8191, 8192, 8193, 12_288, 16_384, used / 2, used - 4096,
		used - 1}
	for range 20 {
		lengths = append(lengths, 1+rand.IntN(used-1))
	}
	path := newPath(t)
	for _, n := range lengths {
		require.NoError(t, os.WriteFile(path, content[:n], 0o600))
		err := requireRefused(t, path, nil)
		if n > used/2 { // of less there may be too little to tell that it was a cache
			require.ErrorIs(t, err, keepcache.ErrCorrupt, "%d of %d bytes", n, len(content))
		}
	}
	require.NoError(t, os.WriteFile(path, content[:used], 0o600))
	n, err := open(t, path, nil).Bucket("b").Len()
	require.NoError(t, err)
	require.Equal(t, 50, n)
}

// usedBytes returns how much of a cache's file is in use; the rest is what it has grown ahead.
func usedBytes(t testing.TB, content []byte) (n int) {
	t.Helper()
	path := newPath(t)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	withBolt(t, path, true, func(tx *bolt.Tx) error {
		n = int(tx.Size())
		return nil
	})
	return n
}

// One damaged meta page does not matter, two do. A file that shows that it was a cache is taken for a damaged one.
func TestOpen_MetaPages(t *testing.T) {
	content := soundFile(t)
	pageSize := int(binary.NativeEndian.Uint32(content[16+8:]))
	for name, pages := range map[string][]int{"first": {0}, "second": {1}, "both": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			damaged := bytes.Clone(content)
			for _, page := range pages {
				damaged[page*pageSize+16+20] ^= 0x55
			}
			require.NoError(t, os.WriteFile(path, damaged, 0o600))
			if len(pages) == 2 {
				requireRefused(t, path, keepcache.ErrCorrupt)
				return
			}
			db := openDamaged(t, path, nil)
			_, err := db.Bucket("b").Len()
			require.NoError(t, err)
		})
	}
}

// A file of a newer format is refused and left untouched.
func TestOpen_NewerFormat(t *testing.T) {
	for _, version := range [][]byte{{0, 0, 0, 2}, {0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 0}, {}, {1}} {
		path := newPath(t)
		require.NoError(t, openUnchecked(t, path).Close())
		withBolt(t, path, false, func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("format"), version) })
		err := requireRefused(t, path, keepcache.ErrFormat)
		if len(version) == 4 {
			require.ErrorContains(t, err, fmt.Sprint("format ", binary.BigEndian.Uint32(version)))
		}
	}
}

// A cache whose tables are missing or malformed is damaged, and refused.
func TestOpen_MissingTables(t *testing.T) {
	for name, damage := range map[string]func(tx *bolt.Tx) error{
		"identity":  func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("identity")) },
		"sequence":  func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("sequence"), []byte("short")) },
		"entries":   func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("entries")) },
		"expiry":    func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("expiry")) },
		"buckets":   func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("buckets")) },
		"malformed": func(tx *bolt.Tx) error { return tx.Bucket([]byte("buckets")).Put([]byte("b"), []byte("id")) },
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			require.NoError(t, openUnchecked(t, path).Close())
			withBolt(t, path, false, damage)
			requireRefused(t, path, keepcache.ErrCorrupt)
		})
	}
}

// A second cache on the same file gets ErrLocked within LockTimeout, and the file when the first lets go.
func TestOpen_Locked(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	for _, readOnly := range []bool{false, true} {
		timeouts := []time.Duration{-1, 50 * time.Millisecond}
		if !readOnly {
			timeouts = append(timeouts, 0) // the default
		}
		for _, timeout := range timeouts {
			start := time.Now()
			_, err := tryOpen(path, &keepcache.Options{LockTimeout: timeout, ReadOnly: readOnly})
			requireError(t, err, keepcache.ErrLocked, "open", path)
			require.Less(t, time.Since(start), max(timeout, 0)+1500*time.Millisecond)
			if timeout > 0 {
				require.GreaterOrEqual(t, time.Since(start), timeout)
			}
			var e *keepcache.Error
			require.ErrorAs(t, err, &e)
			require.NotEmpty(t, e.Hint)
			if runtime.GOOS == "linux" {
				require.Contains(t, e.Hint, fmt.Sprint("process ", os.Getpid()))
			}
		}
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = db.Close() })
	second := open(t, path, &keepcache.Options{LockTimeout: 10 * time.Second})
	require.NoError(t, second.Set("k", 1, 0))
}

// What a creator that was killed long ago left behind goes, and what may be another's work stays.
func TestOpen_Strays(t *testing.T) {
	path := newPath(t)
	old, young, other := path+".new-1", path+".new-2", path+".old"
	for _, name := range []string{old, young, other} {
		require.NoError(t, os.WriteFile(name, []byte("torn"), 0o600))
	}
	long := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(old, long, long))
	require.NoError(t, os.Chtimes(other, long, long))
	require.NoError(t, open(t, path, nil).Set("k", 1, 0))
	require.NoFileExists(t, old)
	require.FileExists(t, young)
	require.FileExists(t, other)
}

// A file that is replaced while one waits for its lock is not the one that gets opened.
func TestOpen_Replaced(t *testing.T) {
	skipOnWindows(t, "open files cannot be renamed")
	path := newPath(t)
	other := newPath(t)
	b := open(t, other, nil)
	require.NoError(t, b.Set("k", "new", 0))
	require.NoError(t, b.Close())

	require.NoError(t, open(t, path, nil).Close())
	first, err := bolt.Open(path, 0o600, nil) // and not by a cache, which would take its place back
	require.NoError(t, err)
	time.AfterFunc(50*time.Millisecond, func() {
		_ = os.Rename(other, path)
		_ = first.Close()
	})
	second := open(t, path, &keepcache.Options{LockTimeout: 10 * time.Second})
	requireValue(t, second.Bucket("default"), "k", "new")
	_, err = second.Verify(context.Background())
	require.NoError(t, err)
}
