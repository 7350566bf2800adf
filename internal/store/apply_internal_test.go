package store

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Revisions of tags count for the highest revision even if the transaction changes no entry: later revisions must be
// higher.
func TestApply_HighestOfTags(t *testing.T) {
	s, err := Open(nil, filepath.Join(t.TempDir(), "test.cache"), false, time.Second, true)
	require.NoError(t, err)
	mark, _, err := s.Revisions()
	require.NoError(t, err)
	require.NoError(t, s.Apply([]NameOp{{Name: "t", Tag: true, Revision: mark + 5}}, 0, nil, mark, nil))
	_, highest, err := s.Revisions()
	require.NoError(t, err)
	require.Equal(t, mark+5, highest)
	require.NoError(t, s.Close())
}
