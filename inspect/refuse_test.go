package inspect_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
	"github.com/keepcache/keepcache/internal/wire"
)

// ask sends a request with some headers, pairs of names and values, and returns what comes of it.
func ask(t *testing.T, h http.Handler, method, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader("{}"))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestBasicAuth asks for user and password, lets in who has both, and cannot be made without a password.
func TestBasicAuth(t *testing.T) {
	_, err := inspect.BasicAuth("admin", "")
	require.ErrorContains(t, err, "the password is empty")
	authorize, err := inspect.BasicAuth("admin", "open sesame")
	require.NoError(t, err)
	db := open(t, nil)
	h := inspect.Handler(db, &inspect.Options{Authorize: authorize})
	for _, c := range []struct {
		user, password string
		status         int
	}{
		{"admin", "open sesame", 200}, {"admin", "", 401}, {"", "open sesame", 401}, {"admin", "open sesame ", 401},
		{"Admin", "open sesame", 401},
		{"admin:open", "sesame", 401}, {"", "", 401},
	} {
		for _, path := range []string{"/", "/keys", "/v1/", "/metrics"} {
			r := httptest.NewRequest("GET", "http://localhost"+path, nil)
			if c.user+c.password != "" {
				r.SetBasicAuth(c.user, c.password)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, c.status, w.Code, "%+v %s", c, path)
			challenge := w.Header().Get("WWW-Authenticate")
			if c.status == 401 {
				words := "a user and a password are needed"
				if c.user+c.password != "" {
					words = "the user or the password is wrong"
				}
				require.Contains(t, w.Body.String(), words)
				require.Equal(t, `Basic realm="keepcache", charset="UTF-8"`, challenge)
			} else {
				require.Empty(t, challenge)
			}
		}
	}
}

// TestRefused shows nothing of the machine to who is refused, whatever the reason, and lets the program choose the
// answer.
func TestRefused(t *testing.T) {
	db := open(t, nil)
	refusing := func(err error) http.Handler {
		return inspect.Handler(db, &inspect.Options{ShowValues: true, AllowWrites: true, Title: "secret title",
			Authorize: func(*http.Request) error { return err }})
	}
	for _, c := range []struct {
		err    error
		status int
		header string
		words  string
	}{
		{errors.New("not for everybody"), 403, "", "not for everybody"},
		{&inspect.Refusal{}, 403, "", "refused"},
		{&inspect.Refusal{Status: 200, Message: "no"}, 403, "", "no"},
		{errors.Join(&inspect.Refusal{Status: 429, Header: http.Header{"Retry-After": {"7"}}, Message: "later"}), 429, "7",
			"later"},
		{&inspect.Refusal{Status: 302, Header: http.Header{"Retry-After": {"1"}}}, 403, "1", "refused"},
	} {
		for _, path := range []string{"/", "/keys", "/entry?key=k", "/metrics", "/nothing", "/v1/stats", "/v1/nothing",
			"/v2/", "/v1/set"} {
			w := ask(t, refusing(c.err), "GET", path)
			require.Equal(t, c.status, w.Code, path)
			require.Equal(t, c.header, w.Header().Get("Retry-After"))
			text := w.Body.String()
			require.Contains(t, text, c.words)
			for _, word := range []string{"app.cache", db.Path(), "secret title", "pid", strconv.Itoa(os.Getpid()), "read-only",
				"writes", "values"} {
				require.NotContains(t, text, word, path)
			}
		}
		for path, part := range map[string]string{"/style.css": "--accent", "/script.js": "use strict", "/icon.svg": "<svg"} {
			w := ask(t, refusing(c.err), "GET", path)
			require.Equal(t, 200, w.Code, path)
			require.Contains(t, w.Body.String(), part)
			require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
		}
	}
	foreign := httptest.NewRequest("GET", "http://evil.example.com/", nil)
	w := httptest.NewRecorder()
	refusing(nil).ServeHTTP(w, foreign)
	require.Equal(t, 403, w.Code)
	require.NotContains(t, w.Body.String(), "app.cache")
	foreign = httptest.NewRequest("GET", "http://evil.example.com/style.css", nil)
	w = httptest.NewRecorder()
	refusing(nil).ServeHTTP(w, foreign)
	require.Equal(t, 403, w.Code, "a foreign name gets nothing at all")
}

// TestCrossSite refuses what another site's page has a browser fetch, reads too, and takes somebody who follows a link.
func TestCrossSite(t *testing.T) {
	db := open(t, nil)
	h := inspect.Handler(db, everything)
	reads := []string{"/v1/", "/v1/stats", "/v1/keys", "/v1/entry?key=k", "/v1/events", "/v1/biggest", "/metrics", "/",
		"/keys", "/style.css", "/script.js"}
	for _, site := range []string{"cross-site", "same-site", "what"} {
		for _, path := range reads {
			for _, mode := range []string{"no-cors", "cors", "navigate", ""} {
				for _, dest := range []string{"image", "iframe", "empty", ""} {
					w := ask(t, h, "GET", path, "Sec-Fetch-Site", site, "Sec-Fetch-Mode", mode, "Sec-Fetch-Dest", dest)
					require.Equal(t, 403, w.Code, "%s %s %s %s", site, path, mode, dest)
				}
			}
			w := ask(t, h, "GET", path, "Sec-Fetch-Site", site, "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
			want := 403
			if path == "/" || path == "/keys" {
				want = 200
			}
			require.Equal(t, want, w.Code, "%s %s", site, path)
		}
		w := ask(t, h, "POST", "/keys", "Sec-Fetch-Site", site, "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
		require.Equal(t, 403, w.Code)
	}
	require.Equal(t, 403, ask(t, h, "GET", "/v1/stats", "Origin", "https://evil.example.com").Code)
	require.Equal(t, 403, ask(t, h, "GET", "/v1/stats", "Origin", "null").Code)
	for _, headers := range [][]string{{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"},
		{"Sec-Fetch-Site", "none"}, {"Origin", "http://localhost"}, nil} {
		require.Equal(t, 200, ask(t, h, "GET", "/v1/stats", headers...).Code, headers)
	}
}

// TestMethods says which method it is.
func TestMethods(t *testing.T) {
	db := open(t, nil)
	h := inspect.Handler(db, everything)
	for path, allow := range map[string]string{
		"/v1/": "GET, HEAD", "/v1/keys": "GET, HEAD", "/v1/set": "POST", "/v1/backup": "POST", "/v1/verify": "POST",
		"/": "GET, HEAD", "/keys": "GET, HEAD",
		"/metrics": "GET, HEAD", "/nothing": "GET, HEAD", "/style.css": "GET, HEAD",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"} {
			if strings.Contains(allow, method) {
				continue
			}
			w := ask(t, h, method, path)
			require.Equal(t, 405, w.Code, "%s %s", method, path)
			require.Equal(t, allow, w.Header().Get("Allow"))
		}
	}
	c, url := serve(t, db, nil)
	resp, err := http.Post(url+"v1/stats", wire.TypeJSON, nil)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 405, resp.StatusCode)
	_, err = c.Hello(t.Context())
	require.NoError(t, err)
	require.ErrorIs(t, wire.Failure{Code: "bad_method"}.Err(), wire.ErrBadRequest)
}

// TestContentType takes JSON and nothing else for every POST, those too that need nothing of their body: a form of
// another page can send other types without asking.
func TestContentType(t *testing.T) {
	db := open(t, nil)
	h := inspect.Handler(db, everything)
	for _, name := range []string{"sweep", "compact", "verify", "backup", "clear", "set"} {
		for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded",
			"multipart/form-data; boundary=x", "application/json-patch", ";"} {
			w := ask(t, h, "POST", "/v1/"+name, "Content-Type", kind)
			require.Equal(t, 400, w.Code, "%s %s", name, kind)
		}
	}
	for _, kind := range []string{"application/json", "application/json; charset=utf-8"} {
		require.Equal(t, 200, ask(t, h, "POST", "/v1/sweep", "Content-Type", kind).Code)
	}
}

// TestETag is hidden where values are, in every answer.
func TestETag(t *testing.T) {
	db := open(t, nil)
	var v string
	_, err := db.Bucket("b").GetOrLoad(t.Context(), "k", &v, func(_ context.Context, l *keepcache.Load) (any, error) {
		l.ETag = "secret-etag"
		return "value", nil
	}, nil)
	require.NoError(t, err)
	redact := func(_, _ string, value []byte) []byte { return value }
	for _, c := range []struct {
		o     *inspect.Options
		shown bool
	}{{nil, false}, {&inspect.Options{ShowValues: true}, true},
		{&inspect.Options{ShowValues: true, Redact: redact}, false}, {&inspect.Options{AllowWrites: true}, false}} {
		h := inspect.Handler(db, c.o)
		all := ""
		for _, path := range []string{"/v1/entry?bucket=b&key=k&values=1", "/v1/keys?bucket=b&values=1", "/v1/biggest",
			"/v1/expiring", "/entry?bucket=b&key=k", "/keys", "/"} {
			w := ask(t, h, "GET", path)
			require.Equal(t, 200, w.Code, path)
			all += w.Body.String()
		}
		require.Equal(t, c.shown, strings.Contains(all, "secret-etag"))
	}
}

// TestMetrics_Headers keeps metrics out of caches and has no browser guess what they are.
func TestMetrics_Headers(t *testing.T) {
	db := open(t, nil)
	for _, method := range []string{"GET", "POST"} {
		w := ask(t, inspect.Metrics(db), method, "/metrics")
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		_, err := io.ReadAll(w.Body)
		require.NoError(t, err)
	}
}

// TestRoute answers under one spelling of each path alone, wherever it is mounted.
func TestRoute(t *testing.T) {
	db := open(t, nil)
	h := inspect.Handler(db, everything)
	mux := http.NewServeMux()
	mux.Handle("/v1/", h)
	mux.Handle("/deep/v1/", http.StripPrefix("/deep/v1", h))
	mux.Handle("GET /plain/", h)
	mux.Handle("/t/{tenant}/cache/", h)
	mux.Handle("/rest/{rest...}", h)
	inner := http.NewServeMux()
	inner.Handle("/in/", h)
	mux.Handle("/out/", http.StripPrefix("/out", inner))
	mux.Handle("/strip/", http.StripPrefix("/strip/", h))
	for path, want := range map[string]string{
		"/v1/": "page", "/v1/keys": "page", "/v1/v1/": "api", "/v1/v1/stats": "api", "/v1/metrics": "metrics",
		"/deep/v1/": "page", "/deep/v1/keys": "page", "/deep/v1/v1/stats": "api",
		"/plain/": "page", "/plain/v1/stats": "api", "/plain/x/v1/stats": "none", "/plain/x/y/v1/keys": "none",
		"/plain/v1%2fstats": "none",
		"/plain/v1/x/stats": "bad", "/plain/%76%31/stats": "none", "/plain/v1/st%61ts": "bad", "/plain/x/metrics": "none",
		"/plain/x/":          "none",
		"/plain/x/style.css": "none", "/plain/v01/stats": "none", "/plain/v+1/stats": "none", "/plain/metrics": "metrics",
		"/plain/%6detrics": "none",
		"/t/a/cache/":      "page", "/t/a/cache/v1/stats": "api", "/t/v1/cache/v1/stats": "api",
		"/t/a/cache/x/v1/stats": "none",
		"/rest/":                "page", "/rest/v1/stats": "api", "/rest/v1/v1/stats": "bad",
		"/out/in/": "page", "/out/in/v1/stats": "api", "/out/in/x/v1/stats": "none", "/strip/": "page",
		"/strip/v1/stats": "api",
	} {
		w := ask(t, mux, "GET", path)
		kind := w.Header().Get("Content-Type")
		got := map[bool]string{true: "api", false: "page"}[kind == wire.TypeJSON]
		switch {
		case w.Code == 301:
			got = "redirect"
		case w.Code == 404:
			got = "none"
		case w.Code == 400:
			got = "bad"
		case strings.HasPrefix(kind, "text/plain"):
			got = "metrics"
		}
		if got == "none" && want == "bad" || got == "bad" && want == "none" {
			got = want // refused is refused
		}
		require.Equal(t, want, got, "%s: %d %s", path, w.Code, kind)
	}
	// Without a mux the path begins at the root.
	require.Equal(t, 200, ask(t, h, "GET", "/v1/stats").Code)
	require.Equal(t, 404, ask(t, h, "GET", "/debug/cache/v1/stats").Code)
}
