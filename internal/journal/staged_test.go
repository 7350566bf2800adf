package journal_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	calls "github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/journal"
)

// A staged journal leaves the one at its path alone until it replaces it, and goes on from there.
func TestReplace(t *testing.T) {
	inEachMode(t, func(t *testing.T, o journal.Options) {
		path := tempPath(t)
		old := newJournal(t, path, o)
		require.NoError(t, old.Append(1, 5, []byte("old")))
		require.NoError(t, old.Append(6, 6, []byte("both")))
		require.NoError(t, old.Close(false))
		before, err := os.ReadFile(path)
		require.NoError(t, err)

		o.Staged, o.After = true, 5
		j := newJournal(t, path, o)
		require.NoError(t, j.Append(6, 6, []byte("both")))
		require.NoError(t, j.Flush(6))
		now, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, before, now)

		require.NoError(t, j.Replace())
		require.NoFileExists(t, path+".new")
		require.Zero(t, j.Stats().Appends)
		want := []record{{6, 6, []byte("both")}}
		got, r := replay(t, path, 5)
		requireClean(t, r)
		requireSame(t, want, got)

		// The name is on disk with the next flush, also of nothing new.
		var synced []string
		calls.Between = func(op *calls.Op, do func() error) error {
			if op.Kind == calls.KindSyncDir {
				synced = append(synced, op.Path)
			}
			return do()
		}
		defer func() { calls.Between = nil }()
		require.NoError(t, j.Flush(6))
		require.NoError(t, j.Append(7, 7, []byte("new")))
		require.NoError(t, j.Flush(7))
		require.Equal(t, []string{path[:strings.LastIndexByte(path, os.PathSeparator)]}, synced)
		got, r = replay(t, path, 5)
		requireClean(t, r)
		requireSame(t, append(want, record{7, 7, []byte("new")}), got)

		require.NoError(t, j.Close(true))
		require.NoFileExists(t, path)
	})
}

// A staged journal that is closed before it has replaced anything leaves nothing, or what a crash there would, and
// never touches what is at its path.
func TestReplace_Not(t *testing.T) {
	for _, remove := range []bool{true, false} {
		path := tempPath(t)
		require.NoError(t, os.WriteFile(path, []byte("anything"), 0o600))
		j := newJournal(t, path, journal.Options{Staged: true})
		require.NoError(t, j.Append(1, 1, []byte("one")))
		require.NoError(t, j.Close(remove))
		require.ErrorIs(t, j.Replace(), journal.ErrClosed)
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "anything", string(content))
		_, err = os.Stat(path + ".new")
		require.Equal(t, remove, os.IsNotExist(err))
	}
}
