package inspect_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/inspect"
)

// An Authorize or a Redact that panics or ends its goroutine costs its own request and nothing else: whatever number of
// them there has been, the next request is answered, and the cache can be closed.
func TestForeign(t *testing.T) {
	db := open(t, nil)
	require.NoError(t, db.Set("k", "value", 0))
	require.NoError(t, db.Bucket("default").SetBytes("large", make([]byte, 100<<10), 0))
	for name, end := range map[string]func(){"panic": func() { panic("not ours") }, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			var authorizing, redacting atomic.Bool
			srv := httptest.NewUnstartedServer(inspect.Handler(db, &inspect.Options{
				ShowValues: true, AllowWrites: true, Timeout: 5 * time.Second,
				Authorize: func(*http.Request) error {
					if authorizing.Load() {
						end()
					}
					return nil
				},
				Redact: func(_, _ string, value []byte) []byte {
					if redacting.Load() {
						end()
					}
					return value
				},
			}))
			srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of net/http, which recovers
			srv.Start()
			defer srv.Close()
			paths := []string{"/", "/keys?values=1", "/entry?key=k", "/entry?key=large", "/metrics", "/v1/stats",
				"/v1/keys?values=1", "/v1/get?key=k", "/v1/get?key=large"}
			ask := func(path string) (status int) {
				resp, err := srv.Client().Get(srv.URL + path)
				if err != nil {
					return 0
				}
				defer resp.Body.Close()
				_, _ = io.Copy(io.Discard, resp.Body)
				return resp.StatusCode
			}
			want := make(map[string]int)
			for _, path := range paths {
				want[path] = ask(path)
				require.NotZero(t, want[path], path)
			}
			for _, at := range []*atomic.Bool{&authorizing, &redacting} {
				at.Store(true)
				for range 20 { // more than there are places for looks
					for _, path := range paths {
						ask(path)
					}
				}
				at.Store(false)
				for _, path := range paths {
					require.Equal(t, want[path], ask(path), path)
				}
			}
		})
	}
}
