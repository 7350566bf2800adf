package damage_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

// openBad opens a cache with a bad journal and returns what it told.
func openBad(t *testing.T, path string, readOnly bool) (*keepcache.DB, []keepcache.Event) {
	t.Helper()
	var told []keepcache.Event
	db := cachetest.Open(t, path, &keepcache.Options{ReadOnly: readOnly, Events: keepcache.Events{
		Handle: func(e keepcache.Event) { told = append(told, e) },
	}})
	return db, told
}

// requireAside requires that the journal is kept aside, and removes it.
func requireAside(t *testing.T, path string, db *keepcache.DB) {
	t.Helper()
	aside, err := filepath.Glob(path + "-journal.aside-*")
	require.NoError(t, err)
	require.Len(t, aside, 1)
	require.Equal(t, aside[0], db.Stats().Health.Aside)
	require.NoError(t, os.Remove(aside[0]))
}

// A damaged place in the middle of the journal costs what it held; the rest is there, and it is told, counted and kept.
func TestJournal_Hole(t *testing.T) {
	path := cachetest.Crashed(t, func(db *keepcache.DB) {
		for i := range 400 {
			require.NoError(t, db.Bucket("b").SetBytes(cachetest.Numbered(i), make([]byte, 1000), 0))
			if i == 300 { // what follows says up to where the journal is known to be on disk
				require.NoError(t, db.Sync(context.Background()))
			}
		}
	})
	f, err := os.OpenFile(path+"-journal", os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, 64<<10), 128<<10)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	for _, readOnly := range []bool{true, false} {
		db, told := openBad(t, path, readOnly)
		n, err := db.Bucket("b").Len()
		require.NoError(t, err)
		require.Greater(t, n, 300)
		require.Less(t, n, 399)
		exists, err := db.Bucket("b").Exists(cachetest.Numbered(399))
		require.NoError(t, err)
		require.True(t, exists)
		require.NotEmpty(t, told)
		require.Equal(t, keepcache.EventCorrupt, told[0].Kind)
		require.ErrorIs(t, told[0].Err, keepcache.ErrCorrupt)
		health := db.Stats().Health
		require.Equal(t, uint64(1), health.BadJournals)
		require.GreaterOrEqual(t, int(health.LostWrites), 401-n)
		if !readOnly {
			require.Equal(t, keepcache.EventQuarantine, told[1].Kind)
			requireAside(t, path, db)
		}
		require.NoError(t, db.Close())
	}
}

// A torn tail is the normal end of a journal: nothing is told.
func TestJournal_TornTail(t *testing.T) {
	path := cachetest.Crashed(t, func(db *keepcache.DB) { cachetest.MustSet(t, db.Bucket("b"), "flushed", 1, 0) })
	content, err := os.ReadFile(path + "-journal")
	require.NoError(t, err)
	end := len(content) - 1
	for ; content[end] == 0; end-- {
	}
	copy(content[end+1:], "torn")
	require.NoError(t, os.WriteFile(path+"-journal", content, 0o600))
	db, told := openBad(t, path, false)
	cachetest.RequireValue(t, db.Bucket("b"), "flushed", int64(1))
	require.Empty(t, told)
	require.Zero(t, db.Stats().Health)
}

// A log record that is whole but makes no sense costs itself alone.
func TestJournal_Malformed(t *testing.T) {
	path := cachetest.Crashed(t, func(*keepcache.DB) {})
	var identity [16]byte
	var mark uint64
	cachetest.WithBolt(t, path, true, func(tx *bolt.Tx) error {
		copy(identity[:], tx.Bucket([]byte("meta")).Get([]byte("identity")))
		for _, b := range tx.Bucket([]byte("meta")).Get([]byte("sequence")) {
			mark = mark<<8 | uint64(b)
		}
		return nil
	})
	require.NoError(t, os.Remove(path+"-journal"))
	j, err := journal.New(path+"-journal", journal.Options{Identity: identity, After: mark})
	require.NoError(t, err)
	remove := func(key string) []byte { return append([]byte{2, 1, byte(len(key))}, key...) }
	name := func(id byte, name string) []byte { return append([]byte{3, id, byte(len(name))}, name...) }
	for i, logRecord := range [][]byte{
		name(7, "before"), {9, 9, 9}, append(remove("first"), 0xff), {1, 1, 1, 1, 'k', 'v'},
		append(remove("x"), remove("y")...), name(8, "after"),
	} {
		revision := mark + uint64(i) + 1
		require.NoError(t, j.Append(revision, revision, logRecord))
	}
	require.NoError(t, j.Flush(mark+6))
	require.NoError(t, j.Close(false))

	db, told := openBad(t, path, false)
	cachetest.RequireValue(t, db.Bucket("b"), "first", int64(1))
	names, err := db.Buckets()
	require.NoError(t, err)
	require.Equal(t, []string{"after", "b", "before"}, names)
	require.Equal(t, uint64(4), db.Stats().Health.LostWrites)
	require.Equal(t, keepcache.EventCorrupt, told[0].Kind)
	requireAside(t, path, db)
	entry, _, err := db.Bucket("b").Stat("first")
	require.NoError(t, err)
	cachetest.MustSet(t, db.Bucket("b"), "next", 1, 0)
	next, _, err := db.Bucket("b").Stat("next")
	require.NoError(t, err)
	require.Greater(t, next.Revision, entry.Revision+6, "revisions go on behind the lost ones")
}
