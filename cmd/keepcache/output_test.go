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
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 64 << 20: "64.0 MiB", 5 << 40: "5.0 TiB",
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
