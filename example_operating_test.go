package keepcache_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/keepcache/keepcache"
)

// openForService opens the cache of a service that is watched by people.
func openForService(path string) (*keepcache.DB, error) {
	return keepcache.Open(path, &keepcache.Options{
		MaxBytes:    512 << 20,        // of entries in the file
		MemoryBytes: 64 << 20,         // of entries in memory
		LockTimeout: 30 * time.Second, // the service before may still be ending
		Logger:      slog.Default(),
		Events: keepcache.Events{Handle: func(e keepcache.Event) {
			slog.Warn("cache", "event", e.Kind.String(), "detail", e.Detail, "err", e.Err)
		}},
	})
}

// backUp writes a copy of a cache that is in use to path, all of it or nothing.
func backUp(ctx context.Context, db *keepcache.DB, path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".backup-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = db.Backup(ctx, f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Example_service is the code of docs/operating.md.
func Example_service() {
	dir, err := os.MkdirTemp("", "keepcache")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := openForService(filepath.Join(dir, "app.cache"))
	if err != nil {
		log.Fatal(err)
	}
	if err := db.Set("user:1", "ada", time.Hour); err != nil {
		log.Fatal(err)
	}
	backup := filepath.Join(dir, "app.backup")
	if err := backUp(context.Background(), db, backup); err != nil {
		log.Fatal(err)
	}
	if err := db.Close(); err != nil {
		log.Fatal(err)
	}
	copied, err := keepcache.Open(backup, &keepcache.Options{ReadOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	defer copied.Close()
	var name string
	found, err := copied.Get("user:1", &name)
	fmt.Println(found, name, err)
	// Output: true ada <nil>
}

// Watch what happens in one bucket. The loop ends with the cache.
func ExampleDB_Watch() {
	db, close := exampleDB()

	watch := db.Watch(&keepcache.WatchOptions{
		Kinds:  keepcache.EventSet | keepcache.EventDelete,
		Bucket: "users",
		Prefix: "a",
		Buffer: 100,
	})
	users := db.Bucket("users")
	for _, key := range []string{"ada", "grace"} {
		if err := users.Set(key, true, time.Hour); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := users.Delete("ada"); err != nil {
		log.Fatal(err)
	}
	close()
	for e := range watch.Events() {
		fmt.Println(e.Kind, e.Bucket, e.Key)
	}
	fmt.Println(watch.Dropped(), "dropped")
	// Output:
	// set users ada
	// delete users ada
	// 0 dropped
}

// A server that shows the cache ends before the cache does, whoever closes it.
func ExampleDB_OnClose() {
	db, close := exampleDB()

	forget := db.OnClose(func() { fmt.Println("server stopped") })
	close()
	fmt.Println(forget())
	// Output:
	// server stopped
	// false
}
