package journal_test

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// Nothing is on disk before the first Append, and then only what one log record needs.
func TestNew_CreatesNothing(t *testing.T) {
	path := tempPath(t)
	j := newJournal(t, path, journal.Options{})
	require.NoError(t, j.Flush(100))
	require.Zero(t, j.Stats().FileBytes)
	require.NoFileExists(t, path)
	got, r := replay(t, path, 0)
	require.Empty(t, got)
	require.Equal(t, journal.Report{}, r)

	require.NoError(t, j.Append(1, 1, []byte("one")))
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.LessOrEqual(t, st.Size(), int64(16<<10+2<<20))
	require.Equal(t, fs.FileMode(0o600), st.Mode().Perm())
	require.NoFileExists(t, path+".new")
}

// What is at the path is replaced at the first Append, and not before.
func TestNew_Replaces(t *testing.T) {
	path := tempPath(t)
	old := newJournal(t, path, journal.Options{})
	require.NoError(t, old.Append(1, 5, []byte("old")))
	require.NoError(t, old.Close(false))

	j := newJournal(t, path, journal.Options{After: 5})
	got, _ := replay(t, path, 0)
	require.Len(t, got, 1)
	require.ErrorIs(t, j.Append(5, 6, nil), journal.ErrOrder)
	require.NoError(t, j.Append(6, 6, []byte("new")))
	got, r := replay(t, path, 5)
	requireClean(t, r)
	requireSame(t, []record{{6, 6, []byte("new")}}, got)
	require.NoError(t, j.Close(true))
	require.NoFileExists(t, path)
}

// Close with remove deletes a file that was found and never replaced.
func TestClose_RemoveUnused(t *testing.T) {
	path := tempPath(t)
	require.NoError(t, os.WriteFile(path, []byte("anything"), 0o600))
	j := newJournal(t, path, journal.Options{})
	require.NoError(t, j.Close(true))
	require.NoFileExists(t, path)
	require.NoError(t, j.Close(true))
	require.ErrorIs(t, j.Append(1, 1, nil), journal.ErrClosed)
}

// What is not a regular file is not replaced.
func TestNew_NotRegular(t *testing.T) {
	_, err := journal.New(t.TempDir(), journal.Options{})
	require.ErrorContains(t, err, "not a regular file")
}

// Log records far larger than a segment come back whole, up to MaxRecord, and no larger one is taken.
func TestAppend_Large(t *testing.T) {
	inEachMode(t, func(t *testing.T, o journal.Options) {
		path := tempPath(t)
		o.SegmentBytes, o.MaxBytes = 64<<10, 4<<20
		j := newJournal(t, path, o)
		var all []record
		for i, n := range []int{10, 300_000, 0, 1_000_000, 65_536, 1} {
			p := record{uint64(i*10 + 1), uint64(i*10 + 10), content(uint64(i), n)}
			require.NoError(t, j.Append(p.first, p.last, p.data))
			all = append(all, p)
		}
		got, r := replay(t, path, 0)
		requireClean(t, r)
		requireSame(t, all, got)
		require.Equal(t, 6, r.Applied)

		j.Release(60)
		big := record{61, 61, content(61, j.MaxRecord())}
		require.ErrorIs(t, j.Append(61, 61, big.data, []byte{1}), journal.ErrTooLarge)
		require.NoError(t, j.Append(61, 61, big.data))
		got, r = replay(t, path, 60)
		requireClean(t, r)
		requireSame(t, []record{big}, got)
		require.LessOrEqual(t, j.Stats().FileBytes, int64(4<<20))
	})
}

// A full journal takes nothing, and takes again after a Release, in the same file.
func TestAppend_Full(t *testing.T) {
	path := tempPath(t)
	j := newJournal(t, path, journal.Options{SegmentBytes: 4096, MaxBytes: 16<<10 + 3*4096})
	data := content(1, 500)
	seq := uint64(0)
	for range 200 {
		err := j.Append(seq+1, seq+1, data)
		if errors.Is(err, journal.ErrFull) {
			require.NoError(t, j.Flush(seq))
			j.Release(seq)
			j.Release(seq - 1) // does nothing
			require.Equal(t, 2, j.Stats().FreeSegments)
			continue
		}
		require.NoError(t, err)
		seq++
	}
	s := j.Stats()
	require.Equal(t, int64(16<<10+3*4096), s.FileBytes)
	require.Equal(t, seq, s.Last)
	require.Equal(t, seq, s.Appends)
	require.Equal(t, seq*500, s.AppendBytes)
	require.Equal(t, s.Flushed, s.Released)
}

// Sequences only ever rise.
func TestAppend_Order(t *testing.T) {
	j := newJournal(t, tempPath(t), journal.Options{After: 7})
	require.ErrorIs(t, j.Append(7, 9, nil), journal.ErrOrder)
	require.ErrorIs(t, j.Append(9, 8, nil), journal.ErrOrder)
	require.NoError(t, j.Append(9, 12, nil))
	require.ErrorIs(t, j.Append(12, 12, nil), journal.ErrOrder)
	require.NoError(t, j.Append(13, 13, nil))
}

// In the steady state an Append allocates nothing.
func TestAppend_Allocations(t *testing.T) {
	inEachMode(t, func(t *testing.T, o journal.Options) {
		o.SegmentBytes, o.MaxBytes = 64<<10, 1<<20
		j := newJournal(t, tempPath(t), o)
		a, b := content(1, 200), content(2, 3000)
		seq := uint64(0)
		step := func() {
			seq++
			if seq%100 == 0 {
				j.Release(seq - 1)
			}
			require.NoError(t, j.Append(seq, seq, a, b))
		}
		for range 2000 {
			step()
		}
		require.Zero(t, testing.AllocsPerRun(2000, step))
	})
}

// Appends, flushes, releases and readers of the statistics do not disturb one another.
func TestConcurrent(t *testing.T) {
	inEachMode(t, func(t *testing.T, o journal.Options) {
		path := tempPath(t)
		o.SegmentBytes, o.MaxBytes = 16<<10, 256<<10
		j := newJournal(t, path, o)
		var mu sync.Mutex
		var all []record
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := range 200 {
					mu.Lock()
					first := uint64(1)
					if len(all) > 0 {
						first = all[len(all)-1].last + 1
					}
					p := record{first, first + uint64(w), content(first, (w*37+i*11)%2000)}
					err := j.Append(p.first, p.last, p.data)
					for errors.Is(err, journal.ErrFull) {
						mark := j.Stats().Last
						if !checkNil(t, j.Flush(mark)) {
							break
						}
						j.Release(mark)
						err = j.Append(p.first, p.last, p.data)
					}
					if err == nil {
						all = append(all, p)
					}
					mu.Unlock()
					if !checkNil(t, err) || !checkNil(t, j.Flush(p.last)) {
						return
					}
					if s := j.Stats(); s.Flushed < p.last {
						t.Errorf("flushed to %d and not to %d", s.Flushed, p.last)
						return
					}
				}
			})
		}
		wg.Wait()
		released := j.Stats().Released
		got, r := replay(t, path, released)
		requireClean(t, r)
		requireSame(t, above(all, released), got)
	})
}

func checkNil(t *testing.T, err error) bool {
	if err != nil {
		t.Error(err)
	}
	return err == nil
}

// A full disk fails the Append that needs a segment, changes nothing, and is forgotten when there is room.
func TestAppend_NoSpace(t *testing.T) {
	inEachMode(t, func(t *testing.T, o journal.Options) {
		d := newDisk(1<<20, o.NoMap)
		var mu sync.Mutex
		limit := int64(16<<10 + 2*4096 + 1000)
		d.onWrite = func(b []byte, off int64) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			if off+int64(len(b)) > limit {
				return int(max(0, limit-off)), syscall.ENOSPC
			}
			return len(b), nil
		}
		o.SegmentBytes, o.MaxBytes, o.OpenFile = 4096, 1<<20, d.open
		j := newJournal(t, tempPath(t), o)
		var all []record
		seq, failed := uint64(0), 0
		for range 100 {
			seq++
			p := record{seq, seq, content(seq, int(seq*97)%3000)}
			err := j.Append(p.first, p.last, p.data)
			if err == nil {
				all = append(all, p)
				continue
			}
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.NotErrorIs(t, err, journal.ErrFailed)
			if failed++; failed%5 == 0 {
				mu.Lock()
				limit += 3 * 4096
				mu.Unlock()
			}
		}
		require.Greater(t, failed, 5)
		require.NoError(t, j.Flush(seq))
		requireSame(t, all, d.replay(t, 0))
	})
}

// A segment that holds only the inside of one log record is not used again before that log record is released.
func TestRelease_InsideRecord(t *testing.T) {
	path := tempPath(t)
	j := newJournal(t, path, journal.Options{SegmentBytes: 4096, MaxBytes: 16<<10 + 8*4096, After: 10})
	big := record{11, 20, content(11, 10_000)}
	require.NoError(t, j.Append(big.first, big.last, big.data))
	j.Release(19)
	require.LessOrEqual(t, j.Stats().FreeSegments, 1) // the one that is made ahead
	all := []record{big}
	for seq := uint64(21); ; seq++ {
		p := record{seq, seq, content(seq, 1000)}
		if err := j.Append(p.first, p.last, p.data); err != nil {
			require.ErrorIs(t, err, journal.ErrFull)
			break
		}
		all = append(all, p)
	}
	got, r := replay(t, path, 19)
	requireClean(t, r)
	requireSame(t, all, got)
}

// A block that cannot be copied out of the window takes its log record with it, and neither what was before nor what
// comes after.
func TestWindow_CopyFails(t *testing.T) {
	const full = 1024 - 40 - 36 // bytes of a log record that fills a block
	for name, c := range map[string]struct{ first, second int }{
		"behind a block that is nearly full": {full - 20, 3000},
		"a log record that fills its block":  {full, full},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(1<<20, false)
			o := modes["window"]
			o.SegmentBytes, o.MaxBytes, o.OpenFile = 4096, 1<<20, d.open
			j := newJournal(t, tempPath(t), o)
			first := record{1, 1, content(1, c.first)}
			require.NoError(t, j.Append(1, 1, first.data))
			d.hookWrites(func(b []byte, off int64) (int, error) {
				if len(b) == 1024 && off == 20<<10+1024 { // the second block
					return 0, syscall.EIO
				}
				return len(b), nil
			})
			err := j.Append(2, 2, content(2, c.second))
			require.ErrorIs(t, err, syscall.EIO)
			require.NotErrorIs(t, err, journal.ErrFailed)
			requireSame(t, []record{first}, d.replay(t, 0))
			d.hookWrites(nil)
			third := record{3, 3, content(3, 100)}
			require.NoError(t, j.Append(3, 3, third.data))
			requireSame(t, []record{first, third}, d.replay(t, 0))
			require.NoError(t, j.Flush(3))
			requireSame(t, []record{first, third}, d.replay(t, 0))
		})
	}
}

// A write that fails half way, of a log record by pwrite or of a block out of the window, loses no other log record:
// either its place is taken by the next one, or the journal refuses all that follows.
func TestAppend_WriteFails(t *testing.T) {
	for _, name := range []string{"pwrite", "window"} {
		t.Run(name, func(t *testing.T) {
			recovered, dead := 0, 0
			for fault := 1; fault < 120; fault += effort.Of(3, 1) {
				d := newDisk(1<<20, name == "pwrite")
				writes := 0
				d.onWrite = func(b []byte, off int64) (int, error) {
					if len(b) == 4096 || off == 0 { // making a segment or the file
						return len(b), nil
					}
					if writes++; writes == fault {
						return len(b) / (1 + fault%2), syscall.EIO // sometimes all of it is there
					}
					return len(b), nil
				}
				o := modes[name]
				o.SegmentBytes, o.MaxBytes, o.OpenFile = 4096, 1<<20, d.open
				j := newJournal(t, tempPath(t), o)
				var all []record
				failed := false
				for seq := uint64(1); seq <= 200; seq++ {
					p := record{seq, seq, content(seq, int(seq*131)%1500)}
					if err := j.Append(p.first, p.last, p.data); err == nil {
						require.NoError(t, j.Err())
						all = append(all, p)
						if seq%16 == 0 {
							requireSame(t, all, d.replay(t, 0))
						}
						continue
					} else if failed {
						require.ErrorIs(t, err, journal.ErrFailed)
					} else {
						require.ErrorIs(t, err, syscall.EIO)
						requireSame(t, all, d.replay(t, 0))
					}
					failed = true
				}
				if requireSame(t, all, d.replay(t, 0)); j.Err() != nil {
					dead++
				} else if failed {
					recovered++
				}
			}
			require.Positive(t, recovered)
			require.Positive(t, dead)
		})
	}
}
