package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A backup goes where its name led when it was begun, also if a link on the way is turned meanwhile.
func TestPlace_LinkTurned(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.MkdirAll(at("releases/1"), 0o700))
	require.NoError(t, os.MkdirAll(at("releases/2"), 0o700))
	if err := os.Symlink(at("releases/1"), at("current")); err != nil {
		t.Skip("no links here: ", err)
	}
	require.NoError(t, place(at("current/app.backup"), false, func(w io.Writer) error {
		require.NoError(t, os.Remove(at("current")))
		require.NoError(t, os.Symlink(at("releases/2"), at("current")))
		_, err := w.Write([]byte("content"))
		return err
	}, os.Rename))
	require.FileExists(t, at("releases/1/app.backup"))
	left, err := os.ReadDir(at("releases/2"))
	require.NoError(t, err)
	require.Empty(t, left)
}
