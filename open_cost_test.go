package keepcache_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
)

// Opening a file costs next to nothing after a Close, and what reading it once costs after a crash or a change by others.
func TestOpen_Cost(t *testing.T) {
	if !long {
		t.Skip("takes a file of 1 GiB; KEEPCACHE_LONG=1 runs it")
	}
	path := newPath(t)
	opts := &keepcache.Options{MaxBytes: -1, SweepInterval: -1}
	db := open(t, path, opts)
	const entries, size = 3_000_000, 220
	value := bytes.Repeat([]byte("v"), size)
	for from := 0; from < entries; from += 10_000 {
		items := make(map[string]any, 10_000)
		for i := range 10_000 {
			items[fmt.Sprintf("key:%x", uint32(from+i)*2654435761)] = value
		}
		require.NoError(t, db.Bucket("b").SetMany(items, time.Duration(from%7)*time.Hour))
	}
	require.NoError(t, db.Close())

	read := func() time.Duration {
		f, err := os.Open(path)
		require.NoError(t, err)
		defer f.Close()
		start := time.Now()
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
		require.NoError(t, err)
		took := time.Since(start)
		t.Logf("reading %d MiB: %v, %.2f GB/s", n>>20, took, float64(n)/took.Seconds()/1e9)
		return took
	}
	opened := func(what string) time.Duration {
		start := time.Now()
		db, err := keepcache.Open(path, opts)
		took := time.Since(start)
		require.NoError(t, err)
		require.NoError(t, db.Close())
		t.Logf("open, %s: %v", what, took)
		return took
	}
	for range 3 {
		read()
		require.Less(t, opened("closed in order"), 100*time.Millisecond)
		require.NoError(t, os.Chtimes(path, time.Time{}, time.Now()))
		opened("changed by others")
		bdb, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
		require.NoError(t, err)
		require.NoError(t, bdb.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("x"), nil) }))
		require.NoError(t, bdb.Close())
		start := time.Now()
		bdb, err = bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
		require.NoError(t, err)
		t.Logf("bbolt alone: %v", time.Since(start))
		require.NoError(t, bdb.Close())
		opened("as after a crash")
	}
}
