package keepcache_test

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/preflight"
)

// markedClean reports whether the file at path has a mark that holds.
func markedClean(t testing.TB, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	file, err := preflight.Open(f, info.Size())
	require.NoError(t, err)
	clean, err := file.Clean(info.ModTime())
	require.NoError(t, err)
	return clean
}

// A file is marked as closed in order by Close alone, and no longer once anything has changed it or it is a copy.
func TestClose_Mark(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	mustSet(t, db.Bucket("b"), "k", "v", 0)
	committed(t, db)
	require.False(t, markedClean(t, path), "while it is open")
	crashed := crashCopy(t, path, path+"2")
	require.False(t, markedClean(t, crashed), "after a crash")
	require.NoError(t, db.Close())
	require.True(t, markedClean(t, path))

	before := snapshot(t, path)
	require.NoError(t, open(t, path, nil).Close())
	require.NoError(t, open(t, path, &keepcache.Options{ReadOnly: true}).Close())
	require.Equal(t, before, snapshot(t, path), "a session without a write changes nothing")

	require.False(t, markedClean(t, crashCopy(t, path, path+"3")), "a copy")
	now := time.Now().Add(time.Second)
	require.NoError(t, os.Chtimes(path, time.Time{}, now))
	require.False(t, markedClean(t, path), "after a change by others")
	require.NoError(t, open(t, path, nil).Close())
	require.True(t, markedClean(t, path), "once it was read and closed")
	withBolt(t, path, false, func(tx *bolt.Tx) error { return nil })
	require.False(t, markedClean(t, path), "after a transaction by others")

	db = open(t, crashed, nil)
	requireValue(t, db.Bucket("b"), "k", "v")
	require.NoError(t, db.Close())
	require.True(t, markedClean(t, crashed))
}

// A mark does not hold a cache up that turns out to be damaged: what fails is proved as a whole, and kept aside.
func TestClose_MarkOfDamaged(t *testing.T) {
	path := closedWithLeaves(t, func(head []byte) { head[0]++ }) // its number becomes another

	db := openDamaged(t, path, nil)
	for i := range 5000 { // whether opening fell over it or reading does
		var got int
		found, err := db.Bucket("b").Get(numbered(i), &got)
		require.NoError(t, err)
		require.True(t, !found || got == i)
	}
	requireQuarantined(t, db)
	mustSet(t, db.Bucket("b"), "k", "new", 0)
	requireValue(t, db.Bucket("b"), "k", "new")
	_, err := db.Sweep(context.Background())
	require.NoError(t, err)
	aside, err := filepath.Glob(path + ".corrupt-*")
	require.NoError(t, err)
	require.Len(t, aside, 1)
}

// requireQuarantined requires that the file of a cache is kept aside and the cache in order again, soon.
func requireQuarantined(t *testing.T, db *keepcache.DB) {
	t.Helper()
	require.Eventually(t, func() bool {
		h := db.Stats().Health
		return !h.Unavailable && h.Quarantined == 1
	}, 10*time.Second, time.Millisecond)
}

// closedWithLeaves makes a file of 5,000 entries in the bucket b that was closed in order, and changes the header of
// each leaf with many elements then. To Open it looks as it was when it was closed.
func closedWithLeaves(t *testing.T, change func(head []byte)) (path string) {
	t.Helper()
	path = newPath(t)
	db := openUnchecked(t, path)
	fill(t, db.Bucket("b"), 5000, time.Hour)
	require.NoError(t, db.Close())
	keepcache.ShallowBytes(0)
	t.Cleanup(func() { keepcache.ShallowBytes(16 << 20) })
	info, err := os.Stat(path)
	require.NoError(t, err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	size := int64(os.Getpagesize())
	leaves := 0
	for at := 2 * size; at < info.Size(); at += size {
		head := make([]byte, 16)
		_, err := f.ReadAt(head, at)
		require.NoError(t, err)
		if head[8] == 2 && head[10] > 10 {
			leaves++
			change(head)
			_, err = f.WriteAt(head, at)
			require.NoError(t, err)
		}
	}
	require.Greater(t, leaves, 50)
	require.NoError(t, f.Close())
	require.NoError(t, os.Chtimes(path, time.Time{}, info.ModTime()))
	require.True(t, markedClean(t, path))
	return path
}

// A file that was closed in order is proved before its first change: bbolt would add 2^31 pages to its list of free
// ones here. For reading alone it is not.
func TestClose_MarkOfEndlessPages(t *testing.T) {
	path := closedWithLeaves(t, func(head []byte) { binary.NativeEndian.PutUint32(head[12:], 1<<31) })

	db := openDamaged(t, path, nil)
	requireValue(t, db.Bucket("b"), numbered(7), int64(7))
	require.Zero(t, db.Stats().Health.Quarantined)
	mustSet(t, db.Bucket("b"), numbered(7), "new", 0)
	_, err := db.Sweep(context.Background())
	require.ErrorIs(t, err, keepcache.ErrUnavailable)
	requireQuarantined(t, db)
	requireValue(t, db.Bucket("b"), numbered(7), "new")
	committed(t, db)
}
