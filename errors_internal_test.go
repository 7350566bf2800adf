package keepcache

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A path in an error can be used as it stands there, on Windows too.
func TestQuotePath(t *testing.T) {
	require.Equal(t, `"C:\caches\app.cache"`, quotePath(`C:\caches\app.cache`, '\\'))
	require.Equal(t, `"/caches/a\\b.cache"`, quotePath(`/caches/a\b.cache`, '/'))
	require.Equal(t, `"/caches/\n.cache"`, quotePath("/caches/\n.cache", '/'))
}
