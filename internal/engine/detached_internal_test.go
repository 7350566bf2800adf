package engine

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/store"
)

// A detached transaction may continue after the file has been reopened, while another one writes the same entries. The
// two do not share memory that either of them changes.
func TestStrays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := open(t, filepath.Join(t.TempDir(), "test.cache"), Config{CommitInterval: -1, SweepInterval: -1})
		b := db.Bucket("b")
		require.NoError(t, b.Set("a", 1, 0))
		require.NoError(t, db.commits.commit())
		require.NoError(t, b.Set("k", 1, time.Hour))

		pins := db.memory.Collect(nil, true)
		changes, _ := changesOf(db.memory, pins)
		thaw := make(chan struct{})
		h := db.store.Handle()
		hang := func(store.EvictTx) error { <-thaw; return store.ErrHung }
		err := db.store.Apply(nil, 0, changes, db.commits.committed(), hang)
		require.ErrorIs(t, err, errs.ErrUnavailable)
		require.Equal(t, int64(1), db.store.DetachedCount())
		require.Same(t, h, db.store.Handle())
		room := pins[0].Stored[:format.RowSize]
		for i := range room {
			room[i] = 0xEE // as the detached transaction may do
		}
		before := slices.Clone(room)
		for db.store.Handle() == h {
			time.Sleep(time.Second) // meanwhile the healer has what is pinned committed
		}
		require.NoError(t, db.commits.commit())
		require.Equal(t, before, room)
		report, err := db.Verify(context.Background())
		require.NoError(t, err)
		require.Empty(t, report.Problems)
		var got int
		found, err := b.Get("k", &got)
		require.NoError(t, err)
		require.True(t, found)

		close(thaw)
		synctest.Wait()
		require.Zero(t, db.store.DetachedCount())
		require.NoError(t, b.Set("k", 2, time.Hour))
		require.NoError(t, db.commits.commit())
	})
}
