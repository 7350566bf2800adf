package keepcache

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

	require.Equal(t, ms+60_000, deadline(now, time.Minute))
	require.Equal(t, ms+1, deadline(now, 1))
	require.Equal(t, int64(never), deadline(now, NoExpiry))
	require.Equal(t, ms+int64((NoExpiry-1)/time.Millisecond)+1, deadline(now, NoExpiry-1))
	require.Equal(t, int64(mostDeadline), deadline(time.UnixMilli(mostDeadline), time.Hour))

	require.Equal(t, ms+5, prolong(ms, 5))
	require.Equal(t, int64(never), prolong(ms, never))
	require.Equal(t, int64(never), prolong(ms, spanOf(NoExpiry)))
	require.Equal(t, int64(never), prolong(never, 5))
	require.Equal(t, int64(never), prolong(never, never))
	require.Equal(t, int64(mostDeadline), prolong(mostDeadline-1, 5))
	require.Equal(t, most-3, prolong(most-3, 5), "what is later than can be stays where it is")

	require.Equal(t, int64(5), between(ms, ms+5))
	require.Equal(t, int64(-5), between(ms+5, ms))
	require.Equal(t, int64(never), between(ms, never))
	require.Zero(t, between(never, never))
	require.Negative(t, between(never, ms))
	require.Equal(t, most, between(math.MinInt64, 0))
	require.Equal(t, -most, between(1, math.MinInt64))

	require.Equal(t, int64(1), spanOf(1))
	require.Equal(t, int64(60_000), spanOf(time.Minute))
	require.Equal(t, int64(60_001), spanOf(time.Minute+1))
	require.Equal(t, int64(never), spanOf(NoExpiry))
	require.Equal(t, int64(9_223_372_036_855), spanOf(NoExpiry-1))
	require.Equal(t, time.Minute, durationOf(60_000))
	require.Equal(t, NoExpiry, durationOf(never))
	require.Equal(t, NoExpiry-1, durationOf(never-1))

	require.Equal(t, NoExpiry, remaining(now, never))
	require.Equal(t, NoExpiry-1, remaining(now, mostDeadline))
	require.Negative(t, remaining(now, 0))

	require.False(t, isPast(ms, never, never-1, 0))
	require.False(t, isPast(ms, ms+100, ms+79, 0.8))
	require.True(t, isPast(ms, ms+100, ms+80, 0.8))
	require.False(t, isPast(ms, ms+100, ms-5, 0.1), "somebody has set the clock back")
}

// FuzzMoments compares sums and differences with those of numbers that have no end.
func FuzzMoments(f *testing.F) {
	for _, seed := range [][2]int64{{0, 0}, {1, -1}, {math.MaxInt64, 1}, {math.MinInt64, 1}, {mostDeadline, mostDeadline}, {1 << 41, 3600_000}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, a, b int64) {
		span := new(big.Int).Sub(big.NewInt(b), big.NewInt(a))
		want := span.Int64()
		switch {
		case a == b:
			want = 0
		case b == never:
			want = never
		case !span.IsInt64():
			want = math.MaxInt64 * int64(span.Sign())
		}
		require.Equal(t, max(want, -math.MaxInt64), max(between(a, b), -math.MaxInt64), "from %d to %d", a, b)

		moment, length := max(a, 0), max(b, 0)
		got := prolong(moment, length)
		require.GreaterOrEqual(t, got, moment)
		switch sum := new(big.Int).Add(big.NewInt(moment), big.NewInt(length)); {
		case moment == never || length >= mostDeadline:
			require.Equal(t, int64(never), got)
		case sum.Cmp(big.NewInt(mostDeadline)) <= 0:
			require.Equal(t, sum.Int64(), got)
		default:
			require.Equal(t, max(moment, mostDeadline), got)
		}

		ttl := time.Duration(length)
		if now := time.UnixMilli(moment % mostDeadline).Add(time.Duration(b % 1e6)); now.UnixMilli() >= 0 && ttl != NoExpiry {
			end := new(big.Int).Add(big.NewInt(now.UnixMilli()), big.NewInt(int64(now.Nanosecond()%1e6)))
			nanos := new(big.Int).Mul(big.NewInt(now.UnixMilli()), big.NewInt(1e6))
			nanos.Add(nanos, big.NewInt(int64(now.Nanosecond()%1e6))).Add(nanos, big.NewInt(length))
			end.Div(nanos.Add(nanos, big.NewInt(1e6-1)), big.NewInt(1e6)) // rounded up
			if end.Cmp(big.NewInt(mostDeadline)) > 0 {
				end.SetInt64(mostDeadline)
			}
			require.Equal(t, end.Int64(), deadline(now, ttl))
		}

		if span := spanOf(ttl); ttl != NoExpiry {
			require.GreaterOrEqual(t, durationOf(span), ttl)
			require.LessOrEqual(t, durationOf(span)-ttl, time.Millisecond)
		}
		for _, part := range []float64{0, 0.3, 1} {
			short := shorten(max(ttl, 1), part)
			require.Positive(t, short)
			require.LessOrEqual(t, short, max(ttl, 1))
		}
		row := rowTime(moment, max(b, 0))
		require.True(t, row == never || row <= moment && moment-row < rowGrain)
		require.GreaterOrEqual(t, overdue(min(row, mostDeadline), time.UnixMilli(min(length, mostDeadline))), time.Duration(0))
	})
}
