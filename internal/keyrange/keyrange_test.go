package keyrange_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/keyrange"
)

// keys are all keys of up to three of the bytes that matter: the least, the greatest and some between.
var keys = func() (all []string) {
	bytes := []string{"\x00", "a", "b", "\xfe", "\xff"}
	last := []string{""}
	for range 3 {
		var next []string
		for _, key := range last {
			for _, b := range bytes {
				next = append(next, key+b)
			}
		}
		all, last = append(all, next...), next
	}
	return all
}()

// A prefix holds the keys that begin with it and no others.
func TestPrefix(t *testing.T) {
	for _, prefix := range append([]string{""}, keys...) {
		r := keyrange.Prefix(prefix)
		require.False(t, r.Empty())
		for _, key := range keys {
			require.Equal(t, strings.HasPrefix(key, prefix), r.Contains(key), "%q in %q", key, prefix)
		}
	}
}

// Narrow and After leave what they say, in both directions.
func TestNarrow(t *testing.T) {
	for _, first := range keys[:12] {
		for _, end := range append([]string{""}, keys[:12]...) {
			for _, after := range keys[:10] {
				for _, reverse := range []bool{false, true} {
					r := keyrange.Range{Reverse: reverse}
					r.Narrow(first, end)
					r.After(after)
					for _, key := range keys {
						want := key >= first && (end == "" || key < end) && (reverse && key < after || !reverse && key > after)
						require.Equal(t, want, r.Contains(key), "%q from %q to %q after %q, %v", key, first, end, after, reverse)
						require.False(t, want && r.Empty())
					}
				}
			}
		}
	}
}

// Sort and Index agree with the direction.
func TestSort(t *testing.T) {
	sorted := slices.Sorted(slices.Values(keys))
	for _, reverse := range []bool{false, true} {
		r, got := keyrange.Range{Reverse: reverse}, slices.Clone(keys)
		r.Sort(got)
		if reverse {
			slices.Reverse(sorted)
		}
		require.Equal(t, sorted, got)
		for i, key := range sorted {
			rest := r
			rest.After(key)
			for k, other := range sorted[:min(i+2, len(sorted))] {
				require.Equal(t, k <= i, rest.Precedes(other))
			}
			require.Equal(t, i+1, rest.Index(got))
		}
	}
}
