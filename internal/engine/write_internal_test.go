package engine

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/errs"
)

// If room is scarce, later writers queue behind waiting ones even if there is room for them. If there is enough, nobody
// waits.
func TestWrite_InTurn(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "test.cache"), Config{
		MemoryBytes: 1 << 20, CommitBytes: 1 << 20, CommitInterval: time.Hour, SweepInterval: -1,
	})
	b, w := db.Bucket("b"), db.writer
	require.NoError(t, b.Set("first", 1, 0))
	resume := db.commits.pause()

	w.waiters.Add(1) // stands for a writer that waits
	w.roomToken <- struct{}{}
	require.False(t, w.roomScarce())
	require.NoError(t, b.Set("enough", 1, 0))

	for i := 0; !w.roomScarce(); i++ {
		require.NoError(t, b.Set(fmt.Sprint(i), make([]byte, 1000), 0))
	}
	done := make(chan error)
	go func() { done <- b.Set("scarce", 1, 0) }()
	for w.waiters.Load() < 2 {
		runtime.Gosched()
	}
	found, err := b.Exists("scarce")
	require.NoError(t, err)
	require.False(t, found)

	<-w.roomToken
	w.waiters.Add(-1)
	require.NoError(t, <-done, "there was room all the time")
	resume()
}

// A writer that needs much room gets it: later writers that need little queue behind it.
func TestWrite_Large(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "test.cache"), Config{
		MemoryBytes: 1 << 20, CommitBytes: 1 << 20, CommitInterval: time.Hour, SweepInterval: -1,
	})
	b, w := db.Bucket("b"), db.writer
	require.NoError(t, b.Set("first", 1, 0))
	resume := db.commits.pause()
	for i := 0; w.used() < w.maxPinned*3/4; i++ {
		require.NoError(t, b.Set(fmt.Sprint(i), make([]byte, 1000), 0))
	}
	require.False(t, w.roomScarce())
	large, small := make(chan error), make(chan error)
	go func() { large <- b.Set("large", make([]byte, 500<<10), 0) }()
	for !w.roomScarce() {
		runtime.Gosched()
	}
	go func() { small <- b.Set("small", 1, 0) }()
	for w.waiters.Load() < 2 {
		runtime.Gosched()
	}
	resume()
	require.NoError(t, <-large)
	require.NoError(t, <-small)
}

// Each waiting writer times out on its own.
func TestWrite_GiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := open(t, filepath.Join(t.TempDir(), "test.cache"), Config{
			MemoryBytes: 1 << 20, CommitBytes: 1 << 20, CommitInterval: time.Hour, SweepInterval: -1,
		})
		b, w := db.Bucket("b"), db.writer
		require.NoError(t, b.Set("first", 1, 0))
		w.waiters.Add(1) // stands for a writer that never stops
		w.roomToken <- struct{}{}
		w.wantedBytes.Store(w.maxPinned)
		start := time.Now()
		for range 3 {
			go func() {
				require.ErrorIs(t, b.Set("k", 1, 0), errStalled)
				require.Equal(t, stallTimeout, time.Since(start))
			}()
		}
		time.Sleep(stallTimeout)
		synctest.Wait()
		require.Equal(t, int64(1), w.waiters.Load())
		<-w.roomToken
		w.waiters.Add(-1)
		w.wantedBytes.Store(0)
	})
}

// With SyncAlways, a caller that writes nothing because of a write that only a commit makes durable waits for that
// commit.
func TestWrite_SeenUnlogged(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "test.cache"), Config{
		SyncAlways: true, JournalBytes: 64 << 10, CommitInterval: time.Hour, SweepInterval: -1,
	})
	b := db.Bucket("b")
	require.NoError(t, b.Set("first", 1, 0))
	resume := db.commits.pause()
	wrote, saw := make(chan error, 1), make(chan error, 1)
	go func() { wrote <- b.Set("large", make([]byte, 100<<10), 0) }()
	for found := false; !found; runtime.Gosched() {
		var err error
		found, err = b.Exists("large")
		require.NoError(t, err)
	}
	go func() {
		added, err := b.Add("large", 1, 0)
		if added || db.commits.committed() < db.Revision() {
			err = fmt.Errorf("added is %v before the commit, %w", added, err)
		}
		saw <- err
	}()
	for range 1000 {
		runtime.Gosched()
	}
	resume()
	require.NoError(t, <-wrote)
	require.NoError(t, <-saw)
}

// If the commit of a batch that is not in the journal fails, nothing is retracted if one of its keys was written again.
func TestWrite_SettleUnlogged(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "test.cache"), Config{CommitInterval: -1, SweepInterval: -1})
	b, w, c := db.Bucket("b"), db.writer, db.commits
	require.NoError(t, b.Set("first", 1, 0))
	db.stop() // no commit runs until Close
	db.work.Wait()
	w.journalFailed(w.journal)
	c.mu.Lock()
	c.err, c.backingOff = errors.New("a test"), true
	c.mu.Unlock()

	writeOf := func(key string) *Write {
		d, err := b.prepare(key, 1, 0)
		require.NoError(t, err)
		ns, id := db.lockBucket(b.at.Name, db.find(&b.at))
		defer ns.mu.RUnlock()
		d.ns, d.id, d.sum, d.hash = ns, id, ns.sum, db.memory.Hash(id, d.Key)
		return d
	}
	exists := func(key string) bool {
		found, err := b.Exists(key)
		require.NoError(t, err)
		return found
	}
	for _, again := range []bool{true, false} {
		key1, key2 := fmt.Sprint("1 ", again), fmt.Sprint("2 ", again)
		batch := []*Write{writeOf(key1), writeOf(key2)}
		last, j, err := w.tryPublish(nil, batch)
		require.NoError(t, err)
		require.Nil(t, j)
		if again {
			_, _, err = w.tryPublish(nil, []*Write{writeOf(key2)})
			require.NoError(t, err)
		}
		err = w.awaitCommitOrRetract(last, nil, batch)
		require.ErrorContains(t, err, "a test")
		require.Equal(t, again, errors.Is(err, errs.ErrUnknownOutcome))
		require.Equal(t, again, exists(key1))
		require.Equal(t, again, exists(key2))
	}
	require.NoError(t, db.Close())
}
