package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSize writes sizes and counts as people read them.
func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 64 << 20: "64.0 MiB",
		5 << 40: "5.0 TiB",
	} {
		require.Equal(t, want, size(n))
	}
	require.Equal(t, "1 entry", plural(1, "entry", "entries"))
	require.Equal(t, "1,234,567 entries", plural(1234567, "entry", "entries"))
	require.Equal(t, "999 entries", plural(999, "entry", "entries"))
}

type full struct{}

var errFull = errors.New("no space left")

func (full) Write([]byte) (int, error) { return 0, errFull }

// TestRun_FullOutput ensures that output nobody could write is no success.
func TestRun_FullOutput(t *testing.T) {
	var words strings.Builder
	require.Equal(t, exitError, run([]string{"version"}, nil, full{}, &words))
	require.Equal(t, "keepcache: no space left\n", words.String())
}

func TestBar(t *testing.T) {
	require.Equal(t, "[###############               ]  50 %, 512 B of 1.0 KiB", bar(512, 1024))
	require.Equal(t, "[##############################] 100 %, 0 B of 0 B", bar(0, 0))
}

// TestFitMiddle leaves out the middle of what is too wide, and no more than it has to.
func TestFitMiddle(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"abcdefgh", 8, "abcdefgh"}, {"abcdefgh", 7, "abc…fgh"}, {"abcdefgh", 6, "abc…gh"}, {"abcdefgh", 3, "a…h"},
		{"abcdefgh", 2, "a…"}, {"abc", 0, ""}, {"", 5, ""}, {"日本語日本語", 12, "日本語日本語"}, {"日本語日本語", 11, "日本語…本語"},
		{"日本語日本語", 6, "日…語"}, {"日本語日本語", 3, "日…"}, {"e\u0301e\u0301e\u0301", 2, "e\u0301…"},
	} {
		got := fitMiddle(c.text, c.width)
		require.LessOrEqual(t, widthOf(got), max(c.width, 0), c)
		require.Equal(t, c.want, got, c)
	}
	for width := range 40 {
		require.LessOrEqual(t, widthOf(fitMiddle("e\u0301日x\u0301本語ab日本語", width)), width)
	}
}
