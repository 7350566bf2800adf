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

// Where each copy that takes the place of the file is in the trouble of the one before, attempts to heal are as rare as
// where none can be made.
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

// A file whose trouble lasts takes no journal from the cache that was not made yet: writes go on in memory and in the
// journal, and none of them waits for commits, which fail.
func TestHeal_UnmadeJournal(t *testing.T) {
	skipOnWindows(t, "the file cannot be taken away")
	path := filepath.Join(t.TempDir(), "cache")
	o := healOptions
	o.OnCorruption = keepcache.CorruptionFail
	synctest.Test(t, func(t *testing.T) {
		db, err := keepcache.Open(path, &o)
		require.NoError(t, err)
		require.NoError(t, fillToHeal(db))
		require.NoError(t, db.Close())
		db, err = keepcache.Open(path, &o)
		require.NoError(t, err)
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(path, 5000))
		db.Heal()
		require.True(t, db.Stats().Health.Unavailable)

		b, start := db.Bucket("b"), time.Now()
		for i := range 200 {
			require.NoError(t, b.Set(numbered(i), i, 0))
		}
		require.Zero(t, time.Since(start))
		require.NoError(t, db.Sync(context.Background()))
		require.FileExists(t, path+"-journal")

		require.NoError(t, os.WriteFile(path, whole, 0o600))
		db.Heal()
		require.NoError(t, db.Close())
	})
	checkFile(t, path)
	db := open(t, path, nil)
	for i := range 200 {
		requireValue(t, db.Bucket("b"), numbered(i), int64(i))
	}
}

// Where the journal was taken away together with the file, a cache that owes nothing to the file makes a new one. One
// that does can only wait for commits, and where these fail writes fail too, but not one by one after a wait, and what
// they would have replaced is still there.
func TestHeal_JournalTaken(t *testing.T) {
	skipOnWindows(t, "the file cannot be taken away")
	for _, owes := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "cache")
		o := healOptions
		o.OnCorruption = keepcache.CorruptionFail
		synctest.Test(t, func(t *testing.T) {
			db, err := keepcache.Open(path, &o)
			require.NoError(t, err)
			fillToTake(t, db)
			b := db.Bucket("b")
			mustSet(t, b, "late1", 1, 0) // the file lacks it
			if !owes {
				_, err := db.Sweep(context.Background())
				require.NoError(t, err)
			}
			whole, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(path, 5000))
			require.NoError(t, os.Remove(path+"-journal"))
			db.Heal()
			synctest.Wait()

			start := time.Now()
			for i := range 200 {
				err := b.Set("late1", 1000+i, 0)
				if !owes {
					require.NoError(t, err)
					requireValue(t, b, "late1", int64(1000+i))
					continue
				}
				require.ErrorIs(t, err, keepcache.ErrUnavailable)
				require.NotErrorIs(t, err, keepcache.ErrUnknownOutcome)
				requireValue(t, b, "late1", int64(1))
			}
			require.Less(t, time.Since(start), time.Second)
			if !owes {
				require.FileExists(t, path+"-journal")
			}

			require.NoError(t, os.WriteFile(path, whole, 0o600))
			db.Heal()
			synctest.Wait()
			require.NoError(t, b.Set("late2", 2000, 0))
			require.NoError(t, db.Close())
		})
		checkFile(t, path)
		db := open(t, path, nil)
		requireValue(t, db.Bucket("b"), "late2", int64(2000))
		want := int64(1)
		if !owes {
			want = 1199
		}
		requireValue(t, db.Bucket("b"), "late1", want)
	}
}

// What reads have given an entry to live is still its own after a write of its key that was taken back, and the file
// hears nothing else of it.
func TestHeal_RetractSliding(t *testing.T) {
	skipOnWindows(t, "the file cannot be taken away")
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "cache")
		o := healOptions
		o.OnCorruption, o.CommitInterval, o.SweepInterval = keepcache.CorruptionFail, -1, -1
		o.Buckets = map[string]keepcache.BucketOptions{"sliding": {Sliding: true}}
		db, err := keepcache.Open(path, &o)
		require.NoError(t, err)
		fillToTake(t, db)
		b := db.Bucket("sliding")
		mustSet(t, b, "k", 1, 80*time.Second)
		time.Sleep(5 * time.Second)
		requireValue(t, b, "k", int64(1)) // which memory alone knows of
		ttl := func() time.Duration {
			left, found, err := b.TTL("k")
			require.NoError(t, err)
			require.True(t, found)
			return left
		}
		require.Equal(t, 80*time.Second, ttl())

		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(path, 5000))
		require.NoError(t, os.Remove(path+"-journal"))
		db.Heal()
		synctest.Wait()
		start := time.Now()
		require.ErrorIs(t, b.Set("k", 2, time.Second), keepcache.ErrUnavailable)
		require.NoError(t, os.WriteFile(path, whole, 0o600))
		db.Heal()
		synctest.Wait()
		require.Equal(t, 80*time.Second-time.Since(start), ttl())
		committed(t, db)
		sound(t, db)
		require.Equal(t, 80*time.Second-time.Since(start), ttl())
		require.NoError(t, db.Close())
	})
}

// Where a journal could not be made for a moment while the file is unavailable, only the write that met this is
// refused.
func TestHeal_JournalNotMade(t *testing.T) {
	skipOnWindows(t, "the file cannot be taken away")
	path := filepath.Join(t.TempDir(), "cache")
	o := healOptions
	o.OnCorruption = keepcache.CorruptionFail
	var full atomic.Bool
	disk.Between = func(op *disk.Op, do func() error) error {
		if op.Kind == disk.KindCreate && filepath.Base(op.Path) == "cache-journal.new" && full.Load() {
			return &os.PathError{Op: "open", Path: op.Path, Err: syscall.EMFILE}
		}
		return do()
	}
	defer func() { disk.Between = nil }()
	synctest.Test(t, func(t *testing.T) {
		db, err := keepcache.Open(path, &o)
		require.NoError(t, err)
		require.NoError(t, fillToHeal(db))
		require.NoError(t, db.Close())
		db, err = keepcache.Open(path, &o)
		require.NoError(t, err)
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(path, 5000))
		db.Heal()
		require.True(t, db.Stats().Health.Unavailable)
		b := db.Bucket("b")
		full.Store(true)
		err = b.Set("refused", 1, 0)
		require.ErrorIs(t, err, syscall.EMFILE)
		require.NotErrorIs(t, err, keepcache.ErrUnknownOutcome)
		found, err := b.Exists("refused")
		require.NoError(t, err)
		require.False(t, found)
		full.Store(false)
		require.NoError(t, b.Set("taken", 1, 0))
		require.FileExists(t, path+"-journal")

		require.NoError(t, os.WriteFile(path, whole, 0o600))
		db.Heal()
		require.NoError(t, db.Close())
	})
}
