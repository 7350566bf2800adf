package journal_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/journal"
)

// The journal of another store is left alone.
func TestReplay_Foreign(t *testing.T) {
	path := tempPath(t)
	j := newJournal(t, path, journal.Options{Identity: [16]byte{9}})
	require.NoError(t, j.Append(1, 1, []byte("x")))
	got, r := replay(t, path, 0)
	require.Empty(t, got)
	require.True(t, r.Foreign)
	require.False(t, r.Damaged())
}

// A journal that starts above what the store has is left alone, whether it was made so or released so.
func TestReplay_Gap(t *testing.T) {
	path := tempPath(t)
	j := newJournal(t, path, journal.Options{After: 10, SegmentBytes: 4096, MaxBytes: 1 << 20})
	require.NoError(t, j.Append(15, 15, []byte("x")))
	got, r := replay(t, path, 9)
	require.Empty(t, got)
	require.True(t, r.Gap)
	require.Equal(t, uint64(10), r.Released)
	got, r = replay(t, path, 10)
	require.Len(t, got, 1)
	require.False(t, r.Gap)

	j.Release(15)
	for i := range uint64(5) {
		require.NoError(t, j.Append(16+i, 16+i, content(i, 3000)))
	}
	_, r = replay(t, path, 14)
	require.True(t, r.Gap)
	got, r = replay(t, path, 15)
	requireClean(t, r)
	require.Len(t, got, 5)
}

// A log record that reaches across the mark is given whole.
func TestReplay_Across(t *testing.T) {
	path := tempPath(t)
	j := newJournal(t, path, journal.Options{})
	require.NoError(t, j.Append(1, 4, []byte("a")))
	require.NoError(t, j.Append(5, 9, []byte("b")))
	got, r := replay(t, path, 6)
	requireSame(t, []record{{5, 9, []byte("b")}}, got)
	require.Equal(t, 1, r.Skipped)
	require.Equal(t, uint64(5), r.First)
	require.Equal(t, uint64(9), r.Last)
	require.Equal(t, int64(1), r.RecordBytes)
}

// An error of the function ends the replay and is returned as it is.
func TestReplay_FunctionFails(t *testing.T) {
	path := tempPath(t)
	j := newJournal(t, path, journal.Options{})
	for i := range uint64(3) {
		require.NoError(t, j.Append(i+1, i+1))
	}
	cause := errors.New("enough")
	calls := 0
	_, err := journal.Replay(path, identity, 0, func(first, _ uint64, _ []byte) error {
		if calls++; first == 2 {
			return cause
		}
		return nil
	})
	require.Equal(t, cause, err)
	require.Equal(t, 2, calls)
}

// A newer format is refused by New and by Replay, and left as it is.
func TestVersion(t *testing.T) {
	path := tempPath(t)
	j := newJournal(t, path, journal.Options{})
	require.NoError(t, j.Append(1, 1, []byte("x")))
	require.NoError(t, j.Close(false))
	image, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, at := range []int{0, 8192} {
		h := image[at : at+64]
		h[8] = 3
		binary.LittleEndian.PutUint32(h[60:], crc32.Checksum(h[:60], crc32.MakeTable(crc32.Castagnoli)))
	}
	require.NoError(t, os.WriteFile(path, image, 0o600))

	_, err = journal.New(path, journal.Options{Identity: identity})
	require.ErrorIs(t, err, journal.ErrVersion)
	require.ErrorContains(t, err, path)
	_, err = journal.Replay(path, identity, 0, nil)
	require.ErrorIs(t, err, journal.ErrVersion)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, image, after)
}

// A file that is no journal is reported and not applied.
func TestReplay_Unreadable(t *testing.T) {
	for _, n := range []int{0, 10, 20000} {
		path := tempPath(t)
		require.NoError(t, os.WriteFile(path, make([]byte, n), 0o600))
		_, r := replay(t, path, 0)
		require.True(t, r.Unreadable)
		require.True(t, r.Damaged())
		require.Equal(t, int64(n), r.LostBytes)
	}
}
