package recency

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A score rises with each tick of use and fades while other keys are used.
func TestTable_Score(t *testing.T) {
	table := New(64 << 10)
	table.SetKeys(1 << 20)
	require.Equal(t, int64(64<<10), table.Bytes())
	table.SetKeys(80)
	require.Zero(t, table.Score(1))
	table.Use(1)
	once := table.Score(1)
	require.Positive(t, once)
	table.Use(1)
	require.Equal(t, once, table.Score(1), "a second use in one tick counts nothing")
	for i := range uint64(100) {
		table.Use(1)
		table.Use(1000 + i)
	}
	often := table.Score(1)
	require.Greater(t, often, 2*once)
	for i := range uint64(160) { // a turn over twice as many keys as there are halves it
		table.Use(5000 + i)
	}
	require.InDelta(t, often/2, table.Score(1), float64(often)/8)
	for i := range uint64(10_000) {
		table.Use(10_000 + i)
	}
	require.Less(t, table.Score(1), once/4)
}

// A small table keeps hot keys while many others pass.
func TestTable_Small(t *testing.T) {
	table := New(0)
	require.Equal(t, int64(leastSlots*4), table.Bytes())
	for i := range uint64(100_000) {
		table.Use(i % 20)
		table.Use(1_000_000 + i)
	}
	kept := 0
	for i := range uint64(20) {
		if table.Score(i) > unit<<8 {
			kept++
		}
	}
	require.Greater(t, kept, 15)
}

// A table grows with the keys that there are, up to its bound, and knows then what it knew before.
func TestTable_Grows(t *testing.T) {
	table := New(1 << 40)
	require.Equal(t, int64(leastSlots*4), table.Bytes())
	table.SetKeys(100)
	for range 5 {
		for hash := range uint64(100) {
			table.Use(hash)
		}
	}
	score := table.Score(7)
	require.Positive(t, score)
	table.SetKeys(1000)
	require.Equal(t, int64(2048*4), table.Bytes())
	require.Equal(t, score, table.Score(7))
	table = New(64 << 10)
	table.SetKeys(1 << 40)
	require.Equal(t, int64(64<<10), table.Bytes())
}

// Of runs that are alike a fixed part goes; of a hot run nothing, of a cold one more.
func TestQuantile(t *testing.T) {
	var q Quantile
	alike := make([]uint32, 64)
	require.Equal(t, 16, q.Pick(alike, 0.25))
	require.Equal(t, 64, q.Pick(alike, 1))
	hot := make([]uint32, 64)
	for i := range hot {
		hot[i] = 20_000
	}
	require.Zero(t, q.Pick(hot, 0.25))
	warm, cold := hot, make([]uint32, 64)
	for range 30 {
		q.Pick(warm, 0.25)
	}
	require.Equal(t, 32, q.Pick(cold, 0.25))
	require.Equal(t, 1, q.Pick(make([]uint32, 1), 0.25))
	require.Zero(t, q.Pick(nil, 0.25))
}

// Bins rise with scores and stay in range.
func TestBin(t *testing.T) {
	last := 0
	for score := range uint32(1 << 17) {
		b := bin(score)
		require.GreaterOrEqual(t, b, last)
		require.Less(t, b, bins)
		last = b
	}
}

func BenchmarkTable_Use(b *testing.B) {
	table := New(4 << 20)
	table.SetKeys(1 << 20)
	for i := range b.N {
		table.Use(uint64(i) * 0x9E3779B97F4A7C15)
	}
}
