package hitratio

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// The policy of the byte budget is within 1.5 points of exact LRU on every trace, and on a scan and on a loop
// above it.
func TestTable(t *testing.T) {
	keys := uint32(10_000)
	if os.Getenv("KEEPCACHE_LONG") != "" {
		keys = 100_000
	}
	traces := Traces(keys)
	t.Logf("| %-20s | budget | optimum | LRU | FIFO | S3-FIFO | (a) queue | (b) hand | (b), small table |", "trace")
	for _, percent := range []int{1, 10, 50} {
		capacity := int(keys) * percent / 100
		for i, trace := range append(traces, Loop(uint32(capacity))) {
			a := trace.Accesses
			lru := Ratio(NewLRU(capacity), a)
			hand := Ratio(NewHand(capacity, trace.Keys, int64(16*capacity)), a)
			t.Logf("| %-20s | %4d %% | %7.1f | %4.1f | %4.1f | %7.1f | %9.1f | %8.1f | %16.1f |", trace.Name, percent,
				Ratio(NewOptimum(capacity, a), a), lru, Ratio(NewFIFO(capacity, false), a), Ratio(NewS3FIFO(capacity), a),
				Ratio(NewFIFO(capacity, true), a), hand, Ratio(NewHand(capacity, trace.Keys, int64(2*capacity)), a))
			require.Greater(t, hand, lru-1.5, trace.Name)
			switch {
			case i == len(traces):
				require.Greater(t, hand, lru+20, trace.Name)
			case i == 2:
				require.Greater(t, hand, lru+1.5, trace.Name)
			}
		}
	}
}

// The classics do what they are known for.
func TestPolicies(t *testing.T) {
	trace := []uint32{1, 2, 3, 1, 4, 1, 2, 3}
	require.Equal(t, 25.0, Ratio(NewLRU(3), trace))
	require.Equal(t, 12.5, Ratio(NewFIFO(3, false), trace), "1 leaves although it was just used")
	require.Equal(t, 50.0, Ratio(NewOptimum(3, trace), trace))
	require.Equal(t, 0.0, Ratio(NewLRU(10), Loop(10).Accesses))
	require.Equal(t, 25.0, Ratio(NewSIEVE(3), trace), "1 stays, and 2 and 3 leave for 4 and 2")
	require.Equal(t, 0.0, Ratio(NewSIEVE(10), Loop(10).Accesses))
	require.Greater(t, Ratio(NewTinyLFU(1000), Loop(1000).Accesses), 80.0,
		"what is there is not asked for less often than what comes")

	// None keeps more than it may, and each keeps what fits.
	for name, p := range map[string]Policy{
		"LRU": NewLRU(50), "FIFO": NewFIFO(50, false), "S3-FIFO": NewS3FIFO(50), "SIEVE": NewSIEVE(50),
		"W-TinyLFU": NewTinyLFU(50),
	} {
		for range 20 {
			for key := range uint32(300) {
				p.Access(key)
			}
		}
		kept := 0
		switch c := p.(type) {
		case *LRU:
			kept = len(c.at)
		case *FIFO:
			kept = len(c.used)
		case *S3FIFO:
			kept = len(c.uses)
		case *SIEVE:
			kept = len(c.at)
		case *TinyLFU:
			kept = len(c.at)
		}
		require.Equal(t, 50, kept, name)
	}
}
