package keepcache_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/disk"
)

// What a load brings does not outlive a Delete that came after the load began, also while that is the bucket's first
// write and on its way to the disk.
func TestLoad_DeletedWithFirstWrite(t *testing.T) {
	path := newPath(t)
	flushing, flushed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	disk.Between = func(op *disk.Op, do func() error) error {
		if op.Kind == disk.KindSync && strings.HasSuffix(op.File.Name(), "-journal") {
			once.Do(func() {
				close(flushing)
				<-flushed
			})
		}
		return do()
	}
	defer func() { disk.Between = nil }()
	db, err := tryOpen(path, &keepcache.Options{Sync: keepcache.SyncAlways, CommitInterval: time.Hour, SweepInterval: -1})
	require.NoError(t, err)
	defer db.Close()
	b := db.Bucket("b")
	loaded, deleted := make(chan error, 1), make(chan error, 1)
	go func() {
		var value string
		_, err := b.GetOrLoad(context.Background(), "k", &value,
			func(context.Context, *keepcache.Load) (any, error) { return "old", nil }, nil)
		loaded <- err
	}()
	<-flushing
	go func() {
		_, err := b.Delete("k")
		deleted <- err
	}()
	select {
	case err = <-deleted: // before the bucket is there
		deleted <- err
	case <-time.After(50 * time.Millisecond):
	}
	close(flushed)
	require.NoError(t, <-loaded)
	require.NoError(t, <-deleted)
	requireAbsent(t, b, "k")
}
