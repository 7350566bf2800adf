//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPermission ensures that what is said of a new file that cannot be made is no advice for reading one.
func TestPermission(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o500))
	said := func(args ...string) string {
		var out, words strings.Builder
		require.Equal(t, exitError, run(args, strings.NewReader(""), &out, &words))
		require.Empty(t, out.String())
		return words.String()
	}
	path := filepath.Join(dir, "new.cache")
	for _, args := range [][]string{{"set", "k", "1"}, {"add", "k", "1"}, {"incr", "k"}, {"import"}} {
		words := said(append(args, "--file", path)...)
		require.Contains(t, words, "permission denied (the directory must be writable)")
		require.NotContains(t, words, "to read it")
	}
}
