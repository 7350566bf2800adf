package keepcache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// A few names come and go under many goroutines that set, load, delete, drop, clear, count and apply batches, while
// sweeps and commits run. Each key of a bucket belongs to one goroutine, which knows what must be there; what drops and
// clears a bucket keeps all others of that bucket out meanwhile, and so knows it too.
func TestManyBuckets_Race(t *testing.T) {
	const names, workers = 4, 8
	rounds := 600
	if long {
		rounds = 20_000
	}
	db := newDB(t, &keepcache.Options{
		MemoryBytes: 1 << 20, CommitInterval: 2 * time.Millisecond, SweepInterval: 3 * time.Millisecond,
	})
	var turns [names]sync.RWMutex
	var want [names][workers]int // 0 is absent
	ctx := context.Background()
	var all sync.WaitGroup
	errs := make(chan error, workers)
	for w := range workers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			b := make([]*keepcache.Bucket, names)
			for i := range rounds {
				n := r.IntN(names)
				name, key := fmt.Sprint("bucket", n), fmt.Sprint("key", w)
				if b[n] == nil || i%7 == 0 {
					b[n] = db.Bucket(name)
				}
				if err := raceStep(ctx, db, b[n], r, key, i+1, &turns[n], &want[n], w); err != nil {
					errs <- fmt.Errorf("worker %d, round %d, bucket %d: %w", w, i, n, err)
					return
				}
			}
		})
	}
	stop, swept := make(chan struct{}), make(chan error, 1)
	go func() { // sweeps that are asked for drop buckets that have become empty
		for {
			if _, err := db.Sweep(ctx); err != nil {
				swept <- err
				return
			}
			select {
			case <-stop:
				swept <- nil
				return
			default:
				db.Stats()
			}
		}
	}()
	all.Wait()
	close(stop)
	require.NoError(t, <-swept)
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	for range 2 {
		for n := range names {
			b, count := db.Bucket(fmt.Sprint("bucket", n)), 0
			for w, v := range want[n] {
				if key := fmt.Sprint("key", w); v == 0 {
					requireAbsent(t, b, key)
				} else {
					requireValue(t, b, key, int64(v))
					count++
				}
			}
			got, err := b.Len()
			require.NoError(t, err)
			require.Equal(t, count, got)
		}
		committed(t, db)
	}
	for n := range names {
		_, err := db.DropBucket(fmt.Sprint("bucket", n))
		require.NoError(t, err)
	}
	committed(t, db)
	require.Zero(t, db.Names(), "names that are gone stay in memory")
	committed(t, db)
	require.Zero(t, db.Stats().Sweep.Pending)
}

// raceStep is one step of a goroutine at its own key, or at the whole bucket.
func raceStep(ctx context.Context, db *keepcache.DB, b *keepcache.Bucket, r *rand.Rand, key string, v int,
	turn *sync.RWMutex, want *[8]int, w int) error {
	whole := func(do func() error) error {
		turn.Lock()
		defer turn.Unlock()
		if err := do(); err != nil {
			return err
		}
		*want = [8]int{}
		return nil
	}
	switch r.IntN(16) {
	case 0:
		return whole(func() error { _, err := db.DropBucket(b.Name()); return err })
	case 1:
		return whole(func() error { return b.Clear(ctx) })
	case 2: // a load that began before a drop, and ends after it, must not be stored
		began, dropped := make(chan struct{}), make(chan struct{})
		done := make(chan error, 1)
		turn.Lock()
		defer turn.Unlock()
		if _, err := b.Delete(key); err != nil {
			return err
		}
		go func() {
			_, err := b.GetOrLoad(ctx, key, new(any), func(context.Context, *keepcache.Load) (any, error) {
				close(began)
				<-dropped
				return -1, nil
			}, nil)
			done <- err
		}()
		<-began
		_, err := db.DropBucket(b.Name())
		close(dropped)
		if e := <-done; err == nil {
			err = e
		}
		*want = [8]int{}
		if found, e := b.Exists(key); err == nil && (e != nil || found) {
			err = fmt.Errorf("a load from before a drop was stored: %v", e)
		}
		return err
	}
	turn.RLock()
	defer turn.RUnlock()
	switch r.IntN(8) {
	case 0, 1:
		want[w] = v
		return b.Set(key, v, 0)
	case 2:
		found, err := b.Delete(key)
		if err == nil && found != (want[w] != 0) {
			err = fmt.Errorf("Delete says %v, %d is there", found, want[w])
		}
		want[w] = 0
		return err
	case 3:
		var got int
		_, err := b.GetOrLoad(ctx, key, &got, func(context.Context, *keepcache.Load) (any, error) { return v, nil }, nil)
		if want[w] == 0 {
			want[w] = v
		}
		if err == nil && got != want[w] {
			err = fmt.Errorf("GetOrLoad gives %d, not %d", got, want[w])
		}
		return err
	case 4:
		_, err := b.GetOrLoad(ctx, key+"none", new(any), func(context.Context, *keepcache.Load) (any, error) {
			return nil, keepcache.ErrNotFound
		}, nil)
		if !errors.Is(err, keepcache.ErrNotFound) {
			return fmt.Errorf("a load that finds nothing gives %w", err)
		}
		return nil
	case 5:
		var batch keepcache.Batch
		batch.Set(b, key, v, 0)
		batch.Set(db.Bucket(fmt.Sprint("other", w)), "k", v, 0)
		want[w] = v
		if err := db.Apply(&batch); err != nil {
			return err
		}
		_, err := db.DropBucket(fmt.Sprint("other", w))
		return err
	case 6:
		_, err := b.Len()
		return err
	}
	var got int
	found, err := b.Get(key, &got)
	if err == nil && (found != (want[w] != 0) || got != want[w]) {
		err = fmt.Errorf("Get gives %d, %v, not %d", got, found, want[w])
	}
	return err
}
