package inspect_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
	"github.com/keepcache/keepcache/internal/wire"
)

// open opens a cache that is proved and closed when the test is over.
func open(t testing.TB, options *keepcache.Options) *keepcache.DB {
	t.Helper()
	db, err := keepcache.Open(filepath.Join(t.TempDir(), "app.cache"), options)
	require.NoError(t, err)
	t.Cleanup(func() {
		report, err := db.Verify(context.Background())
		if !errors.Is(err, keepcache.ErrClosed) {
			require.NoError(t, err)
			require.Empty(t, report.Problems)
		}
		require.NoError(t, db.Close())
	})
	return db
}

// serve mounts a handler under a prefix and returns a client of it, and its URL, which ends in a slash.
func serve(t testing.TB, db *keepcache.DB, o *inspect.Options) (*wire.Client, string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/debug/cache/", inspect.Handler(db, o))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	c, err := wire.New(srv.URL + "/debug/cache")
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c, srv.URL + "/debug/cache/"
}

var everything = &inspect.Options{ShowValues: true, AllowWrites: true}

// hostile are names that want to be something else.
var hostile = []string{
	"<script>alert(1)</script>", `"><img src=x onerror=alert(1)>`, "a\x00b", "\xff\xfe", "../../etc/passwd",
	"a b&c=d?e#f%41",
	"line\nfeed\r\n\r\nHTTP/1.1 200", "\u202eright to left", "{{.}}", "javascript:alert(1)", "'; --",
	strings.Repeat("k", 32_000),
	strings.Repeat("\xff", 32_000),
}

// TestReading answers as the library does.
func TestReading(t *testing.T) {
	db := open(t, nil)
	c, _ := serve(t, db, everything)
	ctx := t.Context()
	require.NoError(t, db.Set("user:1", map[string]any{"b": 1.0, "a": []any{int64(1), "x", nil}}, time.Hour))
	require.NoError(t, db.Set("literal", json.RawMessage(`[1.0,2,1.50]`), 0))
	require.NoError(t, db.Bucket("s").WithTags("t1", "\xff").Set("k", "v", 0))
	_, _ = db.Exists("user:1")

	h, err := c.Hello(ctx)
	require.NoError(t, err)
	require.Equal(t, db.Path(), string(h.Path))
	require.Equal(t, os.Getpid(), h.PID)
	require.True(t, h.Writes && h.Values)

	s, err := c.Stats(ctx)
	require.NoError(t, err)
	require.Equal(t, uint64(3), s.Sets)
	require.Equal(t, db.Stats().Buckets, s.Buckets)

	_, err = db.Sweep(ctx) // brings everything into the file, where buckets count it
	require.NoError(t, err)
	b, err := c.Buckets(ctx)
	require.NoError(t, err)
	require.Len(t, b, 2)
	require.Equal(t, int64(2), b[0].Entries)

	e, err := c.Entry(ctx, "", "user:1", true)
	require.NoError(t, err)
	require.JSONEq(t, `{"a":[1,"x",null],"b":1.0}`, string(e.Value))
	require.Contains(t, string(e.Value), "1.0")
	require.InDelta(t, time.Now().Add(time.Hour).UnixMilli(), e.ExpiresAt, 60_000)
	want, found, err := db.Bucket("default").Stat("user:1")
	require.NoError(t, err)
	require.True(t, found)
	got := e.Entry()
	require.Equal(t, []any{want.Key, want.Size, want.Revision, want.ExpiresAt.UnixMilli()},
		[]any{got.Key, got.Size, got.Revision, got.ExpiresAt.UnixMilli()})

	e, err = c.Entry(ctx, "", "literal", true)
	require.NoError(t, err)
	require.Equal(t, "[1.0,2,1.50]", string(e.Value))
	require.Equal(t, []int{0}, e.Literals)

	e, err = c.Entry(ctx, "s", "k", false)
	require.NoError(t, err)
	require.Nil(t, e.Value)
	require.Equal(t, []wire.Name{"t1", "\xff"}, e.Tags)

	_, err = c.Entry(ctx, "", "none", true)
	require.ErrorIs(t, err, keepcache.ErrNotFound)
	_, err = c.Entry(ctx, "", strings.Repeat("k", 40_000), true)
	require.ErrorIs(t, err, keepcache.ErrInvalidKey)
	for key, want := range map[string]bool{"user:1": true, "none": false} {
		found, err := c.Exists(ctx, "", key)
		require.NoError(t, err)
		require.Equal(t, want, found)
	}
	r, err := c.Verify(ctx)
	require.NoError(t, err)
	require.Equal(t, 3, r.Entries)
	require.Empty(t, r.Problems)
	s = db.Stats()
	require.Zero(t, s.Hits+s.Misses, "looking is no reading")
}

// TestHostileNames carries every name exactly, there and back.
func TestHostileNames(t *testing.T) {
	db := open(t, nil)
	c, _ := serve(t, db, everything)
	ctx := t.Context()
	for i, name := range hostile {
		bucket := name[:min(len(name), 255)]
		require.NoError(t, c.Set(ctx, wire.Write{Bucket: wire.Name(bucket), Key: wire.Name(name),
			Value: json.RawMessage(fmt.Sprint(i)), TTL: -1}))
		var v int
		found, err := db.Bucket(bucket).Get(name, &v)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, i, v)
		e, err := c.Entry(ctx, bucket, name, true)
		require.NoError(t, err)
		require.Equal(t, []string{bucket, name, fmt.Sprint(i)}, []string{string(e.Bucket), string(e.Key), string(e.Value)})
		page, err := c.Keys(ctx, wire.Query{Bucket: bucket, Prefix: name})
		require.NoError(t, err)
		require.Len(t, page.Entries, 1)
		require.Equal(t, name, string(page.Entries[0].Key))
	}
	list, err := c.Buckets(ctx)
	require.NoError(t, err)
	require.Len(t, list, len(hostile))
	for i, name := range hostile {
		found, err := c.Delete(ctx, name[:min(len(name), 255)], name)
		require.NoError(t, err)
		require.True(t, found, i)
	}
}

// TestKeys pages, by prefix, pattern and tag, and says where to go on.
func TestKeys(t *testing.T) {
	db := open(t, nil)
	c, _ := serve(t, db, &inspect.Options{PageEntries: 10})
	ctx := t.Context()
	b := db.Bucket("b")
	for i := range 95 {
		kind := b
		if i%10 == 0 {
			kind = b.WithTags("ten")
		}
		require.NoError(t, kind.Set(fmt.Sprintf("k%02d", i), strings.Repeat("v", i), time.Duration(200-i)*time.Minute))
	}
	list := func(q wire.Query) (keys []string) {
		q.Bucket = "b"
		for e, err := range c.All(ctx, q, nil) {
			require.NoError(t, err)
			require.Nil(t, e.Value)
			keys = append(keys, string(e.Key))
		}
		return keys
	}
	require.Len(t, list(wire.Query{}), 95)
	require.True(t, slices.IsSorted(list(wire.Query{Limit: 3})))
	require.Len(t, list(wire.Query{Limit: 3}), 95)
	require.Len(t, list(wire.Query{Prefix: "k1"}), 10)
	require.Equal(t, []string{"k07", "k17", "k27", "k37", "k47", "k57", "k67", "k77", "k87"},
		list(wire.Query{Glob: "k?7"}))
	require.Equal(t, []string{"k17"}, list(wire.Query{Glob: "k?7", Prefix: "k1"}))
	require.Empty(t, list(wire.Query{Glob: "x*", Prefix: "k1"}))
	require.Equal(t, []string{"k90"}, list(wire.Query{Tag: "ten", After: "k80"}))
	page, err := c.Keys(ctx, wire.Query{Bucket: "b", Limit: 1_000_000})
	require.NoError(t, err)
	require.Len(t, page.Entries, 10)
	require.Equal(t, "k09", string(*page.Next))
	page, err = c.Keys(ctx, wire.Query{Bucket: "b", After: "k84"})
	require.NoError(t, err)
	require.Len(t, page.Entries, 10)
	require.Nil(t, page.Next, "what fits exactly has no next page")

	page, err = c.Biggest(ctx, "", 3)
	require.NoError(t, err)
	require.Equal(t, []string{"k94", "k93", "k92"},
		[]string{string(page.Entries[0].Key), string(page.Entries[1].Key), string(page.Entries[2].Key)})
	require.Equal(t, int64(95), page.Looked)
	page, err = c.Expiring(ctx, "b", 2)
	require.NoError(t, err)
	require.Equal(t, []string{"k94", "k93"}, []string{string(page.Entries[0].Key), string(page.Entries[1].Key)})

	_, err = c.Keys(ctx, wire.Query{Bucket: "none"})
	require.ErrorIs(t, err, keepcache.ErrNotFound)
	for _, bad := range []wire.Query{{Glob: "["}, {Glob: strings.Repeat("*", 2000)}} {
		_, err = c.Keys(ctx, bad)
		require.ErrorIs(t, err, wire.ErrBadRequest)
	}
	page, err = c.Keys(ctx, wire.Query{Bucket: "b", Values: true, Limit: 1})
	require.NoError(t, err)
	require.True(t, page.Entries[0].Hidden)
	require.Nil(t, page.Entries[0].Value)
}

// TestWriting does what the library does, if it is allowed.
func TestWriting(t *testing.T) {
	db := open(t, nil)
	c, _ := serve(t, db, everything)
	ctx := t.Context()
	set := func(w wire.Write) error { return c.Set(ctx, w) }
	require.NoError(t, set(wire.Write{Key: "a", Value: json.RawMessage(`{"f":1.0,"i":1,"l":2.0}`), Literals: []int{2},
		TTL: 60_000}))
	e, err := c.Entry(ctx, "", "a", true)
	require.NoError(t, err)
	require.Equal(t, []int{2}, e.Literals)
	var v map[string]any
	_, err = db.Get("a", &v)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"f": 1.0, "i": int64(1), "l": 2.0}, v)
	require.NoError(t, set(wire.Write{Key: "bytes", Bytes: []byte("\x00\xff")}))
	raw, _, err := db.Bucket("default").GetBytes("bytes")
	require.NoError(t, err)
	require.Equal(t, "\x00\xff", string(raw))

	added, err := c.Add(ctx, wire.Write{Key: "a", Value: json.RawMessage(`1`)})
	require.NoError(t, err)
	require.False(t, added)
	deadline := time.Now().Add(time.Hour).UnixMilli()
	added, err = c.Add(ctx, wire.Write{Key: "new", Value: json.RawMessage(`1`), ExpiresAt: deadline})
	require.NoError(t, err)
	require.True(t, added)
	require.NoError(t, set(wire.Write{Key: "new", Value: json.RawMessage(`2`), ExpiresAt: deadline}))
	e, err = c.Entry(ctx, "", "new", true)
	require.NoError(t, err)
	require.Equal(t, deadline, e.ExpiresAt)

	found, err := c.Touch(ctx, "", "new", keepcache.NoExpiry)
	require.NoError(t, err)
	require.True(t, found)
	ttl, _, err := db.Bucket("default").TTL("new")
	require.NoError(t, err)
	require.Equal(t, keepcache.NoExpiry, ttl)
	found, err = c.Touch(ctx, "", "none", time.Second)
	require.NoError(t, err)
	require.False(t, found)

	require.NoError(t, db.Bucket("t").WithTags("tag").Set("x", 1, 0))
	require.NoError(t, c.InvalidateTags(ctx, []string{"tag", "other"}))
	found, err = c.Exists(ctx, "t", "x")
	require.NoError(t, err)
	require.False(t, found)
	_, err = c.Sweep(ctx)
	require.NoError(t, err)
	_, err = c.Compact(ctx)
	require.NoError(t, err)
	var copied bytes.Buffer
	require.NoError(t, c.Backup(ctx, &copied))
	path := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.WriteFile(path, copied.Bytes(), 0o600))
	second, err := keepcache.Open(path, nil)
	require.NoError(t, err)
	found, err = second.Exists("a")
	require.NoError(t, err)
	require.True(t, found)
	require.NoError(t, second.Close())

	n, err := c.Clear(ctx, "", "by", false)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	n, err = c.Clear(ctx, "", "", true)
	require.NoError(t, err)
	require.Equal(t, 2, n)

	for _, bad := range []struct {
		w    wire.Write
		want error
	}{
		{wire.Write{Key: "k"}, wire.ErrBadRequest},
		{wire.Write{Key: "k", Value: json.RawMessage(`1`), Bytes: []byte("x")}, wire.ErrBadRequest},
		{wire.Write{Key: "k", Value: json.RawMessage(`1`), TTL: -2}, keepcache.ErrInvalidTTL},
		{wire.Write{Key: "k", Value: json.RawMessage(`1`), ExpiresAt: 1}, keepcache.ErrInvalidTTL},
		{wire.Write{Key: "k", Value: json.RawMessage(`1`), ExpiresAt: deadline, TTL: 1}, wire.ErrBadRequest},
		{wire.Write{Key: "", Value: json.RawMessage(`1`)}, keepcache.ErrInvalidKey},
		{wire.Write{Key: "k", Value: json.RawMessage(strings.Repeat("[", 2000) + strings.Repeat("]", 2000))},
			keepcache.ErrUnsupportedValue},
	} {
		require.ErrorIs(t, set(bad.w), bad.want, "%+v", bad.w)
	}
}

// TestIncrement adds to an integer, whose lifetime stays, and to nothing else.
func TestIncrement(t *testing.T) {
	db := open(t, nil)
	c, url := serve(t, db, &inspect.Options{AllowWrites: true})
	ctx := t.Context()
	for i, by := range []int64{2, -5, 0} {
		sum, err := c.Increment(ctx, "b", "n", by, time.Hour)
		require.NoError(t, err)
		require.EqualValues(t, []int64{2, -3, -3}[i], sum)
	}
	_, err := c.Increment(ctx, "b", "n", 1, keepcache.NoExpiry)
	require.NoError(t, err)
	left, found, err := db.Bucket("b").TTL("n")
	require.NoError(t, err)
	require.True(t, found)
	require.LessOrEqual(t, left, time.Hour)
	require.NoError(t, db.Set("text", "2", 0))
	_, err = c.Increment(ctx, "", "text", 1, 0)
	require.ErrorContains(t, err, "not an integer")
	_, err = c.Increment(ctx, "", "", 1, 0)
	require.ErrorIs(t, err, keepcache.ErrInvalidKey)
	resp, err := http.Post(url+"v1/increment", "application/json", strings.NewReader(`{"key":"n","by":1.5}`))
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
}

// TestReadOnly refuses every write by default, hides every value, and offers no backup.
func TestReadOnly(t *testing.T) {
	db := open(t, nil)
	require.NoError(t, db.Set("a", "secret", 0))
	c, url := serve(t, db, nil)
	ctx := t.Context()
	for _, name := range []string{"set", "add", "delete", "touch", "increment", "invalidate", "clear", "sweep",
		"compact"} {
		resp, err := http.Post(url+"v1/"+name, "application/json", strings.NewReader(`{"key":"a","value":1}`))
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, http.StatusForbidden, resp.StatusCode, name)
		require.Contains(t, string(text), `"no_writes"`)
	}
	var v string
	_, err := db.Get("a", &v)
	require.NoError(t, err)
	require.Equal(t, "secret", v)
	e, err := c.Entry(ctx, "", "a", true)
	require.NoError(t, err)
	require.True(t, e.Hidden)
	require.Nil(t, e.Value)
	require.ErrorIs(t, c.Set(ctx, wire.Write{Key: "a", Value: json.RawMessage("1")}), wire.ErrNoWrites)

	require.ErrorIs(t, c.Backup(ctx, io.Discard), wire.ErrNoValues)
	writable, _ := serve(t, db, &inspect.Options{AllowWrites: true})
	require.ErrorIs(t, writable.Backup(ctx, io.Discard), wire.ErrNoValues)
	showing, _ := serve(t, db, &inspect.Options{ShowValues: true})
	require.NoError(t, showing.Backup(ctx, io.Discard), "a copy changes nothing")
}

// TestRefusals lets in nobody who comes from elsewhere, by any way that there is.
func TestRefusals(t *testing.T) {
	db := open(t, nil)
	_, url := serve(t, db, &inspect.Options{AllowWrites: true, Hosts: []string{"cache.example.org"}})
	do := func(method, path, host string, header map[string]string) (int, string) {
		req, err := http.NewRequest(method, url+path, strings.NewReader(`{"key":"a","value":1}`))
		require.NoError(t, err)
		if req.Header.Set("Content-Type", "application/json"); host != "" {
			req.Host = host
		}
		for k, v := range header {
			req.Header.Set(k, v)
		}
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(text)
	}
	for host, want := range map[string]int{
		"": 200, "localhost": 200, "LOCALHOST:1234": 200, "app.localhost:80": 200, "127.0.0.1": 200, "127.8.9.1:99": 200,
		"[::1]:80":   200,
		"localhost.": 200, "cache.example.org:8080": 200, "Cache.Example.Org": 200,
		"localhost:evil.com": 403, "[localhost]": 403, "[localhost]:80": 403, "[127.0.0.1]": 403, "localhost:": 403,
		"localhost:80:80":     403,
		"evil.com:.localhost": 403, "::1": 403, "[::1": 403, "localhost:99999": 403, "[cache.example.org]": 403,
		"evil.example.com": 403, "localhost.evil.com": 403, "127.0.0.1.evil.com": 403, "example.org": 403, "10.0.0.1": 403,
		"notlocalhost": 403,
	} {
		for _, path := range []string{"v1/stats", "metrics", "", "keys"} {
			status, text := do("GET", path, host, nil)
			require.Equal(t, want, status, "%q %q %s", host, path, text)
		}
	}
	for _, header := range []map[string]string{
		{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example.com"},
		{"Origin": "null"},
	} {
		status, text := do("POST", "v1/set", "", header)
		require.Equal(t, 403, status, "%v %s", header, text)
	}
	status, text := do("POST", "v1/set", "", map[string]string{"Content-Type": "text/plain"})
	require.Equal(t, 400, status, text)
	found, err := db.Exists("a")
	require.NoError(t, err)
	require.False(t, found)
	for _, header := range []map[string]string{nil, {"Sec-Fetch-Site": "same-origin"}} {
		status, text = do("POST", "v1/set", "", header)
		require.Equal(t, 200, status, text)
	}
	status, _ = do("GET", "v1/set", "", nil)
	require.Equal(t, 405, status)
	status, _ = do("GET", "v1/nothing", "", nil)
	require.Equal(t, 400, status)
	status, text = do("GET", "v2/stats", "", nil)
	require.Equal(t, 404, status)
	require.Contains(t, text, "this is version 1")
	for _, body := range []string{`{"key":"a","value":1} x`, `{"unknown":1}`, `[`} {
		resp, err := http.Post(url+"v1/set", "application/json", strings.NewReader(body))
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 400, resp.StatusCode, body)
	}
}

// TestAuthorize refuses with the program's own words, page and protocol alike.
func TestAuthorize(t *testing.T) {
	db := open(t, nil)
	c, url := serve(t, db, &inspect.Options{Authorize: func(r *http.Request) error {
		if r.Header.Get("Authorization") == "" {
			return errors.New("say the word")
		}
		return nil
	}})
	_, err := c.Hello(t.Context())
	require.ErrorIs(t, err, wire.ErrForbidden)
	require.ErrorContains(t, err, "say the word")
	for _, path := range []string{"", "metrics", "keys", "v1/stats"} {
		resp, err := http.Get(url + path)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 403, resp.StatusCode)
	}
}

// TestRedact shows what the program says, and nothing where that is nothing, no JSON or a panic.
func TestRedact(t *testing.T) {
	db := open(t, nil)
	c, _ := serve(t, db, &inspect.Options{ShowValues: true, Redact: func(_, key string, value []byte) []byte {
		switch key {
		case "panic":
			panic("no")
		case "none":
			return nil
		case "bad":
			return []byte("{")
		case "same":
			return value
		}
		return []byte(`"***"`)
	}})
	for _, key := range []string{"panic", "none", "bad", "same", "other"} {
		require.NoError(t, db.Set(key, "secret", 0))
		e, err := c.Entry(t.Context(), "", key, true)
		require.NoError(t, err)
		switch key {
		case "same":
			require.Equal(t, `"secret"`, string(e.Value))
			require.False(t, e.Redacted)
		case "other":
			require.Equal(t, `"***"`, string(e.Value))
			require.True(t, e.Redacted)
		default:
			require.Nil(t, e.Value, key)
			require.True(t, e.Hidden)
		}
	}
}

// TestClosed says so, as the library does.
func TestClosed(t *testing.T) {
	db := open(t, nil)
	c, _ := serve(t, db, nil)
	require.NoError(t, db.Close())
	_, err := c.Stats(t.Context())
	require.ErrorIs(t, err, keepcache.ErrClosed)
}

// TestVersion stops at a server of another version, and at what is no such server.
func TestVersion(t *testing.T) {
	for header, want := range map[string]error{"2": wire.ErrVersion, "": wire.ErrNoServer} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if header != "" {
				w.Header().Set(wire.VersionHeader, header)
			}
			fmt.Fprint(w, "{}")
		}))
		defer srv.Close()
		c, err := wire.New(srv.URL)
		require.NoError(t, err)
		_, err = c.Hello(t.Context())
		require.ErrorIs(t, err, want)
		c.Close()
	}
	for _, addr := range []string{"", "unix:", "localhost:80", "ftp://x", "http://", "http://x/?a=b"} {
		_, err := wire.New(addr)
		require.Error(t, err, addr)
	}
}
