package keepcache_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// A cache whose name leaves no room for what stands beside it works as any other: it has a journal that a crash leaves
// and readers beside the process find, it is compacted, backed up and kept aside, and what is kept aside is bounded.
func TestNames_Long(t *testing.T) {
	for _, name := range []string{
		strings.Repeat("n", 223), strings.Repeat("n", 226), strings.Repeat("n", 255), strings.Repeat("日", 85),
		`back\slash[*?].cache`,
	} {
		t.Run(fmt.Sprint(len(name), name[len(name)-3:]), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), name)
			db := openUnchecked(t, path) // what is kept aside in the end is beside it
			mustSet(t, db.Bucket("b"), "k", "v", 0)
			beside := nameslike(t, path)
			require.NotEmpty(t, beside, "the journal")
			reader, err := keepcache.Open(path, &keepcache.Options{NoLock: true, ReadOnly: true})
			require.NoError(t, err)
			requireValue(t, reader.Bucket("b"), "k", "v") // it is in the journal alone
			require.NoError(t, reader.Close())
			copied := filepath.Join(t.TempDir(), name)
			require.NoError(t, os.CopyFS(filepath.Dir(copied), os.DirFS(filepath.Dir(path)))) // as a crash leaves it
			require.NoError(t, db.Backup(context.Background(), io.Discard))
			if runtime.GOOS != "windows" {
				require.NoError(t, db.Compact(context.Background()))
			}
			require.NoError(t, db.Close())
			require.Empty(t, nameslike(t, path))

			requireValue(t, open(t, copied, nil).Bucket("b"), "k", "v")
			skipOnWindows(t, "an open file cannot be replaced")
			var aside []string
			for i := range 5 {
				breakFile(t, path)
				db := openUnchecked(t, path)
				aside = append(aside, db.Stats().Health.Aside)
				mustSet(t, db.Bucket("b"), "k", i, 0)
				require.NoError(t, db.Close())
			}
			require.ElementsMatch(t, aside[2:], nameslike(t, path))
		})
	}
}

// nameslike returns the other files in the directory of the one at path, which there must all be text of a length that
// fits.
func nameslike(t *testing.T, path string) (others []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	for _, e := range entries {
		if other := filepath.Join(filepath.Dir(path), e.Name()); other != path {
			require.True(t, utf8.ValidString(e.Name()) && len(e.Name()) <= 255, e.Name())
			others = append(others, other)
		}
	}
	return others
}
