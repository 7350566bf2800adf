package beside

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The files beside an open cache keep their names when its directory has another, where nobody can say any more how
// long names may be.
func TestRemember(t *testing.T) {
	most := 143
	ask = func(string) int { return most }
	defer func() { ask = longest }()
	path := filepath.Join(t.TempDir(), strings.Repeat("n", 140))
	Remember(path)
	was := Path(path, "-journal")
	require.Len(t, filepath.Base(was), 143)
	most = usual
	require.Equal(t, was, Path(path, "-journal"))
	Remember(path) // it is opened anew, and there is another file system
	require.Equal(t, path+"-journal", Path(path, "-journal"))
}
