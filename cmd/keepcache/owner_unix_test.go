//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// The command leaves a file to its owner when root compacts it, restores one in its place or replaces a backup.
func TestOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files to others")
	}
	const user, group = 65534, 65533
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "app.cache"), filepath.Join(dir, "app.backup")
	run := func(args ...string) {
		t.Helper()
		cmd := newRootCommand()
		var out bytes.Buffer
		cmd.SetArgs(append(args, "--file", path))
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		require.NoError(t, cmd.Execute(), out.String())
	}
	mine := func(path string) {
		t.Helper()
		info, err := os.Stat(path)
		require.NoError(t, err)
		st := info.Sys().(*syscall.Stat_t)
		require.Equal(t, []uint32{user, group, 0o640}, []uint32{st.Uid, st.Gid, uint32(info.Mode().Perm())})
	}
	run("set", "k", "1")
	run("backup", backup)
	for _, path := range []string{path, backup} {
		require.NoError(t, os.Chown(path, user, group))
		require.NoError(t, os.Chmod(path, 0o640))
	}
	run("compact")
	mine(path)
	run("backup", "--force", backup)
	mine(backup)
	run("restore", "--force", backup)
	mine(path)
	run("set", "l", "2")
	mine(path)
}
