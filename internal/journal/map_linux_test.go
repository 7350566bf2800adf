package journal_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/journal"
)

// On Linux the journal is mapped, unless that is forbidden.
func TestMapped(t *testing.T) {
	inEachMode(t, func(t *testing.T, o journal.Options) {
		j := newJournal(t, tempPath(t), o)
		require.NoError(t, j.Append(1, 1, nil))
		require.Equal(t, !o.NoMap, j.Stats().Mapped)
	})
}

// settle waits until the segment that is made ahead is there: making it would extend the file again.
func settle(t *testing.T, j *journal.Journal) {
	require.Eventually(t, func() bool { return j.Stats().FreeSegments > 0 }, 10*time.Second, time.Millisecond)
}

// A file that is cut off under the map fails the journal and not the process.
func TestAppend_CutOff(t *testing.T) {
	for _, name := range []string{"map", "window"} {
		t.Run(name, func(t *testing.T) {
			path := tempPath(t)
			j := newJournal(t, path, modes[name])
			require.NoError(t, j.Append(1, 1, content(1, 100)))
			settle(t, j)
			require.NoError(t, os.Truncate(path, 16<<10))
			err := j.Append(2, 2, content(2, 100))
			require.ErrorIs(t, err, journal.ErrFailed)
			require.ErrorContains(t, err, "cut off")
			require.ErrorIs(t, j.Append(3, 3, nil), journal.ErrFailed)
			require.ErrorIs(t, j.Flush(1), journal.ErrFailed)
			require.Equal(t, uint64(1), j.Stats().Last)
			got, _ := replay(t, path, 0)
			require.Empty(t, got)
		})
	}
}

// Nor does the copy of what a flush finds in the window, at the very end of the file.
func TestWindow_CutOffFlush(t *testing.T) {
	path := tempPath(t)
	o := modes["window"]
	o.SegmentBytes, o.MaxBytes = 4096, 20<<10+2*4096
	j := newJournal(t, path, o)
	seq := uint64(0)
	for j.Append(seq+1, seq+1, content(seq, 1024-40-36-8)) == nil { // the last block ends in less than a header
		seq++
	}
	require.Equal(t, uint64(8), seq)
	require.NoError(t, os.Truncate(path, 21<<10))
	require.ErrorIs(t, j.Flush(seq), journal.ErrFailed)
}

// Where the file was cut off behind the window, the copy of a block does not make it longer again.
func TestWindow_CutOff(t *testing.T) {
	path := tempPath(t)
	j := newJournal(t, path, modes["window"])
	require.NoError(t, j.Append(1, 1, content(1, 100)))
	settle(t, j)
	require.NoError(t, os.Truncate(path, 48<<10))
	require.NoError(t, j.Append(2, 2, content(2, 100))) // into the window
	require.ErrorIs(t, j.Append(3, 3, content(3, 40<<10)), journal.ErrFailed)
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, int64(48<<10), st.Size())
}

// A flush does not say that log records are on disk which someone cut off or deleted.
func TestFlush_Gone(t *testing.T) {
	for name, harm := range map[string]func(string) error{
		"cut":    func(path string) error { return os.Truncate(path, 16<<10) },
		"remove": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			inEachMode(t, func(t *testing.T, o journal.Options) {
				path := tempPath(t)
				j := newJournal(t, path, o)
				require.NoError(t, j.Append(1, 1, content(1, 100)))
				settle(t, j)
				require.NoError(t, harm(path))
				require.ErrorIs(t, j.Flush(1), journal.ErrFailed)
			})
		})
	}
}
