package journal_test

import (
	"errors"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/journal"
)

// A lone writer waits for one flush; those who come while it runs share the next one.
func TestFlush_Shared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(1<<20, true)
		j := newJournal(t, tempPath(t), journal.Options{SegmentBytes: 4096, MaxBytes: 1 << 20, OpenFile: d.open})
		var mu sync.Mutex
		var seq uint64
		write := func() time.Duration {
			start := time.Now()
			mu.Lock()
			seq++
			mine := seq
			require.NoError(t, j.Append(mine, mine, content(mine, 100)))
			mu.Unlock()
			require.NoError(t, j.Flush(mine))
			return time.Since(start)
		}
		d.onSync = func() error { time.Sleep(time.Second); return nil }
		write() // makes the file, which takes a flush of its own
		before := j.Stats().Flushes
		require.Equal(t, time.Second, write())
		require.Equal(t, before+1, j.Stats().Flushes)

		var wg sync.WaitGroup
		wg.Go(func() { require.Equal(t, time.Second, write()) })
		time.Sleep(time.Second / 4)
		for range 100 {
			wg.Go(func() { require.Equal(t, 7*time.Second/4, write()) })
		}
		time.Sleep(time.Second) // the second flush runs
		for range 100 {
			wg.Go(func() { require.Equal(t, 7*time.Second/4, write()) })
		}
		wg.Wait()
		require.Equal(t, before+4, j.Stats().Flushes)
		require.Equal(t, time.Second, j.Stats().LastFlush)
		require.NoError(t, j.Flush(seq)) // no flush for what is on disk
		require.Equal(t, before+4, j.Stats().Flushes)
	})
}

// A failed flush reaches every waiter and every later caller, and is never tried again.
func TestFlush_Fails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(1<<20, true)
		j := newJournal(t, tempPath(t), journal.Options{SegmentBytes: 4096, MaxBytes: 1 << 20, OpenFile: d.open})
		require.NoError(t, j.Append(1, 1, nil))
		require.NoError(t, j.Flush(1))
		require.NoError(t, j.Append(2, 2, nil))
		d.onSync = func() error { time.Sleep(time.Second); return syscall.EIO }
		synctest.Wait()
		syncs := d.syncs
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				err := j.Flush(2)
				require.ErrorIs(t, err, journal.ErrFailed)
				require.ErrorIs(t, err, syscall.EIO)
			})
		}
		time.Sleep(time.Second / 2)
		require.NoError(t, j.Append(3, 3, nil))
		for range 20 {
			wg.Go(func() { require.ErrorIs(t, j.Flush(3), journal.ErrFailed) })
		}
		wg.Wait()
		require.ErrorIs(t, j.Append(4, 4, nil), journal.ErrFailed)
		require.ErrorIs(t, j.Flush(3), syscall.EIO)
		require.ErrorIs(t, j.Err(), syscall.EIO)
		require.NoError(t, j.Flush(1)) // that was on disk before
		require.Equal(t, syncs+1, d.syncs)
		require.Equal(t, uint64(1), j.Stats().Flushed)
		require.Len(t, d.replay(t, 0), 3)
	})
}

// Close waits for the flush that runs and sends the others away.
func TestFlush_Close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(1<<20, true)
		j := newJournal(t, tempPath(t), journal.Options{SegmentBytes: 4096, MaxBytes: 1 << 20, OpenFile: d.open})
		require.NoError(t, j.Append(1, 1, nil))
		d.onSync = func() error { time.Sleep(time.Second); return nil }
		var wg sync.WaitGroup
		wg.Go(func() { require.NoError(t, j.Flush(1)) })
		synctest.Wait()
		require.NoError(t, j.Append(2, 2, nil))
		for range 5 {
			wg.Go(func() { require.ErrorIs(t, j.Flush(2), journal.ErrClosed) })
		}
		synctest.Wait()
		start := time.Now()
		require.NoError(t, j.Close(false))
		require.Equal(t, time.Second, time.Since(start))
		wg.Wait()
		require.NoError(t, j.Flush(1))
		require.ErrorIs(t, j.Flush(2), journal.ErrClosed)
	})
}

// A failure of a flush that happens while an Append makes a segment is seen by that Append or the next.
func TestFlush_FailureEndsAppend(t *testing.T) {
	d := newDisk(1<<20, true)
	j := newJournal(t, tempPath(t), journal.Options{SegmentBytes: 4096, MaxBytes: 1 << 20, OpenFile: d.open})
	require.NoError(t, j.Append(1, 1, nil))
	cause := errors.New("gone")
	d.onSync = func() error { return cause }
	require.ErrorIs(t, j.Flush(1), cause)
	for i := range uint64(10) {
		require.ErrorIs(t, j.Append(2+i, 2+i, content(1, 3000)), cause)
	}
}
