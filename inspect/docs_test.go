package inspect_test

import (
	"context"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
)

// Each metric that the documentation names is there, with the label that it names.
func TestDocs_Metrics(t *testing.T) {
	db, err := keepcache.Open(t.TempDir()+"/app.cache", nil)
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.Set("k", 1, time.Hour))
	w := httptest.NewRecorder()
	inspect.Metrics(db).ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), "GET", "/metrics", nil))
	named := 0
	for _, name := range []string{"../docs/operating.md", "../docs/inspect.md", "../README.md"} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, metric := range regexp.MustCompile("`(keepcache_[a-z_]+)({[^}]*})?`").FindAllStringSubmatch(string(text), -1) {
			named++
			found := strings.Contains(w.Body.String(), "\n"+metric[1]+metric[2]+" ")
			found = found || metric[2] == "" && strings.Contains(w.Body.String(), "\n"+metric[1]+"{")
			require.True(t, found, "%s of %s", metric[0], name)
		}
	}
	require.Greater(t, named, 15)
}
