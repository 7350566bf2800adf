package store

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a transaction has of tags counts for the highest revision, also without a change of an entry: revisions go on above it.
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
