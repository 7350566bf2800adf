package store

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/disk"
)

// A file that was being made anew has its copy by the name in it, or none, and never one that others may have put there.
func TestOpenKept(t *testing.T) {
	if !CanReplace {
		t.Skip("a file that is open is not made anew")
	}
	path := filepath.Join(t.TempDir(), "test.cache")
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	require.NoError(t, os.Chmod(temp, 0o777|fs.ModeSticky))
	in, path, err := disk.OpenDir(path)
	require.NoError(t, err)
	defer in.Close()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	search := func(text string) string {
		kept, aside := openKept(in, f, path, corruptSuffix, text)
		if kept != nil {
			kept.Close()
		}
		return aside
	}
	put := func(at, time string) string {
		at += corruptSuffix + time
		require.NoError(t, os.WriteFile(at, nil, 0o600))
		return at
	}
	away := put(elsewhere(path), "2026")
	link := elsewhere(path) + corruptSuffix + "2027"
	require.NoError(t, os.Symlink(away, link))
	require.Equal(t, away, search(anewText))
	require.Empty(t, search(anewMark(link)))
	if os.Geteuid() == 0 {
		trap := put(elsewhere(path), "2028")
		require.NoError(t, os.Chown(trap, 65533, -1))
		require.Equal(t, away, search(anewText))
		require.Empty(t, search(anewMark(trap)))
	}
	older, newer := put(path, "2024"), put(path, "2025")
	require.Equal(t, newer, search(anewText), "of an older keepcache")
	for _, aside := range []string{older, newer, away, ""} {
		require.Equal(t, aside, search(anewMark(aside)))
	}
	require.Equal(t, anewText, anewMark(strings.Repeat("n", makingBytes)))
	PruneAside(nil, elsewhere(path), corruptSuffix, away)
	require.FileExists(t, away)
}
