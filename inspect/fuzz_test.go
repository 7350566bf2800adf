package inspect_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
	"github.com/keepcache/keepcache/internal/jsontext"
	"github.com/keepcache/keepcache/internal/wire"
)

// fuzzed returns a handler that shows and allows everything, of a cache that all runs of a process share.
var fuzzed = func() func(testing.TB) http.Handler {
	var once sync.Once
	var h http.Handler
	return func(t testing.TB) http.Handler {
		once.Do(func() {
			db, err := keepcache.Open(filepath.Join(t.TempDir(), "app.cache"),
				&keepcache.Options{MaxBytes: 16 << 20, MemoryBytes: 4 << 20})
			require.NoError(t, err)
			for i, name := range hostile {
				require.NoError(t, db.Bucket(name[:min(len(name), 255)]).WithTags("t").Set(name,
					map[string]any{name[:min(len(name), 50)]: []any{i, 1.0, "\x1b<b>"}}, time.Hour))
			}
			require.NoError(t, db.Set("long", make([]int, 100_000), 0))
			h = inspect.Handler(db, &inspect.Options{ShowValues: true, AllowWrites: true, Timeout: 2 * time.Second})
		})
		return h
	}
}()

// FuzzServe sends requests of any kind, writes and patterns included. Every answer is bounded, is what its type says,
// and brings nothing that a terminal or a browser would obey.
func FuzzServe(f *testing.F) {
	for _, seed := range [][3]string{
		{"GET", "", ""}, {"GET", "v1/", ""}, {"GET", "v1/stats", ""}, {"GET", "v1/buckets", ""},
		{"GET", "v1/keys?glob=*[a-z]?\\*&values=1&limit=3", ""},
		{"GET", "v1/keys?bucket=default&prefix=l&values=1&after=a&tag=t", ""}, {"GET", "v1/entry?key=long&values=1", ""},
		{"GET", "entry?key=long", ""},
		{"GET", "keys?bucket64=YQ&prefix=%22a%22", ""}, {"GET", "v1/exists?key=%FF", ""}, {"GET", "v1/biggest?limit=2", ""},
		{"GET", "v1/expiring", ""},
		{"POST", "v1/set", `{"key":"a","value":{"b":[1.0,"x",null,1e2]},"literals":[0],"ttl_ms":1000}`},
		{"POST", "v1/set", `{"key":"b","bytes":"AP8="}`},
		{"POST", "v1/add", `{"key":{"base64":"/w=="},"value":"\u001b[2J"}`}, {"POST", "v1/delete", `{"key":"a"}`},
		{"POST", "v1/touch", `{"key":"a","ttl_ms":-1}`},
		{"POST", "v1/clear", `{"bucket":"b","prefix":"x"}`}, {"POST", "v1/invalidate", `{"tags":["t","u"]}`},
		{"POST", "v1/sweep", `{}`}, {"GET", "metrics", ""},
		{"POST", "v1/restore", `{"key":"r","value":1,"expires_at_ms":1,"stale_until_ms":-1,"etag":"e","tags":["t"],"sliding_ms":5,"negative":true}`},
		{"GET", "v1/keys?stale=1&reverse=1", ""}, {"PUT", "v1/keys", ""}, {"GET", "v2/stats", ""}, {"GET", "events", ""},
		{"GET", "x/v1/keys", ""}, {"GET", "v1%2fkeys", ""},
	} {
		f.Add(seed[0], seed[1], []byte(seed[2]))
	}
	f.Fuzz(func(t *testing.T, method, path string, body []byte) {
		u, err := url.ParseRequestURI("http://localhost/" + path)
		if err != nil || strings.Contains(u.Path, "v1/events") || u.Host != "localhost" || method == "" {
			return // a stream ends with its client, who is none here
		}
		r, err := http.NewRequest(method, u.String(), bytes.NewReader(body))
		if err != nil {
			return
		}
		r.RequestURI = u.RequestURI()
		h := fuzzed(t)
		r.Header.Set("Content-Type", wire.TypeJSON)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		text := w.Body.Bytes()
		require.Less(t, len(text), 8<<20)
		require.Contains(t, []int{200, 301, 400, 403, 404, 405, 413, 429, 500, 503}, w.Code)
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
		kind := w.Header().Get("Content-Type")
		if kind == "application/octet-stream" || w.Code == 301 {
			return
		}
		require.True(t, utf8.Valid(text))
		for _, c := range string(text) {
			require.False(t, c < ' ' && c != '\n' && c != '\t', "%q", text)
		}
		switch {
		case kind == wire.TypeJSON:
			require.True(t, json.Valid(text), "%q", text)
			require.Equal(t, "1", w.Header().Get(wire.VersionHeader))
		case strings.HasPrefix(kind, "text/html"):
			require.Contains(t, string(text), "</html>")
			for _, c := range string(text) {
				require.False(t, jsontext.Obeyed(c) && c != '\n' && c != '\t', "%q in a page", c)
			}
			require.NotContains(t, string(text), "<script>")
			require.NotContains(t, string(text), "<b>")
		}
	})
}
