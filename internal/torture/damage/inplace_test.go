package damage_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

// An empty file is a new cache, in place and with its own mode. Who only reads is told that there is none in it yet.
func TestOpen_EmptyFile(t *testing.T) {
	path := cachetest.NewPath(t)
	require.NoError(t, os.WriteFile(path, nil, 0o640))
	require.NoError(t, os.Chmod(path, 0o640))
	before, err := os.Stat(path)
	require.NoError(t, err)
	for _, o := range []keepcache.Options{{ReadOnly: true}, {ReadOnly: true, NoLock: true}} {
		_, err := cachetest.TryOpen(path, &o)
		cachetest.RequireError(t, err, keepcache.ErrFormat, "open", path)
		require.ErrorContains(t, err, "it is empty")
		require.ErrorContains(t, err, "first Open for writing")
	}
	now, err := os.Stat(path)
	require.NoError(t, err)
	require.Zero(t, now.Size())

	db := cachetest.Open(t, path, &keepcache.Options{OnCorruption: keepcache.CorruptionFail})
	cachetest.MustSet(t, db.Bucket("b"), "k", "v", 0)
	db = cachetest.Reopen(t, db, path, nil)
	cachetest.RequireValue(t, db.Bucket("b"), "k", "v")
	require.NoError(t, db.Close())
	now, err = os.Stat(path)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, now))
	require.Equal(t, before.Mode(), now.Mode())
}

// A cache that somebody has emptied while it was closed after a crash gets what its journal has.
func TestOpen_EmptiedFile(t *testing.T) {
	path := cachetest.Crashed(t, func(db *keepcache.DB) { cachetest.MustSet(t, db.Bucket("b"), "late", 1, 0) })
	require.NoError(t, os.Truncate(path, 0))
	db := cachetest.Open(t, path, nil)
	cachetest.RequireValue(t, db.Bucket("b"), "late", int64(1))
	require.Zero(t, db.Stats().Health.BadJournals)
}

// A crash in the middle of making a cache in place, of a process or of the machine, leaves what the next Open finishes.
func TestOpen_EmptyFileCrash(t *testing.T) {
	path := cachetest.NewPath(t)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	states := statesOf(t, path, func() { require.NoError(t, cachetest.OpenUnchecked(t, path).Close()) })
	require.Greater(t, len(states), 5)
	for i, state := range states {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			path := cachetest.NewPath(t)
			require.NoError(t, os.WriteFile(path, state, 0o600))
			db := cachetest.Open(t, path, &keepcache.Options{OnCorruption: keepcache.CorruptionFail})
			n, err := db.Bucket("b").Len()
			require.NoError(t, err)
			require.Zero(t, n)
			cachetest.MustSet(t, db.Bucket("b"), "k", "v", 0)
		})
	}
}

// statesOf returns the contents that a crash may leave of the file at path until the first transaction after fn has
// made it: after each call, and where power is lost what was synced with some sectors of what was not.
func statesOf(t *testing.T, path string, fn func()) (states [][]byte) {
	t.Helper()
	durable, err := os.ReadFile(path)
	require.NoError(t, err)
	type op struct {
		data []byte // nil: cut to off
		off  int64
	}
	var pending []op
	random := rand.New(rand.NewPCG(1, 2))
	apply := func(b []byte, o op) []byte {
		if o.data == nil {
			return append(b, make([]byte, max(0, int(o.off)-len(b)))...)[:o.off]
		}
		b = append(b, make([]byte, max(0, int(o.off)+len(o.data)-len(b)))...)
		copy(b[o.off:], o.data)
		return b
	}
	look := func() {
		const sector = 512
		for try := range 4 {
			state := bytes.Clone(durable)
			for _, o := range pending {
				if try == 0 || o.data == nil {
					state = apply(state, o)
					continue
				}
				for at := 0; at < len(o.data); at += sector {
					part := o.data[at:min(at+sector, len(o.data))]
					if random.IntN(2) == 0 {
						part = make([]byte, len(part))
						if from := int(o.off) + at; from < len(state) {
							copy(part, state[from:])
						}
					}
					state = apply(state, op{part, o.off + int64(at)})
				}
			}
			if !slices.ContainsFunc(states, func(other []byte) bool { return bytes.Equal(other, state) }) {
				states = append(states, state)
			}
		}
	}
	syncs := 0
	disk.Between = func(o *disk.Op, do func() error) error {
		if err := do(); err != nil || o.File == nil || o.File.Name() != path || syncs == 4 {
			return err
		}
		switch o.Kind {
		case disk.KindWrite:
			pending = append(pending, op{bytes.Clone(o.Data), o.Off})
		case disk.KindTruncate:
			pending = append(pending, op{nil, o.Off})
		case disk.KindSync:
			for _, p := range pending {
				durable = apply(durable, p)
			}
			pending, syncs = nil, syncs+1
		}
		look()
		return nil
	}
	defer func() { disk.Between = nil }()
	fn()
	require.Equal(t, 4, syncs)
	return states
}

// fixed has the file test.cache be as a mount of its own is until the test is over: nothing can be renamed over it, and
// it gets no second name.
func fixed(t *testing.T) {
	disk.Between = func(op *disk.Op, do func() error) error {
		const name = "test.cache"
		switch {
		case op.Kind == disk.KindRename && (filepath.Base(op.To) == name || filepath.Base(op.Path) == name):
			return &os.LinkError{Op: "rename", Old: op.Path, New: op.To, Err: syscall.EBUSY}
		case op.Kind == disk.KindLink && filepath.Base(op.Path) == name:
			return &os.LinkError{Op: "link", Old: op.Path, New: op.To, Err: syscall.EXDEV}
		}
		return do()
	}
	t.Cleanup(func() { disk.Between = nil })
}

// What is kept of a damaged file that is made anew in place is told, and a crash in the middle of that is repaired by
// the next Open, with all that the journal has.
func TestQuarantine_InPlaceCrash(t *testing.T) {
	cachetest.SkipOnWindows(t, "a file that is open is not made anew")
	made := cachetest.Crashed(t, func(db *keepcache.DB) {
		for i := range 20 {
			cachetest.MustSet(t, db.Bucket(fmt.Sprint("bucket", i%3)), fmt.Sprint("late", i), i, 0)
		}
	})
	cachetest.BreakFile(t, made)
	start := filepath.Dir(made)
	fixed(t)
	path := filepath.Join(t.TempDir(), filepath.Base(made))
	require.NoError(t, os.CopyFS(filepath.Dir(path), os.DirFS(start)))
	between := disk.Between
	disk.Between = nil
	states := statesOf(t, path, func() {
		outer := disk.Between
		disk.Between = func(op *disk.Op, do func() error) error { return outer(op, func() error { return between(op, do) }) }
		require.NoError(t, cachetest.OpenUnchecked(t, path).Close())
	})
	disk.Between = between
	aside, err := filepath.Glob(path + ".corrupt-*")
	require.NoError(t, err)
	require.Len(t, aside, 1)
	require.Greater(t, len(states), 5)
	for i, state := range states {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), filepath.Base(path))
			require.NoError(t, os.CopyFS(filepath.Dir(path), os.DirFS(start)))
			content, err := os.ReadFile(aside[0])
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), filepath.Base(aside[0])), content, 0o600))
			require.NoError(t, os.WriteFile(path, state, 0o600))
			db := cachetest.OpenDamaged(t, path, nil)
			for i := range 20 {
				cachetest.RequireValue(t, db.Bucket(fmt.Sprint("bucket", i%3)), fmt.Sprint("late", i), int64(i))
			}
			cachetest.Sound(t, db)
		})
	}
}
