package keepcache_test

import (
	"context"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/disk"
)

// A write that makes, clears or drops a bucket waits while a commit takes that into the file. When a fresh file takes
// the place of that one meanwhile it gets the names that the old one had, and what memory has of them.
func TestHeal_Naming(t *testing.T) {
	skipOnWindows(t, "an open file cannot be replaced")
	ctx := context.Background()
	for name, c := range map[string]struct {
		write func(*keepcache.DB) error
		after func(*testing.T, *keepcache.DB, *keepcache.Bucket)
		want  map[string]bool // by key, whether it is there in the end
	}{
		"made": {
			func(db *keepcache.DB) error { return db.Bucket("b").Set("during", 1, 0) },
			func(t *testing.T, _ *keepcache.DB, b *keepcache.Bucket) { mustSet(t, b, "after", 1, 0) },
			map[string]bool{"during": true, "after": true},
		},
		"made by a batch": {
			func(db *keepcache.DB) error {
				var batch keepcache.Batch
				batch.Set(db.Bucket("b"), "during", 1, 0)
				return db.Apply(&batch)
			},
			func(t *testing.T, _ *keepcache.DB, b *keepcache.Bucket) { mustSet(t, b, "after", 1, 0) },
			map[string]bool{"during": true, "after": true},
		},
		"cleared": {
			func(db *keepcache.DB) error { return db.Bucket("b").Clear(ctx) },
			func(t *testing.T, _ *keepcache.DB, b *keepcache.Bucket) { mustSet(t, b, "after", 1, 0) },
			map[string]bool{"before": false, "after": true},
		},
		"dropped": {
			func(db *keepcache.DB) error { _, err := db.DropBucket("b"); return err },
			func(*testing.T, *keepcache.DB, *keepcache.Bucket) {},
			map[string]bool{"before": false},
		},
		"dropped and made": {
			func(db *keepcache.DB) error { _, err := db.DropBucket("b"); return err },
			func(t *testing.T, _ *keepcache.DB, b *keepcache.Bucket) { mustSet(t, b, "after", 1, 0) },
			map[string]bool{"before": false, "after": true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			// The write waits for its flush, which fails, and then until the journal is closed, which takes long.
			var broken, holding atomic.Bool
			held, release := make(chan struct{}), make(chan struct{})
			disk.Between = func(op *disk.Op, do func() error) error {
				switch {
				case op.File == nil || !strings.HasSuffix(op.File.Name(), "-journal"):
				case op.Kind == disk.KindSync && broken.CompareAndSwap(true, false):
					return &os.PathError{Op: "sync", Path: op.File.Name(), Err: syscall.EIO}
				case op.Kind == disk.KindClose && holding.CompareAndSwap(true, false):
					close(held)
					<-release
				}
				return do()
			}
			t.Cleanup(func() { disk.Between = nil })
			path := newPath(t)
			o := &keepcache.Options{Sync: keepcache.SyncAlways, CommitInterval: time.Hour, SweepInterval: -1, CompactBytes: -1}
			db := open(t, path, o)
			mustSet(t, db.Bucket("other"), "k", 1, 0)
			for key, there := range c.want {
				if !there {
					mustSet(t, db.Bucket("b"), key, 1, 0)
				}
			}
			committed(t, db)

			holding.Store(true)
			broken.Store(true)
			done := make(chan error, 1)
			go func() { done <- c.write(db) }()
			<-held
			committed(t, db)
			require.NoError(t, os.Truncate(path, 4096))
			require.NoError(t, awaitHealed(db))
			require.Equal(t, uint64(1), db.Stats().Health.Quarantined)
			close(release)
			require.NoError(t, <-done)
			c.after(t, db, db.Bucket("b"))
			for range 2 {
				listed := false
				for key, there := range c.want {
					found, err := db.Bucket("b").Get(key, new(any))
					require.NoError(t, err)
					require.Equal(t, there, found, key)
					listed = listed || there
				}
				names, err := db.Buckets()
				require.NoError(t, err)
				want := []string{keepcache.DefaultBucket, "other"}
				if listed {
					want = append([]string{"b"}, want...)
				}
				require.Equal(t, want, names)
				requireValue(t, db.Bucket("other"), "k", int64(1))
				db = reopen(t, db, path, o)
			}
		})
	}
}
