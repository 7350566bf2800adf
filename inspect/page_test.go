package inspect_test

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/inspect"
)

// fetch returns a page.
func fetch(t testing.TB, url string) (status int, text string, header http.Header) {
	t.Helper()
	resp, err := http.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(raw), resp.Header
}

// TestPages are there, are strict about what may run in them, and escape everything that is hostile.
func TestPages(t *testing.T) {
	db := open(t, nil)
	_, base := serve(t, db, everything)
	for _, name := range hostile {
		b := db.Bucket(name[:min(len(name), 255)]).WithTags(name[:min(len(name), 200)])
		require.NoError(t, b.Set(name, map[string]any{"</script><script>alert(1)</script>": []string{"<img src=x onerror=alert(1)>", "\u2028"}}, time.Hour))
	}
	_, err := db.Sweep(t.Context())
	require.NoError(t, err)
	paths := []string{"", "keys", "events", "nothing", "entry?key=none"}
	for _, name := range hostile {
		bucket := url.QueryEscape(name[:min(len(name), 255)])
		paths = append(paths, "keys?bucket="+bucket, "keys?bucket="+bucket+"&prefix="+url.QueryEscape(name),
			"entry?bucket="+bucket+"&key="+url.QueryEscape(name))
	}
	inline := regexp.MustCompile(`(?i)<script(?: [^>]*)?>[^<]|\son[a-z]+\s*=\s*["']|style\s*=|<img|javascript:[^a]`)
	for _, path := range paths {
		status, text, header := fetch(t, base+path)
		if path == "nothing" || path == "entry?key=none" {
			require.Equal(t, 404, status)
		} else {
			require.Equal(t, 200, status, "%s %s", path, text)
		}
		require.Contains(t, header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'")
		require.NotContains(t, header.Get("Content-Security-Policy"), "unsafe")
		require.Equal(t, "nosniff", header.Get("X-Content-Type-Options"))
		require.Equal(t, "no-store", header.Get("Cache-Control"))
		// What is hostile is there as text: quoted in attributes, escaped elsewhere.
		require.Empty(t, inline.FindString(strings.ReplaceAll(text, "&", "")), path)
		require.NotContains(t, text, "<script>alert")
		require.NotContains(t, text, "ZgotmplZ")
		for _, ref := range regexp.MustCompile(`(?:href|src|action)="([^"]*)"`).FindAllStringSubmatch(text, -1) {
			require.Regexp(t, `^(\./|#main|(keys|entry|events|style\.css|script\.js|icon\.svg)(\?[A-Za-z0-9%&=;+._~-]*)?)$`,
				html.UnescapeString(ref[1]), path)
		}
	}
}

// TestPages_Links leads from a bucket to its entries and their values, whatever the bytes of the names.
func TestPages_Links(t *testing.T) {
	db := open(t, nil)
	_, base := serve(t, db, everything)
	for i, name := range hostile {
		require.NoError(t, db.Bucket(name[:min(len(name), 255)]).Set(name, fmt.Sprintf("value %d", i), 0))
	}
	link := regexp.MustCompile(`<td><a class="name" href="((?:keys|entry)\?[^"]*)"`)
	_, text, _ := fetch(t, base)
	found := link.FindAllStringSubmatch(text, -1)
	seen := make(map[string]bool)
	for _, m := range found {
		href := html.UnescapeString(m[1])
		if !strings.HasPrefix(href, "keys?") {
			continue
		}
		_, text, _ := fetch(t, base+href)
		keys := link.FindAllStringSubmatch(text, -1)
		require.Len(t, keys, 1, href)
		_, text, _ = fetch(t, base+html.UnescapeString(keys[0][1]))
		value := regexp.MustCompile(`value \d+`).FindString(text)
		require.NotEmpty(t, value, href)
		seen[value] = true
		form := regexp.MustCompile(`name="bucket64" value="([^"]*)"`).FindStringSubmatch(func() string {
			_, text,
				_ := fetch(t, base+href)
			return text
		}())
		status, text, _ := fetch(t, base+"keys?bucket64="+form[1])
		require.Equal(t, 200, status)
		require.Len(t, link.FindAllStringSubmatch(text, -1), 1)
	}
	require.Len(t, seen, len(hostile))
}

// TestPages_Keys pages, filters and says what it does not find.
func TestPages_Keys(t *testing.T) {
	db := open(t, nil)
	_, base := serve(t, db, nil)
	for i := range 250 {
		require.NoError(t, db.Bucket("b").WithTags(fmt.Sprintf("mod%d", i%5)).Set(fmt.Sprintf("k%03d", i), i, time.Hour))
	}
	keys := regexp.MustCompile(`>k\d{3}</a>`)
	next := regexp.MustCompile(`id="next" rel="next" href="([^"]*)"`)
	walk := func(path string) (n int) {
		for {
			status, text, _ := fetch(t, base+path)
			require.Equal(t, 200, status, text)
			n += len(keys.FindAllString(text, -1))
			m := next.FindStringSubmatch(text)
			if m == nil {
				return n
			}
			path = html.UnescapeString(m[1])
		}
	}
	require.Equal(t, 250, walk("keys?bucket=b"))
	require.Equal(t, 250, walk("keys"), "the first bucket that has something")
	require.Equal(t, 10, walk("keys?bucket=b&prefix=k24"))
	require.Equal(t, 25, walk("keys?bucket=b&glob=*7"))
	require.Equal(t, 50, walk("keys?bucket=b&tag=mod3"))
	require.Equal(t, 1, walk("keys?bucket=b&prefix="+url.QueryEscape(`"k\x3001"`)))
	_, text, _ := fetch(t, base+"keys?bucket=b&prefix=x")
	require.Contains(t, text, "No key matches.")
	for _, bad := range []string{"keys?bucket=none", "keys?bucket=b&glob=[", "keys?bucket64=*"} {
		status, text, _ := fetch(t, base+bad)
		require.GreaterOrEqual(t, status, 400, bad)
		require.Contains(t, text, "</html>")
	}
	_, text, _ = fetch(t, base+"entry?bucket=b&key=k001")
	require.Contains(t, text, "Values are hidden")
	require.NotContains(t, text, `id="change"`)
}

// TestPages_Long keeps the page of a huge value short, and says so.
func TestPages_Long(t *testing.T) {
	db := open(t, nil)
	_, base := serve(t, db, everything)
	deep := strings.Repeat(`{"a":[`, 400) + "1" + strings.Repeat("]}", 400)
	require.NoError(t, db.Set("deep", json.RawMessage(deep), 0))
	require.NoError(t, db.Set("wide", make([]int, 100_000), 0))
	require.NoError(t, db.Set("text", strings.Repeat("<", 1<<20), 0))
	require.NoError(t, db.Set("wide of deep",
		json.RawMessage("["+strings.Repeat(`[[1],`, 300)+"0"+strings.Repeat("]", 300)+"]"), 0))
	for _, key := range []string{"deep", "wide", "text", "wide of deep"} {
		status, text, _ := fetch(t, base+"entry?key="+url.QueryEscape(key))
		require.Equal(t, 200, status)
		require.Less(t, len(text), 1<<20, key)
		require.Contains(t, text, "This is a part of the value", key)
	}
}

// TestMount works under any prefix, stripped or not, and corrects an address without its last slash.
func TestMount(t *testing.T) {
	db := open(t, nil)
	h := inspect.Handler(db, nil)
	mux := http.NewServeMux()
	mux.Handle("/a/b/", http.StripPrefix("/a/b", h))
	mux.Handle("/c/", h)
	mux.Handle("/d/", http.StripPrefix("/d/", h))
	mux.Handle("/e", http.StripPrefix("/e", h))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	for _, prefix := range []string{"/a/b/", "/c/", "/a/b", "/c"} {
		status, text, _ := fetch(t, srv.URL+prefix)
		require.Equal(t, 200, status, prefix)
		require.Contains(t, text, "Hit ratio")
	}
	for _, path := range []string{"/a/b/v1/stats", "/c/v1/stats", "/c/metrics", "/c/style.css", "/a/b/script.js",
		"/a/b/icon.svg"} {
		status, _, header := fetch(t, srv.URL+path)
		require.Equal(t, 200, status, path)
		require.Equal(t, "nosniff", header.Get("X-Content-Type-Options"))
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(srv.URL + "/e")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, "e/", resp.Header.Get("Location"))
	resp, err = http.Post(srv.URL+"/c/keys", "text/plain", nil)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 405, resp.StatusCode)
	require.Equal(t, "GET, HEAD", resp.Header.Get("Allow"))
}

// TestPages_Errors ensures that a page about an error says a thing once: the status is its heading.
func TestPages_Errors(t *testing.T) {
	db := open(t, nil)
	_, base := serve(t, db, nil)
	_, refusing := serve(t, db, &inspect.Options{Authorize: func(*http.Request) error {
		return &inspect.Refusal{Status: 401, Message: "who are you?"}
	}})
	for path, want := range map[string]string{
		base + "keys?limit=x":    `<h1>Bad Request</h1><p>limit is "x"</p>`,
		base + "entry?key=none":  `<h1>Not Found</h1><p>no key none in bucket default</p>`,
		base + "keys?bucket=no":  `<h1>Not Found</h1><p>no bucket no</p>`,
		base + "nothing":         `<h1>Not Found</h1><p>there is no page nothing</p>`,
		refusing + "nothing":     `<h1>Unauthorized</h1><p>who are you?</p>`,
		base + "keys?glob=%5B":   `<h1>Bad Request</h1><p>the pattern: `,
		base + "keys?bucket64=*": `<h1>Bad Request</h1><p>bucket64: `,
	} {
		_, text, _ := fetch(t, path)
		require.Contains(t, html.UnescapeString(text), want, path)
	}
	resp, err := http.Post(base+"keys", "application/json", strings.NewReader("{}"))
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(text), `<h1>Method Not Allowed</h1><p>pages are for GET</p>`)
}
