package inspect_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
)

// TestBrowser drives the page in a real browser: chromium through playwright-core. KEEPCACHE_PLAYWRIGHT names the
// directory whose node_modules has the latter; KEEPCACHE_SCREENSHOTS one for pictures of what was seen.
func TestBrowser(t *testing.T) {
	cmd := browser(t, "testdata/browser.mjs")
	db := open(t, nil)
	populate(t, db)
	stop := make(chan struct{})
	defer close(stop)
	go busy(db, stop)

	mux := http.NewServeMux()
	mux.Handle("/deep/ly/mounted/", http.StripPrefix("/deep/ly/mounted", inspect.Handler(db, everything)))
	mux.Handle("/", inspect.Handler(db, nil))
	srv := httptest.NewServer(mux)
	defer srv.Close()

	cmd.Env = append(cmd.Env, "READ_ONLY="+srv.URL+"/", "MOUNTED="+srv.URL+"/deep/ly/mounted/")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, 9, strings.Count(string(out), "ok "), string(out))
	var v any
	found, err := db.Bucket("users").Get("user:0001", &v)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, map[string]any{"name": "changed", "big": json.Number("12345678901234567890123")}, v)
	found, err = db.Bucket("users").Exists("user:0002")
	require.NoError(t, err)
	require.False(t, found, "it was deleted in the browser")
}

// populate fills a cache with what a service has, and with what an enemy brings.
func populate(t *testing.T, db *keepcache.DB) {
	ttls := []time.Duration{45 * time.Second, 4 * time.Minute, 25 * time.Minute, 3 * time.Hour, 9 * time.Hour,
		2 * 24 * time.Hour, keepcache.NoExpiry}
	users, sessions, images := db.Bucket("users"), db.Bucket("sessions"), db.Bucket("thumbnails")
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 2400 { // twice a page for what the browser looks for, as some of it expires meanwhile
		ttl := ttls[r.IntN(len(ttls))]
		if i < 10 { // those that the browser looks at
			ttl = 26 * time.Hour
		}
		require.NoError(t, users.WithTags("team:"+[]string{"red", "blue", "green"}[i%3]).Set(fmt.Sprintf("user:%04d", i),
			map[string]any{
				"id": i, "name": fmt.Sprintf("User %d", i), "roles": []string{"reader", "editor"}[:1+i%2], "score": float64(i) / 4,
				"active":  i%7 != 0,
				"address": map[string]any{"street": "Lindenweg 7", "city": "Basel", "zip": "4051", "geo": []float64{47.55, 7.58}},
				"manager": nil,
			}, ttl))
		if i%2 == 0 {
			require.NoError(t, sessions.Set(fmt.Sprintf("session/%08x", r.Uint32()), map[string]any{"user": i},
				10*time.Minute+time.Duration(r.IntN(3600))*time.Second))
		}
		if i%12 == 0 {
			require.NoError(t, images.SetBytes(fmt.Sprintf("thumb/%04d.webp", i), make([]byte, 1500+r.IntN(30_000)),
				7*24*time.Hour))
		}
	}
	for _, name := range hostile[:12] {
		require.NoError(t, db.Bucket("odd names").Set(name, map[string]any{
			name: name, "html": `<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>`,
			"script": "</script><script>window.hacked=1</script>",
		}, time.Hour))
	}
	_, err := db.Sweep(t.Context())
	require.NoError(t, err)
}

// busy is a service at work.
func busy(db *keepcache.DB, stop <-chan struct{}) {
	users, v := db.Bucket("users"), any(nil)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		n := 10 + i/20%7
		for range n {
			_, _ = users.Get(fmt.Sprintf("user:%04d", 10+rand.IntN(2700)), &v)
		}
		_ = users.Set(fmt.Sprintf("user:%04d", 10+rand.IntN(2390)), map[string]any{"n": i}, time.Hour)
	}
}
