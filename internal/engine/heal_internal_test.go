package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/store"
)

// healings is a Listener with functions for healed and quarantined files. They may be nil.
type healings struct {
	nopListener
	healed, quarantined func()
}

func (h healings) Healed(string) {
	if h.healed != nil {
		h.healed()
	}
}

func (h healings) Quarantined(string, error) {
	if h.quarantined != nil {
		h.quarantined()
	}
}

// A commit may have written to a file that is found damaged before memory knows of the commit. Then the fresh file gets
// its entries too. The listener may wait for a commit when it is called for the quarantined file.
func TestHeal_Commit(t *testing.T) {
	if !store.CanReplace {
		t.Skip("an open file cannot be replaced")
	}
	path := filepath.Join(t.TempDir(), "test.cache")
	ctx := context.Background()
	synctest.Test(t, func(t *testing.T) {
		var db *cache
		told, healed := make(chan error, 1), make(chan struct{}, 10)
		conf := Config{CommitInterval: time.Hour, SweepInterval: -1, CompactBytes: Unlimited, Listener: healings{
			healed: func() { healed <- struct{}{} },
			quarantined: func() {
				if !db.commits.running.TryLock() {
					told <- errors.New("commits are kept from running")
					return
				}
				db.commits.running.Unlock()
				told <- nil
			},
		}}
		db = open(t, path, conf)
		named := db.commits.setFileID
		db.commits.setFileID = func(bucket string, id uint64) {
			require.NoError(t, os.Truncate(path, 4096))
			select {
			case <-healed:
				t.Error("the file was mended in the middle of a commit")
			case <-time.After(2 * healInterval):
			}
			named(bucket, id)
		}
		require.NoError(t, db.Bucket("b").Set("k", 1, 0))
		if err := db.Sweep(ctx); err != nil {
			require.ErrorIs(t, err, errs.ErrUnavailable) // the file was lost before the sweep read it
		}
		db.commits.setFileID = named
		time.Sleep(time.Minute)
		synctest.Wait()
		require.False(t, db.Stats().Health.Unavailable)
		require.Equal(t, uint64(1), db.Stats().Health.Quarantined)
		require.NoError(t, errors.Join(db.Close(), <-told))

		db = open(t, path, conf)
		found, err := db.Bucket("b").Exists("k")
		require.NoError(t, err)
		require.True(t, found)
		require.NoError(t, db.Close())
	})
}

// A truncation at the end of a transaction is noticed: what the transaction wrote does not count as written.
func TestHeal_CutWhileCommitted(t *testing.T) {
	if !store.CanReplace {
		t.Skip("an open file cannot be replaced")
	}
	path := filepath.Join(t.TempDir(), "test.cache")
	synctest.Test(t, func(t *testing.T) {
		db := open(t, path, Config{CommitInterval: time.Hour, SweepInterval: -1, CompactBytes: Unlimited})
		require.NoError(t, db.Bucket("b").Set("k", 1, 0))
		err := db.store.Update(func(tx *bolt.Tx) error {
			tx.OnCommit(func() { require.NoError(t, os.Truncate(path, 4096)) })
			return nil
		})
		require.ErrorIs(t, err, errs.ErrUnavailable)
		require.ErrorIs(t, err, store.ErrTruncated)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, uint64(1), db.Stats().Health.Healed)
		require.NoError(t, db.Close())

		db = open(t, path, Config{})
		found, err := db.Bucket("b").Exists("k")
		require.NoError(t, err)
		require.True(t, found)
		report, err := db.Verify(context.Background())
		require.NoError(t, err)
		require.Empty(t, report.Problems)
		require.NoError(t, db.Close())
	})
}

// panicInView makes a read transaction panic.
func panicInView(db *cache) error {
	return db.store.View(func(*bolt.Tx) error { panic("a test") })
}

// A commit that hangs does not block healing for long.
func TestHeal_CommitHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.cache")
	synctest.Test(t, func(t *testing.T) {
		healed := make(chan struct{}, 10)
		db := open(t, path, Config{CommitInterval: time.Hour, SweepInterval: -1, CompactBytes: Unlimited, Listener: healings{
			healed: func() { healed <- struct{}{} },
		}})
		resume := sync.OnceFunc(db.commits.pause())
		defer resume()
		require.ErrorIs(t, panicInView(db), errs.ErrUnavailable)
		select {
		case <-healed:
			t.Fatal("the file was mended in the middle of a commit")
		case <-time.After(time.Minute):
		}
		require.ErrorContains(t, db.Stats().Health.Err, "a commit is still under way")
		resume()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.False(t, db.Stats().Health.Unavailable)
		require.NoError(t, db.Close())
	})
}

// While healing waits for a commit, somebody may put a cache that is in use where there was no file. It stays there.
func TestHeal_CommitAndMoved(t *testing.T) {
	if !store.CanReplace {
		t.Skip("an open file cannot be replaced")
	}
	path, moved := filepath.Join(t.TempDir(), "test.cache"), filepath.Join(t.TempDir(), "other.cache")
	synctest.Test(t, func(t *testing.T) {
		db := open(t, path, Config{CommitInterval: time.Hour, SweepInterval: -1, CompactBytes: Unlimited})
		resume := sync.OnceFunc(db.commits.pause())
		defer resume()
		require.NoError(t, os.Remove(path))
		require.ErrorIs(t, panicInView(db), errs.ErrUnavailable)
		time.Sleep(maxHealPause / 2)

		other := openUnchecked(t, moved, Config{})
		defer other.Close()
		require.NoError(t, os.Rename(moved, path))
		before, err := os.Lstat(path)
		require.NoError(t, err)
		resume()
		time.Sleep(healInterval / 2) // and before the other cache notices that it has moved
		synctest.Wait()

		after, err := os.Lstat(path)
		require.NoError(t, err)
		require.True(t, os.SameFile(before, after))
	})
}
