package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// TestStats_Loads ensures that stats tells of loads where there were any, in lines that fit a terminal.
func TestStats_Loads(t *testing.T) {
	for want, l := range map[string]keepcache.LoadStats{
		"":               {},
		"loads     12\n": {Loads: 12},
		"loads     0, 1 running\nno load   1 skipped refresh\n": {Running: 1, Skipped: 1},
		"no load   2 remembered failures\n":                     {Remembered: 2},
		"loads     99,999,999,999, 99,999,999 failed, 99,999,999 timed out, 1,000 running\n" +
			"no load   99,999,999,999 remembered failures, 999,999,999 skipped refreshes\n": {
			Loads: 99_999_999_999, Failures: 99_999_999, TimedOut: 99_999_999, Running: 1000, Remembered: 99_999_999_999,
			Skipped: 999_999_999,
		},
	} {
		var out strings.Builder
		printActivity(&out, keepcache.Stats{Loads: l})
		require.Equal(t, want, out.String())
		for line := range strings.Lines(want) {
			require.LessOrEqual(t, len(line), 81)
		}
	}
}
