package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
)

// A compaction that finds the path free never replaces a file that was put there later.
func TestSuccessor_Taken(t *testing.T) {
	if !CanReplace {
		t.Skip("an open file cannot be replaced here")
	}
	in, path, err := disk.OpenDir(filepath.Join(t.TempDir(), "test.cache"))
	require.NoError(t, err)
	defer in.Close()
	s, err := Open(in, path, false, time.Second, true)
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, os.Remove(path))
	n, err := s.newSuccessor(in)
	require.NoError(t, err)
	absent, err := s.freeName(n.dir, s.Handle(), true)
	require.NoError(t, err)
	require.True(t, absent)
	require.NoError(t, os.WriteFile(path, []byte("of another"), 0o600))
	require.ErrorIs(t, n.rename(absent), errs.ErrUnavailable)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "of another", string(content))
	require.NoError(t, os.Remove(path))
	require.NoError(t, n.rename(absent))
	require.FileExists(t, path)
	require.NoFileExists(t, successorPath(path))
	require.NoError(t, n.handle.Close())
}
