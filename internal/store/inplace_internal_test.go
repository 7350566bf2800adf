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

// openQuarantined finds the copy that the text names, or none, and never one that others may have put there.
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
		kept, quarantined := openQuarantined(in, f, path, corruptSuffix, text)
		if kept != nil {
			kept.Close()
		}
		return quarantined
	}
	put := func(at, time string) string {
		at += corruptSuffix + time
		require.NoError(t, os.WriteFile(at, nil, 0o600))
		return at
	}
	away := put(tempPath(path), "2026")
	link := tempPath(path) + corruptSuffix + "2027"
	require.NoError(t, os.Symlink(away, link))
	require.Equal(t, away, search(remakeText))
	require.Empty(t, search(remakeMarker(link)))
	if os.Geteuid() == 0 {
		trap := put(tempPath(path), "2028")
		require.NoError(t, os.Chown(trap, 65533, -1))
		require.Equal(t, away, search(remakeText))
		require.Empty(t, search(remakeMarker(trap)))
	}
	older, newer := put(path, "2024"), put(path, "2025")
	require.Equal(t, newer, search(remakeText), "of an older keepcache")
	for _, quarantined := range []string{older, newer, away, ""} {
		require.Equal(t, quarantined, search(remakeMarker(quarantined)))
	}
	require.Equal(t, remakeText, remakeMarker(strings.Repeat("n", markerBytes)))
	PruneQuarantine(nil, tempPath(path), corruptSuffix, away)
	require.FileExists(t, away)
}
