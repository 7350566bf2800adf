package keepcache_test

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/disk"
)

// Where each copy that takes the place of the file is in the trouble of the one before, attempts to heal are as rare as where none
// can be made.
func TestHeal_Pause(t *testing.T) {
	skipOnWindows(t, "an open file cannot be replaced")
	for _, after := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "cache")
		synctest.Test(t, func(t *testing.T) {
			db, err := keepcache.Open(path, &keepcache.Options{CompactBytes: -1})
			require.NoError(t, err)
			require.NoError(t, fillToHeal(db))
			broken, renamed := atomic.Bool{}, atomic.Int64{}
			disk.Between = func(op *disk.Op, do func() error) error {
				switch {
				case op.Kind == disk.KindRename:
					renamed.Add(1)
				case op.Kind == disk.KindSyncDir && broken.Load():
					if after {
						_ = do()
					}
					return &os.PathError{Op: "sync", Path: op.Path, Err: syscall.EIO}
				}
				return do()
			}
			defer func() { disk.Between = nil }()
			broken.Store(true)
			require.ErrorIs(t, db.Compact(context.Background()), syscall.EIO)
			const minute = time.Minute
			time.Sleep(minute)
			synctest.Wait()
			require.LessOrEqual(t, renamed.Load(), int64(20))
			require.Greater(t, renamed.Load(), int64(4))
			require.True(t, db.Stats().Health.Unavailable)
			require.ErrorIs(t, db.Stats().Health.Err, syscall.EIO)
			require.EqualValues(t, 1, db.Stats().Health.Failures)

			broken.Store(false)
			time.Sleep(minute)
			synctest.Wait()
			require.False(t, db.Stats().Health.Unavailable)
			require.NoError(t, lookHealed(db, true))
			require.NoError(t, db.Close())
		})
		checkFile(t, path)
	}
}
