package inspect_test

import (
	"expvar"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"

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
		log.Print(err) // the daemon goes on without it
	}

	// For a browser, where the program's other pages are, for who knows the password. Without one there is no page.
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
