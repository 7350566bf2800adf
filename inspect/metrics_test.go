package inspect_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/inspect"
)

func metrics(t *testing.T, h http.Handler, accept string) (text, kind string) {
	t.Helper()
	r := httptest.NewRequest("GET", "http://localhost/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, 200, w.Code)
	raw, err := io.ReadAll(w.Body)
	require.NoError(t, err)
	return string(raw), w.Header().Get("Content-Type")
}

// TestMetrics says what Stats say, line by line in the form that the formats ask for, in either of them.
func TestMetrics(t *testing.T) {
	db := open(t, nil)
	require.NoError(t, db.Bucket("quo\"te\\\n\xff").Set("k", 1, 0))
	for range 3 {
		require.NoError(t, db.Set("a", 1, 0))
	}
	var v any
	_, err := db.Get("a", &v)
	require.NoError(t, err)
	h := inspect.Metrics(db)
	plain, kind := metrics(t, h, "")
	require.Equal(t, "text/plain; version=0.0.4; charset=utf-8", kind)
	open, kind := metrics(t, h, "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
	require.Equal(t, "application/openmetrics-text; version=1.0.0; charset=utf-8", kind)
	require.True(t, strings.HasSuffix(open, "# EOF\n"))
	require.Contains(t, plain, "# TYPE keepcache_sets_total counter\nkeepcache_sets_total 4\n")
	require.Contains(t, open, "# TYPE keepcache_sets counter\nkeepcache_sets_total 4\n")
	require.Contains(t, plain, `keepcache_hits_total{tier="memory"} 1`)
	require.Contains(t, plain, "# TYPE keepcache_read_duration_seconds histogram\n")
	require.Contains(t, plain, `keepcache_read_duration_seconds_bucket{le="+Inf"} 1`)
	require.NotContains(t, plain, `"a"`, "no key is a label")

	sample := regexp.MustCompile(`^([a-z_]+)(?:\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"\})? (\S+)$`)
	for _, text := range []string{plain, open} {
		family, seen := "", make(map[string]bool)
		for l := range strings.Lines(text) {
			l = strings.TrimSuffix(l, "\n")
			if l == "# EOF" {
				continue
			}
			if name, ok := strings.CutPrefix(l, "# HELP "); ok {
				family, _, _ = strings.Cut(name, " ")
				require.False(t, seen[family], "%s comes twice", family)
				seen[family] = true
				continue
			}
			if strings.HasPrefix(l, "# TYPE "+family+" ") {
				continue
			}
			m := sample.FindStringSubmatch(l)
			require.NotNil(t, m, l)
			require.True(t, strings.HasPrefix(m[1], family), l)
			_, err := strconv.ParseFloat(m[2], 64)
			require.NoError(t, err, l)
		}
		require.Greater(t, len(seen), 40)
	}
	for accept, want := range map[string]bool{
		"application/openmetrics-text": true, "text/plain": false, "*/*": false,
		"application/openmetrics-text;version=2.0.0":           false,
		"application/openmetrics-text;q=0.1, text/plain;q=0.9": false, ";;,": false,
		"application/openmetrics-text;q=0": false,
	} {
		_, kind := metrics(t, h, accept)
		require.Equal(t, want, strings.HasPrefix(kind, "application/openmetrics-text"), accept)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "http://localhost/metrics", nil))
	require.Equal(t, 405, w.Code)
}

// TestMetrics_Buckets stops to give each bucket a label where there are many.
func TestMetrics_Buckets(t *testing.T) {
	db := open(t, nil)
	for i := range 101 {
		if text, _ := metrics(t, inspect.Metrics(db), ""); i > 0 && i <= 100 {
			require.Contains(t, text, `keepcache_bucket_entries{bucket="b0"}`)
		}
		require.NoError(t, db.Bucket(fmt.Sprint("b", i)).Set("k", 1, 0))
	}
	text, _ := metrics(t, inspect.Metrics(db), "")
	require.NotContains(t, text, "keepcache_bucket_entries")
}
