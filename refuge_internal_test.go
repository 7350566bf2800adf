package keepcache

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A copy that finds the path free never takes it from whoever has come since.
func TestSuccessor_Taken(t *testing.T) {
	if !canReplace {
		t.Skip("an open file cannot be replaced here")
	}
	path := filepath.Join(t.TempDir(), "test.cache")
	db, err := Open(path, nil)
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, os.Remove(path))
	n, err := db.store.newSuccessor(db.store.dir())
	require.NoError(t, err)
	vacant, err := db.store.vacate(n.dir, db.store.current.Load(), true)
	require.NoError(t, err)
	require.True(t, vacant)
	require.NoError(t, os.WriteFile(path, []byte("of another"), 0o600))
	require.ErrorIs(t, n.rename(vacant), ErrUnavailable)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "of another", string(content))
	require.NoError(t, os.Remove(path))
	require.NoError(t, n.rename(vacant))
	require.FileExists(t, path)
	require.NoFileExists(t, successorPath(path))
	require.NoError(t, n.handle.close())
	require.NoError(t, os.Remove(path))
	db.healer.look(context.Background())
	require.FileExists(t, path)
}
