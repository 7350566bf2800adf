package keepcache_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/disk"
)

// With SyncAlways an operation that has nothing to write, because of what another one wrote, returns when that is on
// disk: a power cut must not bring back a key whose absence was told.
func TestSyncAlways_Seen(t *testing.T) {
	ctx := context.Background()
	set := func(b *keepcache.Bucket) error { return b.Set("key", "new", 0) }
	remove := func(b *keepcache.Bucket) error { _, err := b.Delete("key"); return err }
	for name, test := range map[string]struct {
		write func(b *keepcache.Bucket) error
		see   func(b *keepcache.Bucket, revision uint64) (done any, err error)
		want  any
	}{
		"Delete": {remove, func(b *keepcache.Bucket, _ uint64) (any, error) { return b.Delete("key") }, false},
		"Take":   {remove, func(b *keepcache.Bucket, _ uint64) (any, error) { return b.Take("key", nil) }, false},
		"Touch":  {remove, func(b *keepcache.Bucket, _ uint64) (any, error) { return b.Touch("key", 0) }, false},
		"DeleteMany": {remove, func(b *keepcache.Bucket, _ uint64) (any, error) {
			return b.DeleteMany([]string{"key", "absent"})
		}, 0},
		"DeletePrefix": {remove, func(b *keepcache.Bucket, _ uint64) (any, error) { return b.DeletePrefix(ctx, "k") }, 0},
		"Add":          {set, func(b *keepcache.Bucket, _ uint64) (any, error) { return b.Add("key", "other", 0) }, false},
		"CompareAndSwap": {set, func(b *keepcache.Bucket, revision uint64) (any, error) {
			return compareAndSwap(b, "key", revision, "other")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var hold atomic.Bool // the next flush of the journal waits
				flush := make(chan struct{})
				release := sync.OnceFunc(func() { close(flush) })
				disk.Between = func(op *disk.Op, do func() error) error {
					if op.Kind == disk.KindSync && strings.HasSuffix(op.File.Name(), "-journal") && hold.CompareAndSwap(true, false) {
						<-flush
					}
					return do()
				}
				t.Cleanup(func() { disk.Between = nil })
				db := open(t, newPath(t), &keepcache.Options{Sync: keepcache.SyncAlways, CommitInterval: time.Hour,
					SweepInterval: -1})
				t.Cleanup(release)
				b := db.Bucket("b")
				mustSet(t, b, "key", "old", 0)
				entry, _, err := b.Stat("key")
				require.NoError(t, err)

				wrote, saw := make(chan error, 1), make(chan error, 1)
				hold.Store(true)
				go func() { wrote <- test.write(b) }()
				synctest.Wait()
				require.False(t, hold.Load())
				var done any
				go func() {
					var err error
					done, err = test.see(b, entry.Revision)
					saw <- err
				}()
				synctest.Wait()
				require.Empty(t, wrote)
				require.Empty(t, saw, "returned before what it saw was on disk")
				release()
				require.NoError(t, <-wrote)
				require.NoError(t, <-saw)
				require.Equal(t, test.want, done)
			})
		})
	}
}
