package pagetree_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/pagetree"
)

// file makes a bbolt file of many shapes: buckets in their place and with pages, short values and ones over many
// pages, pages that were split and merged. It returns the path and what is in it.
func file(t testing.TB, seed uint64, entries int) (path string, want map[string]map[string]string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	path = filepath.Join(t.TempDir(), "test.db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: 1 << (10 + seed%4)})
	require.NoError(t, err)
	want = map[string]map[string]string{"small": {}, "large": {}, "gone": {}}
	for range 4 {
		require.NoError(t, db.Update(func(tx *bolt.Tx) error {
			all, err := tx.CreateBucketIfNotExists([]byte("all"))
			require.NoError(t, err)
			for name := range want {
				b, err := all.CreateBucketIfNotExists([]byte(name))
				require.NoError(t, err)
				n := entries
				if name == "small" {
					n = 2
				}
				for range n {
					key := fmt.Sprintf("%0*d", 1+rng.IntN(30), rng.IntN(4*entries))
					value := string(bytes.Repeat([]byte{byte(rng.IntN(256))}, 1<<rng.IntN(8)))
					if name == "large" && rng.IntN(50) == 0 {
						value = string(bytes.Repeat([]byte{'L'}, rng.IntN(60_000)))
					}
					want[name][key] = value
					require.NoError(t, b.Put([]byte(key), []byte(value)))
				}
				for key := range want[name] {
					if name == "gone" && rng.IntN(3) > 0 {
						delete(want[name], key)
						require.NoError(t, b.Delete([]byte(key)))
					}
				}
				require.NoError(t, b.SetSequence(uint64(len(name))))
			}
			return nil
		}))
	}
	require.NoError(t, db.Close())
	return path, want
}

// open returns the newest state of a file whose meta pages are whole.
func open(content []byte) *pagetree.Tree {
	meta, found := pagetree.Newest(bytes.NewReader(content))
	if !found {
		panic("no meta page")
	}
	return meta.Tree(bytes.NewReader(content))
}

// bucket returns a bucket of the file, and whether there is one.
func bucket(t *pagetree.Tree, name string) (pagetree.Bucket, bool, error) {
	all, _, err := t.Root().Bucket([]byte("all"))
	if err != nil {
		return pagetree.Bucket{}, false, err
	}
	return all.Bucket([]byte(name))
}

// What bbolt has written is what is read, key by key and in order.
func TestTree_Bbolt(t *testing.T) {
	for seed := range uint64(6) {
		path, want := file(t, seed, []int{1, 40, 500}[seed%3])
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		tree := open(content)
		for name, entries := range want {
			b, found, err := bucket(tree, name)
			require.NoError(t, err)
			require.True(t, found)
			require.Equal(t, uint64(len(name)), b.Sequence())
			for key, value := range entries {
				got, found, err := b.Get([]byte(key))
				require.NoError(t, err)
				require.True(t, found)
				require.True(t, value == string(got), key)
				_, found, err = b.Get([]byte(key + "\x00"))
				require.NoError(t, err)
				require.False(t, found)
			}
			for _, from := range []string{"", "0005", "5", "\xff"} {
				n, last := 0, ""
				require.NoError(t, b.Scan([]byte(from), func(e *pagetree.Element) (bool, error) {
					value, err := e.Value()
					require.NoError(t, err)
					require.Equal(t, int64(len(value)), e.Size())
					require.True(t, entries[string(e.Key)] == string(value))
					require.GreaterOrEqual(t, string(e.Key), max(from, last))
					n, last = n+1, string(e.Key)
					return true, nil
				}))
				for key := range entries {
					if key >= from {
						n--
					}
				}
				require.Zero(t, n)
				before := []byte(from)
				if from == "" {
					before = nil
				}
				last = "\xff\xff"
				require.NoError(t, b.ScanBack(before, func(e *pagetree.Element) (bool, error) {
					value, err := e.Value()
					require.NoError(t, err)
					require.True(t, entries[string(e.Key)] == string(value))
					require.Less(t, string(e.Key), last)
					require.True(t, before == nil || string(e.Key) < from)
					n, last = n+1, string(e.Key)
					return true, nil
				}))
				for key := range entries {
					if before == nil || key < from {
						n--
					}
				}
				require.Zero(t, n)
			}
		}
		_, found, err := bucket(tree, "absent")
		require.NoError(t, err)
		require.False(t, found)
		_, found, err = tree.Root().Get([]byte("all"))
		require.NoError(t, err)
		require.False(t, found, "a bucket is no value")
	}
}

// The newest whole meta page is the one in force, and without one there is none.
func TestNewest(t *testing.T) {
	path, _ := file(t, 1, 5)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	size := int(binary.NativeEndian.Uint32(content[24:]))
	newest, found := pagetree.Newest(bytes.NewReader(content))
	require.True(t, found)
	require.LessOrEqual(t, newest.Bytes(), int64(len(content)))
	places := []int{0, size}
	if bytes.Equal(content[size+16:size+80], newest[:]) {
		places = []int{size, 0}
	}
	content[places[0]+30] ^= 1
	older, found := pagetree.Newest(bytes.NewReader(content))
	require.True(t, found)
	require.NotEqual(t, newest, older)
	require.True(t, bytes.Equal(content[places[1]+16:places[1]+80], older[:]))
	content[places[1]+30] ^= 1
	_, found = pagetree.Newest(bytes.NewReader(content))
	require.False(t, found)
	_, found = pagetree.Newest(bytes.NewReader(nil))
	require.False(t, found)
}

// A bucket that is not there holds nothing.
func TestTree_None(t *testing.T) {
	var b pagetree.Bucket
	_, found, err := b.Get([]byte("k"))
	require.NoError(t, err)
	require.False(t, found)
	_, found, err = b.Bucket([]byte("k"))
	require.NoError(t, err)
	require.False(t, found)
	require.NoError(t, b.Scan(nil, func(*pagetree.Element) (bool, error) { return true, nil }))
	require.NoError(t, b.ScanBack(nil, func(*pagetree.Element) (bool, error) { return true, nil }))
}

// look reads all that there is of a file, which may be anything. It returns how many elements it saw.
func look(content []byte) (n int, err error) {
	tree := open(content)
	for _, name := range []string{"small", "large", "gone"} {
		b, _, err := bucket(tree, name)
		if err == nil {
			_, _, err = b.Get([]byte("0007"))
		}
		if err == nil {
			err = b.Scan(nil, func(e *pagetree.Element) (bool, error) {
				n++
				_, err := e.Value()
				return true, err
			})
		}
		if err == nil {
			err = b.ScanBack([]byte("0300"), func(e *pagetree.Element) (bool, error) {
				n++
				return true, nil
			})
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Whatever pages hold, reading them ends, and where it fails the error says why.
func FuzzTree(f *testing.F) {
	path, _ := file(f, 2, 60)
	whole, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(uint32(9000), []byte{0xff, 0xff})
	f.Add(uint32(4096*3), []byte{3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0xff, 0xff})
	f.Add(uint32(4096*4+8), []byte{1, 0, 1, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		content := bytes.Clone(whole)
		first := 2 * int(binary.NativeEndian.Uint32(content[24:]))
		place := first + int(at)%(len(content)-first)
		copy(content[place:], patch)
		n, err := look(content)
		require.LessOrEqual(t, n, len(content))
		if err != nil && !errors.Is(err, pagetree.ErrBroken) {
			t.Fatal(err)
		}
	})
}

// Pages that were exchanged, cut off or lead in circles are found out or read as something else, and reading ends.
func TestTree_Damage(t *testing.T) {
	for seed := range uint64(6) {
		path, _ := file(t, seed, 60)
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		size := int(binary.NativeEndian.Uint32(whole[24:]))
		rng := rand.New(rand.NewPCG(seed, 1))
		failed := 0
		for range 100 {
			content := bytes.Clone(whole)
			page := func() []byte {
				at := size * (2 + rng.IntN(len(content)/size-2))
				return content[at : at+size]
			}
			switch rng.IntN(4) {
			case 0:
				id := bytes.Clone(page()[:8])
				p, q := page(), page()
				copy(p, q)
				copy(p, id)
			case 1: // a number of a header or of the first elements
				copy(page()[rng.IntN(80)&^3:], []byte{byte(rng.IntN(64)), byte(rng.IntN(2)), 0, 0})
			case 2:
				p := page()
				copy(p[16+rng.IntN(size-32):], bytes.Repeat([]byte{0xff}, 8))
			default:
				content = content[:2*size+rng.IntN(len(content)-2*size)]
			}
			if _, err := look(content); err != nil {
				require.ErrorIs(t, err, pagetree.ErrBroken)
				failed++
			}
		}
		require.Positive(t, failed)
	}
}
