package format

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A row is never later than the end of its entry, earlier by less than a second and than a part of what is left, and
// not yet due while the entry lives.
func TestRowTime(t *testing.T) {
	for left, early := range map[int64]int64{-5: 0, 0: 0, 1: 0, 127: 0, 128: 1, 255: 1, 256: 3, 60_000: 511, 65_535: 511,
		65_536: 1023, 1 << 40: 1023} {
		const gone = 1<<41 - 1
		require.Equal(t, int64(gone-early), RowTime(gone, gone-left), "%d ms left", left)
	}
	require.Equal(t, int64(Never), RowTime(Never, 0))
	require.Zero(t, RowTime(0, 0))
	rapid.Check(t, func(t *rapid.T) {
		gone := rapid.Int64Range(0, MaxDeadline).Draw(t, "gone")
		left := rapid.OneOf(rapid.Int64Range(-100, 1000), rapid.Int64Range(0, 1<<20),
			rapid.Int64Range(0, MaxDeadline)).Draw(t, "left")
		now := max(gone-left, 0)
		row := RowTime(gone, now)
		early := gone - row
		require.GreaterOrEqual(t, early, int64(0))
		require.Less(t, early, int64(RowGrain))
		require.GreaterOrEqual(t, row, int64(0))
		if early > 0 {
			require.Less(t, early*RowPart, gone-now)
		}
		if gone > now {
			require.Greater(t, row, now)
		}
		require.LessOrEqual(t, RowTime(gone, now-RowGrain), row, "who has longer to live has no finer grain")
	})
}
