package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The page of hit ratios has a row for each trace and budget in both tables, and nobody beats the optimum.
func TestHitRatios(t *testing.T) {
	out := t.TempDir()
	require.NoError(t, writeHitRatios(600, t.TempDir(), out))
	page, err := os.ReadFile(filepath.Join(out, "hitratio.md"))
	require.NoError(t, err)
	rows := 0
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(strings.Trim(line, "| \n"), " | "); strings.Contains(line, " % | ") {
			rows++
			require.NotContains(t, line, "NaN")
			require.Contains(t, []int{10, 11}, len(cells), line)
		}
	}
	require.Equal(t, 2*3*5, rows)
}
