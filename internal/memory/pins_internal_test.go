package memory

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// SortPins sorts by bucket and key, whatever keys begin with and however short they are.
func TestSortPins(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	starts := []string{"", "", "a", "user:", "\x00", "\xff\xff", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}
	for round := range 2000 {
		alphabet := []string{"\x00\x01", "ab", "\x00a\xff"}[rng.IntN(3)]
		start := starts[rng.IntN(len(starts))]
		pins := make([]Pin, rng.IntN(40))
		for i := range pins {
			key := []byte(start)
			if rng.IntN(8) == 0 {
				key = nil
			}
			for range 1 + rng.IntN(12) {
				key = append(key, alphabet[rng.IntN(len(alphabet))])
			}
			pins[i] = Pin{ID: uint64(1 + rng.IntN(1+round%3)), Key: string(key)}
		}
		want := slices.Clone(pins)
		slices.SortStableFunc(want, func(a, b Pin) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Key, b.Key)) })
		SortPins(pins)
		for i := range pins {
			require.Equal(t, want[i].ID, pins[i].ID)
			require.Equal(t, want[i].Key, pins[i].Key)
		}
	}
}
