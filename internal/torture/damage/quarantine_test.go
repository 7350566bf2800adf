package damage_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

// Open keeps a damaged file aside and takes over what it can: identity, revisions, names, and what the journal has.
func TestQuarantine_Open(t *testing.T) {
	cachetest.SkipOnWindows(t, "an open file cannot be replaced")
	path := cachetest.Crashed(t, func(db *keepcache.DB) {
		for i := range 20 {
			cachetest.MustSet(t, db.Bucket(fmt.Sprint("bucket", i%3)), fmt.Sprint("late", i), i, 0)
		}
	})
	identity, last := metaOf(t, path)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	damaged := bytes.Clone(content)
	clear(damaged[:8192]) // both meta pages; what they lead to is found without them
	require.NoError(t, os.WriteFile(path, damaged, 0o600))

	_, err = cachetest.TryOpen(path, &keepcache.Options{OnCorruption: keepcache.CorruptionFail})
	cachetest.RequireError(t, err, keepcache.ErrCorrupt, "open", path)
	require.ErrorContains(t, err, "keepcache repair")
	_, err = cachetest.TryOpen(path, &keepcache.Options{ReadOnly: true})
	cachetest.RequireError(t, err, keepcache.ErrCorrupt, "open", path)

	var told []keepcache.Event
	db := cachetest.Open(t, path, &keepcache.Options{Events: keepcache.Events{
		Handle: func(e keepcache.Event) { told = append(told, e) },
	}})
	for i := range 20 {
		cachetest.RequireValue(t, db.Bucket(fmt.Sprint("bucket", i%3)), fmt.Sprint("late", i), int64(i))
	}
	cachetest.RequireValue(t, db.Bucket("b"), "first", int64(1)) // was in the file, and is in the journal still
	cachetest.MustSet(t, db.Bucket("b"), "next", 1, 0)
	entry, _, err := db.Bucket("b").Stat("next")
	require.NoError(t, err)
	require.Greater(t, entry.Revision, last+20)
	require.Len(t, told, 1)
	require.Equal(t, keepcache.EventQuarantine, told[0].Kind)
	require.ErrorIs(t, told[0].Err, keepcache.ErrCorrupt)
	aside, err := filepath.Glob(path + ".corrupt-*")
	require.NoError(t, err)
	require.Equal(t, []string{told[0].Detail}, aside)
	require.Equal(t, uint64(1), db.Stats().Health.Quarantined)
	kept, err := os.ReadFile(aside[0])
	require.NoError(t, err)
	require.True(t, bytes.Equal(damaged, kept))
	require.NoError(t, db.Close())
	same, _ := metaOf(t, path)
	require.Equal(t, identity, same)
}

// metaOf returns the identity and the commit mark of a closed cache.
func metaOf(t *testing.T, path string) (identity string, mark uint64) {
	t.Helper()
	cachetest.WithBolt(t, path, true, func(tx *bolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		identity = string(meta.Get([]byte("identity")))
		for _, b := range meta.Get([]byte("sequence")) {
			mark = mark<<8 | uint64(b)
		}
		return nil
	})
	return identity, mark
}

// The files that are kept aside are bounded in number; the oldest go.
func TestQuarantine_Bound(t *testing.T) {
	cachetest.SkipOnWindows(t, "an open file cannot be replaced")
	path := cachetest.NewPath(t)
	var newest []string
	for i := range 6 {
		db := cachetest.OpenUnchecked(t, path)
		cachetest.MustSet(t, db.Bucket("b"), "k", i, 0)
		require.NoError(t, db.Close())
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		clear(content[:8192])
		require.NoError(t, os.WriteFile(path, content, 0o600))
		db = cachetest.OpenUnchecked(t, path)
		newest = append(newest, db.Stats().Health.Aside)
		require.NoError(t, db.Close())
	}
	aside, err := filepath.Glob(path + ".corrupt-*")
	require.NoError(t, err)
	require.Equal(t, newest[3:], aside)
}

// What is no cache is left alone, whatever the option.
func TestQuarantine_Foreign(t *testing.T) {
	path := cachetest.NewPath(t)
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("text\n"), 10_000), 0o600))
	before := cachetest.Snapshot(t, path)
	_, err := cachetest.TryOpen(path, nil)
	cachetest.RequireError(t, err, keepcache.ErrFormat, "open", path)
	require.Equal(t, before, cachetest.Snapshot(t, path))
}

// Revisions go on where no meta page leads to the last root and older ones lie before it in the file.
func TestQuarantine_Revisions(t *testing.T) {
	cachetest.SkipOnWindows(t, "an open file cannot be replaced")
	for commits := range 6 {
		path := cachetest.NewPath(t)
		db := cachetest.OpenUnchecked(t, path)
		for i := range 20 + commits {
			cachetest.MustSet(t, db.Bucket("b"), "k", i, 0)
			cachetest.Committed(t, db)
		}
		last, _, err := db.Bucket("b").Stat("k")
		require.NoError(t, err)
		require.NoError(t, db.Close())
		cachetest.BreakFile(t, path)

		db = cachetest.Open(t, path, nil)
		cachetest.MustSet(t, db.Bucket("b"), "k", "next", 0)
		next, _, err := db.Bucket("b").Stat("k")
		require.NoError(t, err)
		require.Greater(t, next.Revision, last.Revision)
		require.NoError(t, db.Close())
	}
}

// A tag that was invalidated stays so where nobody can read that in the damaged file: a load that began before lands
// after the mark from which on the journal counts.
func TestQuarantine_Tags(t *testing.T) {
	cachetest.SkipOnWindows(t, "an open file cannot be replaced")
	path := cachetest.NewPath(t)
	db := cachetest.Open(t, path, &keepcache.Options{
		CommitInterval: time.Hour, SweepInterval: -1, CompactBytes: -1, JournalBytes: 64 << 10, MemoryBytes: 4 << 20,
	})
	b := db.Bucket("b")
	cachetest.Fill(t, b, 5, 0)
	begun, end, landed := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		var value string
		_, err := b.WithTags("tag").GetOrLoad(context.Background(), "loaded", &value,
			func(context.Context, *keepcache.Load) (any, error) {
				close(begun)
				<-end
				return "from before", nil
			}, nil)
		landed <- err
	}()
	<-begun
	require.NoError(t, db.InvalidateTags("tag"))
	cachetest.MustSet(t, b, "large", make([]byte, 50_000), 0) // past the journal
	close(end)
	require.NoError(t, <-landed)
	cachetest.RequireAbsent(t, b, "loaded")
	cachetest.MustSet(t, b, "after", 2, 0)
	cachetest.MustSet(t, b.WithTags("tag"), "tagged after", 3, 0)
	require.NoError(t, db.Sync(context.Background()))
	path = cachetest.CrashCopy(t, path, cachetest.NewPath(t))
	content := cachetest.BreakFile(t, path)
	for page := range slices.Chunk(content, os.Getpagesize()) {
		if bytes.Contains(page, []byte("buckets")) {
			clear(page) // all roots
		}
	}
	require.NoError(t, os.WriteFile(path, content, 0o600))

	b = cachetest.Open(t, path, nil).Bucket("b")
	cachetest.RequireAbsent(t, b, "loaded")
	cachetest.RequireValue(t, b, "after", int64(2))
	cachetest.RequireValue(t, b, "tagged after", int64(3))
}

// A write that was too large for the journal is lost with the file that had it, but what it replaced does not come
// back, although the journal has that. What came after it is there, also where nobody can read the names of buckets in
// the file.
func TestQuarantine_PastJournal(t *testing.T) {
	cachetest.SkipOnWindows(t, "an open file cannot be replaced")
	large := bytes.Repeat([]byte("x"), 50_000)
	for _, what := range []string{"before others", "last", "no root is left"} {
		t.Run(what, func(t *testing.T) {
			path := cachetest.NewPath(t)
			db := cachetest.Open(t, path, &keepcache.Options{
				CommitInterval: time.Hour, SweepInterval: -1, CompactBytes: -1, JournalBytes: 64 << 10, MemoryBytes: 4 << 20,
			})
			b := db.Bucket("b")
			cachetest.MustSet(t, b, "replaced", "old", 0)
			cachetest.MustSet(t, b, "kept", "old", 0)
			cachetest.Fill(t, b, 5, 0)
			cachetest.MustSet(t, b, "replaced", large, 0)
			if what != "last" {
				cachetest.MustSet(t, b, "kept", "new", 0)
			}
			require.NoError(t, db.Sync(context.Background()))
			path = cachetest.CrashCopy(t, path, cachetest.NewPath(t))
			content := cachetest.BreakFile(t, path)
			if what == "no root is left" {
				for page := range slices.Chunk(content, os.Getpagesize()) {
					if bytes.Contains(page, []byte("buckets")) {
						clear(page)
					}
				}
				require.NoError(t, os.WriteFile(path, content, 0o600))
			}

			b = cachetest.Open(t, path, nil).Bucket("b")
			cachetest.RequireAbsent(t, b, "replaced")
			if what != "last" {
				cachetest.RequireValue(t, b, "kept", "new")
			}
		})
	}
}
