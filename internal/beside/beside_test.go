package beside_test

import (
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/beside"
)

// A name that fits stays as it is, and one that does not is cut so that it fits to the byte at the most.
func TestPath(t *testing.T) {
	dir := t.TempDir()
	for n := 1; n <= 255; n++ {
		path := filepath.Join(dir, strings.Repeat("n", n))
		got := beside.Path(path, "-journal")
		if n+len("-journal") <= 255 {
			require.Equal(t, path+"-journal", got)
			continue
		}
		require.Len(t, filepath.Base(got), 255)
		require.Equal(t, dir, filepath.Dir(got))
		require.True(t, strings.HasSuffix(got, "-journal"))
	}
	require.Equal(t, "app.cache-journal", beside.Path("app.cache", "-journal"))
}

// Different names that begin alike stay different, and letters are not cut in two.
func TestPath_Collisions(t *testing.T) {
	dir, seen := t.TempDir(), map[string]string{}
	for _, letter := range []string{"n", "é", "日", "🙂"} {
		for n := 240; n <= 255; n++ {
			for _, end := range []string{"a", "b"} {
				name := strings.Repeat(letter, (n-1)/len(letter)) + end
				for _, suffix := range []string{"-journal", "-journal.new", ".compact", ".sock"} {
					got := filepath.Base(beside.Path(filepath.Join(dir, name), suffix))
					require.LessOrEqual(t, len(got), 255)
					require.True(t, utf8.ValidString(got))
					whole := name + suffix
					require.True(t, seen[got] == "" || seen[got] == whole, "%q and %q", seen[got], whole)
					seen[got] = whole
				}
			}
		}
	}
}

// All files of a family begin alike, and each of them has room for what the caller appends.
func TestPrefix(t *testing.T) {
	dir := t.TempDir()
	const room = 23
	for n := 200; n <= 255; n++ {
		path := filepath.Join(dir, strings.Repeat("n", n))
		got := beside.Prefix(path, ".corrupt-", room)
		if n+len(".corrupt-")+room <= 255 {
			require.Equal(t, path+".corrupt-", got)
			continue
		}
		require.Equal(t, 255, len(filepath.Base(got))+room)
		require.True(t, strings.HasSuffix(got, ".corrupt-"))
	}
}

// A name of bytes that are no text is cut as well.
func TestPath_NoText(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("\x80", 255))
	require.LessOrEqual(t, len(filepath.Base(beside.Path(path, "-journal"))), 255)
}
