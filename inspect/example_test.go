package inspect_test

import (
	"expvar"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := keepcache.Open(filepath.Join(dir, "app.cache"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	// For the keepcache command, beside the file:
	if _, err := inspect.Listen(db, nil); err != nil {
		log.Print(err) // the daemon continues without it
	}

	// For a browser, beside the program's other pages, with a password. Without a password there is no page.
	mux := http.NewServeMux()
	if authorize, err := inspect.BasicAuth("admin", os.Getenv("DEBUG_PASSWORD")); err != nil {
		log.Print(err)
	} else {
		mux.Handle("/debug/cache/", inspect.Handler(db, &inspect.Options{ShowValues: true, Authorize: authorize}))
	}

	// For Prometheus:
	mux.Handle("/metrics", inspect.Metrics(db))

	// For expvar:
	expvar.Publish("cache", expvar.Func(func() any { return db.Stats() }))

	fmt.Println(filepath.Base(db.Path()))
	// Output: app.cache
}

// A page for a team, for a cache whose values contain secrets.
func ExampleHandler() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := keepcache.Open(filepath.Join(dir, "app.cache"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	handler := inspect.Handler(db, &inspect.Options{
		Title:      "accounts",
		ShowValues: true,
		Redact: func(bucket, key string, value []byte) []byte {
			if bucket == "sessions" {
				return []byte(`"hidden"`)
			}
			return value
		},
		AllowWrites: true, // set, delete and clear, from the page and the command
		Authorize: func(r *http.Request) error {
			if r.Header.Get("X-User") == "" { // set by the proxy in front
				return &inspect.Refusal{Status: http.StatusForbidden, Message: "log in first"}
			}
			return nil
		},
		Hosts:       []string{"cache.example.com"}, // the names under which browsers reach it
		PageEntries: 50,
		Streams:     4,    // people who watch events at the same time
		StreamRate:  1000, // events a second, for each of them
		Timeout:     10 * time.Second,
	})
	r := httptest.NewRequest(http.MethodGet, "http://cache.example.com/v1/stats", nil)
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, r)
	fmt.Println(answer.Code)
	// Output: 403
}
