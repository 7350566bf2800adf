package salvage_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/salvage"
)

// made returns a bbolt file with n keys in a bucket, a small bucket, and a value with pages of its own.
func made(t testing.TB, n int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	db, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("many"))
		for i := range n {
			require.NoError(t, b.Put(fmt.Appendf(nil, "key%05d", i), fmt.Append(nil, "value", i)))
		}
		require.NoError(t, b.SetSequence(42))
		require.NoError(t, b.Put([]byte("large"), bytes.Repeat([]byte("large"), 100_000)))
		small, _ := tx.CreateBucket([]byte("small"))
		require.NoError(t, small.Put([]byte("k"), []byte("v")))
		return err
	}))
	require.NoError(t, db.Close())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return content
}

// read returns what all leaves hold, by key, and whether the trees were whole.
func read(t testing.TB, content []byte) (found map[string]string, whole bool) {
	f, err := salvage.Open(bytes.NewReader(content), int64(len(content)))
	require.NoError(t, err)
	found = make(map[string]string)
	take := func(elements []salvage.Element) error {
		for i := range elements {
			value, err := f.Value(&elements[i])
			require.NoError(t, err)
			require.Len(t, value, int(elements[i].Size))
			found[string(elements[i].Key)] = string(value)
		}
		return nil
	}
	whole = len(f.Roots()) > 0
	for _, root := range f.Roots()[:min(1, len(f.Roots()))] {
		seen := make(map[uint64]bool)
		all, err := f.Tree(root, seen, func(elements []salvage.Element) error {
			for i := range elements {
				if elements[i].Bucket {
					all, err := f.Bucket(&elements[i], seen, take)
					require.NoError(t, err)
					whole = whole && all
				}
			}
			return nil
		})
		require.NoError(t, err)
		whole = whole && all
	}
	for id := range f.Pages() {
		elements, _, ok, err := f.Leaf(id)
		require.NoError(t, err)
		if ok {
			require.NoError(t, take(elements))
		}
	}
	return found, whole
}

// All of a sound file is found.
func TestSalvage_Sound(t *testing.T) {
	found, whole := read(t, made(t, 3000))
	require.True(t, whole)
	for i := range 3000 {
		require.Equal(t, fmt.Sprint("value", i), found[fmt.Sprintf("key%05d", i)])
	}
	require.Equal(t, "v", found["k"])
	require.Len(t, found["large"], 500_000)
}

// Without meta pages the size of pages is guessed.
func TestSalvage_NoMeta(t *testing.T) {
	content := made(t, 3000)
	clear(content[:2*os.Getpagesize()])
	found, whole := read(t, content)
	require.False(t, whole)
	require.Equal(t, "value7", found["key00007"])
	require.Greater(t, len(found), 3000)
}

// A tree that leads back to itself, and one whose pages are missing, have an end and are not whole.
func TestSalvage_Cycle(t *testing.T) {
	content := made(t, 3000)
	size := os.Getpagesize()
	for at := 2 * size; at < len(content); at += size {
		if binary.NativeEndian.Uint16(content[at+8:]) != 1 {
			continue
		}
		damaged := bytes.Clone(content)
		binary.NativeEndian.PutUint64(damaged[at+16+8:], uint64(at/size))
		_, whole := read(t, damaged)
		require.False(t, whole)
		binary.NativeEndian.PutUint64(damaged[at+16+8:], 1<<60)
		_, whole = read(t, damaged)
		require.False(t, whole)
	}
}

// Whatever the file, nothing panics, and memory stays within bounds.
func FuzzSalvage(f *testing.F) {
	content := made(f, 100)
	f.Add(content[:8*4096])
	f.Add(content[2*4096:])
	f.Add([]byte("no file"))
	f.Fuzz(func(t *testing.T, content []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		read(t, content)
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64*len(content)+8<<20))
	})
}
