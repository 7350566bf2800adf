//go:build unix

package disk

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/trust"
)

// theirs describes a file of a user of whom the tests are not.
type theirs struct{ fs.FileInfo }

func (theirs) Sys() any { return &syscall.Stat_t{Uid: 65533} }

// Whether a file may be believed is decided by the directory that it was found in, and not by what has its path now.
func TestDir_Trust(t *testing.T) {
	for name, want := range map[string]error{"plain": nil, "sticky": trust.ErrForeign} {
		root, err := filepath.EvalSymlinks(t.TempDir())
		require.NoError(t, err)
		in, other := filepath.Join(root, "in"), filepath.Join(root, "other")
		for _, dir := range []string{in, other} {
			require.NoError(t, os.Mkdir(dir, 0o700))
			if (dir == in) == (name == "sticky") {
				require.NoError(t, os.Chmod(dir, 0o777|fs.ModeSticky))
			}
		}
		path := filepath.Join(in, "f")
		d, _, err := OpenDir(path)
		require.NoError(t, err)
		defer d.Close()
		f, err := d.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		require.NoError(t, err)
		defer f.Close()
		require.NoError(t, os.Rename(in, filepath.Join(root, "renamed")))
		require.ErrorIs(t, trust.File(path, theirs{}, d.Info), want, name)
		require.NoError(t, os.Rename(other, in))
		require.ErrorIs(t, trust.File(path, theirs{}, d.Info), want, name)
		require.NoError(t, trust.Opened(f, path, d.Info))
	}
}
