package lockless

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/store"
)

// A read without the lock starts over if something changes meanwhile, whatever it has read already.
func TestLive_ReadsAgain(t *testing.T) {
	large := strings.Repeat("x", 200_000) // too large for the journal
	for name, disturb := range map[string]func(*testing.T, *writer) string{
		"a commit": func(t *testing.T, w *writer) string {
			w.set(t, "k", "new")
			require.NoError(t, w.Commit())
			return "new"
		},
		"a write into the journal, and a transaction that leaves the mark": func(t *testing.T, w *writer) string {
			w.set(t, "k", "new")
			require.NoError(t, w.Store().Update(func(tx *bolt.Tx) error {
				return tx.Bucket(format.MetaBucket).Put([]byte("test"), nil)
			}))
			return "new"
		},
		"a write that is in no journal": func(t *testing.T, w *writer) string {
			w.set(t, "k", large)
			return large
		},
		"a compaction, and a Close that removes the journal": func(t *testing.T, w *writer) string {
			if !store.CanReplace {
				t.Skip("an open file cannot be replaced")
			}
			require.NoError(t, w.Compact(t.Context()))
			w.set(t, "k", "new")
			w.close(t)
			return "new"
		},
		"a bucket that comes with a write that is in no journal": func(t *testing.T, w *writer) string {
			_, err := w.Replace("default", true)
			require.NoError(t, err)
			w.set(t, "k", large)
			return large
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			w := openWriter(t, path)
			w.set(t, "k", "old")
			l := openReader(t, path)
			defer func() { require.NoError(t, l.Close(l.Shut())) }()
			tail := newTail("default")
			calls, want := 0, ""
			var got []byte
			require.NoError(t, l.withView(tail, func(v *view) error {
				rec, known := tail.find(v.id(), "k", v.mark)
				if !known {
					entries, err := v.entries(v.id())
					require.NoError(t, err)
					stored, _, err := entries.Get([]byte("k"))
					require.NoError(t, err)
					_, rec = format.SplitRow(stored, []byte("k"))
				}
				got = format.Value(rec)
				if calls++; calls == 1 {
					want = disturb(t, w)
				}
				return nil
			}))
			require.GreaterOrEqual(t, calls, 2)
			require.True(t, bytes.HasSuffix(got, []byte(want)), "%.20q", got)
		})
	}
}

// A reader that has switched to a new directory closes both, and does not switch any more afterwards.
func TestLive_CloseMoved(t *testing.T) {
	if !store.CanReplace {
		t.Skip("the directory of an open file cannot be removed")
	}
	path := filepath.Join(t.TempDir(), "in", "test.cache")
	fill := func() {
		require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
		w := openWriter(t, path)
		w.set(t, "k", "v")
		w.close(t)
	}
	fill()
	l := openReader(t, path)
	was := l.dir.Load()
	require.NoError(t, os.RemoveAll(filepath.Dir(path)))
	fill()
	r, err := l.Read(&engine.Ref{Name: "default"}, "k", false)
	require.NoError(t, err)
	require.True(t, r.Live)
	now := l.dir.Load()
	require.NotSame(t, was, now)
	require.NoError(t, l.Close(l.Shut()))
	for _, dir := range []*disk.Dir{was, now} {
		_, err := dir.Lstat(path)
		require.ErrorIs(t, err, fs.ErrClosed)
	}
	require.False(t, l.move(now, was))
}
