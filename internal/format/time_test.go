package format

import (
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Sums and differences of times saturate: a table of what lies at the ends.
func TestMoments(t *testing.T) {
	const most = int64(math.MaxInt64)
	now := time.UnixMilli(1_800_000_000_000)
	ms := now.UnixMilli()

	require.Equal(t, ms+60_000, Deadline(now, time.Minute))
	require.Equal(t, ms+1, Deadline(now, 1))
	require.Equal(t, int64(Never), Deadline(now, Forever))
	require.Equal(t, ms+int64((Forever-1)/time.Millisecond)+1, Deadline(now, Forever-1))
	require.Equal(t, int64(MaxDeadline), Deadline(time.UnixMilli(MaxDeadline), time.Hour))

	require.Equal(t, ms+5, Prolong(ms, 5))
	require.Equal(t, int64(Never), Prolong(ms, Never))
	require.Equal(t, int64(Never), Prolong(ms, Span(Forever)))
	require.Equal(t, int64(Never), Prolong(Never, 5))
	require.Equal(t, int64(Never), Prolong(Never, Never))
	require.Equal(t, int64(MaxDeadline), Prolong(MaxDeadline-1, 5))
	require.Equal(t, most-3, Prolong(most-3, 5), "what is later than can be stays where it is")

	require.Equal(t, int64(5), Between(ms, ms+5))
	require.Equal(t, int64(-5), Between(ms+5, ms))
	require.Equal(t, int64(Never), Between(ms, Never))
	require.Zero(t, Between(Never, Never))
	require.Negative(t, Between(Never, ms))
	require.Equal(t, most, Between(math.MinInt64, 0))
	require.Equal(t, -most, Between(1, math.MinInt64))

	require.Equal(t, int64(1), Span(1))
	require.Equal(t, int64(60_000), Span(time.Minute))
	require.Equal(t, int64(60_001), Span(time.Minute+1))
	require.Equal(t, int64(Never), Span(Forever))
	require.Equal(t, int64(9_223_372_036_855), Span(Forever-1))
	require.Equal(t, time.Minute, Duration(60_000))
	require.Equal(t, Forever, Duration(Never))
	require.Equal(t, Forever-1, Duration(Never-1))

	require.Equal(t, Forever, Remaining(now, Never))
	require.Equal(t, Forever-1, Remaining(now, MaxDeadline))
	require.Negative(t, Remaining(now, 0))

	require.False(t, IsPast(ms, Never, Never-1, 0))
	require.False(t, IsPast(ms, ms+100, ms+79, 0.8))
	require.True(t, IsPast(ms, ms+100, ms+80, 0.8))
	require.False(t, IsPast(ms, ms+100, ms-5, 0.1), "somebody has set the clock back")
}

// FuzzMoments compares sums and differences with those of numbers that have no end.
func FuzzMoments(f *testing.F) {
	for _, seed := range [][2]int64{{0, 0}, {1, -1}, {math.MaxInt64, 1}, {math.MinInt64, 1}, {MaxDeadline, MaxDeadline},
		{1 << 41, 3600_000}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, a, b int64) {
		span := new(big.Int).Sub(big.NewInt(b), big.NewInt(a))
		want := span.Int64()
		switch {
		case a == b:
			want = 0
		case b == Never:
			want = Never
		case !span.IsInt64():
			want = math.MaxInt64 * int64(span.Sign())
		}
		require.Equal(t, max(want, -math.MaxInt64), max(Between(a, b), -math.MaxInt64), "from %d to %d", a, b)

		moment, length := max(a, 0), max(b, 0)
		got := Prolong(moment, length)
		require.GreaterOrEqual(t, got, moment)
		switch sum := new(big.Int).Add(big.NewInt(moment), big.NewInt(length)); {
		case moment == Never || length >= MaxDeadline:
			require.Equal(t, int64(Never), got)
		case sum.Cmp(big.NewInt(MaxDeadline)) <= 0:
			require.Equal(t, sum.Int64(), got)
		default:
			require.Equal(t, max(moment, MaxDeadline), got)
		}

		ttl := time.Duration(length)
		if now := time.UnixMilli(moment % MaxDeadline).Add(time.Duration(b % 1e6)); now.UnixMilli() >= 0 && ttl != Forever {
			end := new(big.Int).Add(big.NewInt(now.UnixMilli()), big.NewInt(int64(now.Nanosecond()%1e6)))
			nanos := new(big.Int).Mul(big.NewInt(now.UnixMilli()), big.NewInt(1e6))
			nanos.Add(nanos, big.NewInt(int64(now.Nanosecond()%1e6))).Add(nanos, big.NewInt(length))
			end.Div(nanos.Add(nanos, big.NewInt(1e6-1)), big.NewInt(1e6)) // rounded up
			if end.Cmp(big.NewInt(MaxDeadline)) > 0 {
				end.SetInt64(MaxDeadline)
			}
			require.Equal(t, end.Int64(), Deadline(now, ttl))
		}

		if span := Span(ttl); ttl != Forever {
			require.GreaterOrEqual(t, Duration(span), ttl)
			require.LessOrEqual(t, Duration(span)-ttl, time.Millisecond)
		}
		row := RowTime(moment, max(b, 0))
		require.True(t, row == Never || row <= moment && moment-row < RowGrain)
		require.GreaterOrEqual(t, Overdue(min(row, MaxDeadline), time.UnixMilli(min(length, MaxDeadline))), time.Duration(0))
	})
}
