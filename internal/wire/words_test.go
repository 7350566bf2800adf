package wire_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/wire"
)

// TestWords lets nothing of what a server says reach a terminal that would obey it, and no password reach an error.
func TestWords(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter)
	}{
		{"message", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", wire.TypeJSON)
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"error":{"code":"bad_request","message":%q}}`,
				"\\u001b[2J\\u202e\\r\\n"+strings.Repeat("x", 10_000))
		}},
		{"error of the library", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", wire.TypeJSON)
			w.WriteHeader(500)
			text := `"\u001b[2J\u202e\u009b\r\nforged"`
			fmt.Fprintf(w, `{"error":{"code":"corrupt","message":%[1]s,"op":%[1]s,"path":%[1]s,"bucket":%[1]s,"key":%[1]s,"hint":%[1]s}}`, text)
		}},
		{"status", func(w http.ResponseWriter) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				fmt.Fprintf(conn, "HTTP/1.1 500 a\x1b[2J\u202e\r\nKeepcache-Inspect: 1\r\nContent-Length: 0\r\n\r\n")
				conn.Close()
			}
		}},
		{"no such server", func(w http.ResponseWriter) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				fmt.Fprintf(conn, "HTTP/1.1 200 a\x1b[2J\u202e\r\nContent-Length: 0\r\n\r\n")
				conn.Close()
			}
		}},
		{"version", func(w http.ResponseWriter) { w.Header()[wire.VersionHeader] = []string{"2\u202e"} }},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(wire.VersionHeader, "1")
			if c.name == "version" {
				w.Header().Del(wire.VersionHeader)
			}
			c.answer(w)
		}))
		client, err := wire.New(strings.Replace(srv.URL, "http://", "http://me:open%20sesame@", 1) + "/")
		require.NoError(t, err)
		_, err = client.Hello(t.Context())
		require.Error(t, err, c.name)
		for _, r := range err.Error() {
			require.False(t, r < ' ' || r == '\u202e' || r >= 0x7f && r < 0xa0, "%s: %q", c.name, err.Error())
		}
		require.NotContains(t, err.Error(), "sesame", c.name)
		require.NotContains(t, client.Addr(), "sesame")
		require.Less(t, len(err.Error()), 6000)
		client.Close()
		srv.Close()
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(wire.VersionHeader, "1")
		w.Header().Set("Content-Type", wire.TypeLines)
		fmt.Fprintf(w, "{\"kind\":%q}\n", "set\\u001b[2J\\nforged")
		fmt.Fprint(w, `{"kind":"\u001b[2J\u009b\nforged"}`+"\n")
	}))
	defer srv.Close()
	client, err := wire.New(srv.URL)
	require.NoError(t, err)
	for e, err := range client.Events(t.Context(), wire.Watch{}) {
		if err == nil {
			require.NotContains(t, e.Kind, "\x1b")
			require.NotContains(t, e.Kind, "\n")
			require.NotContains(t, e.Kind, "\u009b")
		}
	}
	for _, addr := range []string{"http://me:se/sa@me@host:bad/", "ftp://me:sesame@host", "me:sesame@host",
		"http://me:sesame@host/?q"} {
		_, err := wire.New(addr)
		require.Error(t, err, addr)
		require.NotContains(t, err.Error(), "ses", addr)
		require.NotContains(t, err.Error(), "se/sa", addr)
	}
}
