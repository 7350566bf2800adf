package preflight_test

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/preflight"
)

// FuzzCheck checks files in any state: no panic, and memory in proportion with the file. What is accepted bbolt reads,
// changes and checks without a complaint.
func FuzzCheck(f *testing.F) {
	small := func(listed bool) []byte {
		path := filepath.Join(f.TempDir(), "file")
		db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: pageSize, NoSync: true, NoFreelistSync: !listed})
		require.NoError(f, err)
		for range 2 {
			require.NoError(f, db.Update(func(tx *bolt.Tx) error {
				for _, name := range []string{"plain", "index", "nested"} {
					b, err := tx.CreateBucketIfNotExists([]byte(name))
					require.NoError(f, err)
					if name == "nested" {
						if b, err = b.CreateBucketIfNotExists([]byte("id")); err != nil {
							return err
						}
					}
					for i := range byte(40) {
						if name != "index" || i < 3 {
							require.NoError(f, b.Put([]byte{'k', i}, make([]byte, 20)))
						}
					}
				}
				return nil
			}))
		}
		require.NoError(f, db.Close())
		b, err := os.ReadFile(path)
		require.NoError(f, err)
		meta := (&patient{b: b}).meta()
		return b[:native.Uint64(meta[40:])*pageSize]
	}
	f.Add(small(true))
	f.Add(small(false))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		if len(b) > 2*pageSize {
			seal(b) // or nothing would come further than here
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		file, err := preflight.Open(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			_, _ = file.Get("index", "k\x01")
			_, _ = file.Get("plain", "k\x01")
			err = file.Check(layout, math.MaxInt)
			found, auditErr := file.Audit(t.Context(), layout)
			if auditErr != nil || (err != nil) != (len(found.Problems) > others(found)) {
				t.Fatalf("check: %v, audit: %v, %v", err, auditErr, found.Problems)
			}
		}
		_ = preflight.Leaves(bytes.NewReader(b), int64(len(b)), func([]preflight.Element) bool { return true })
		runtime.ReadMemStats(&after)
		if most := uint64(128*len(b) + 2<<20); after.TotalAlloc-before.TotalAlloc > most {
			t.Fatalf("%d bytes were allocated for a file of %d", after.TotalAlloc-before.TotalAlloc, len(b))
		}
		if err != nil {
			return
		}
		accepted(t, b)
	})
}

// accepted lets bbolt work with a file. A panic of it ends the test.
func accepted(t *testing.T, b []byte) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(path, b, 0o600))
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, FreelistType: bolt.FreelistMapType})
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.Update(func(tx *bolt.Tx) error {
		for _, name := range []string{"plain", "index"} {
			b := tx.Bucket([]byte(name))
			if b == nil {
				continue
			}
			c := b.Cursor()
			for k, _ := c.First(); k != nil; k, _ = c.First() {
				require.NoError(t, c.Delete())
			}
			for i := range byte(100) {
				require.NoError(t, b.Put([]byte{'n', i}, make([]byte, 30)))
			}
		}
		return nil
	}))
	// bbolt's check, and nothing else in it, asks for the page headers of both meta pages; this writes the other one.
	require.NoError(t, db.Update(func(*bolt.Tx) error { return nil }))
	require.NoError(t, db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			if !bytes.Contains([]byte(err.Error()), []byte("unreachable unfreed")) { // room that is lost, and nothing else
				return err
			}
		}
		return nil
	}))
}
