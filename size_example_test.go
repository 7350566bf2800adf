package keepcache_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/keepcache/keepcache"
)

// A bucket of at most two entries: the ones that were used least go when the cache commits.
func ExampleBucketOptions_maxEntries() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", &keepcache.Options{
		MaxBytes: 64 << 20,
		Buckets:  map[string]keepcache.BucketOptions{"thumbnails": {MaxEntries: 2}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	thumbnails := db.Bucket("thumbnails")
	for _, name := range []string{"a.png", "b.png", "c.png", "d.png"} {
		if err := thumbnails.SetBytes(name, []byte("pixels"), 0); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := db.Sweep(context.Background()); err != nil { // commits too
		log.Fatal(err)
	}
	n, err := thumbnails.Len()
	fmt.Println(n, err)
	found, err := thumbnails.Exists("d.png")
	fmt.Println(found, err)
	// Output:
	// 2 <nil>
	// true <nil>
}

func ExampleDB_Compact() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	for i := range 5000 {
		if err := db.Set(fmt.Sprint("key", i), "a value that is deleted again", 0); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := db.Bucket(keepcache.DefaultBucket).DeletePrefix(context.Background(), "key"); err != nil {
		log.Fatal(err)
	}
	if err := db.Compact(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(db.Stats().FileBytes < 100_000)
	// Output: true
}

func ExampleDB_Backup() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := db.Set("key", "value", 0); err != nil {
		log.Fatal(err)
	}

	out, err := os.Create("app.backup")
	if err != nil {
		log.Fatal(err)
	}
	if err := db.Backup(context.Background(), out); err != nil {
		log.Fatal(err)
	}
	if err := out.Close(); err != nil {
		log.Fatal(err)
	}

	restored, err := keepcache.Open("app.backup", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer restored.Close()
	var value string
	found, err := restored.Get("key", &value)
	fmt.Println(found, value, err)
	// Output: true value <nil>
}

// Repair saves what checksums prove out of a file that Open refuses or has put aside.
func ExampleRepair() {
	defer inTempDir()()

	db, err := keepcache.Open("damaged.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := db.Bucket("users").Set("1", "ada", 0); err != nil {
		log.Fatal(err)
	}
	if err := db.Close(); err != nil {
		log.Fatal(err)
	}

	report, err := keepcache.Repair(context.Background(), "damaged.cache", "saved.cache",
		&keepcache.RepairOptions{Buckets: []string{"users"}})
	fmt.Println(report.Entries, "entry saved,", report.Unproved, "not,", err)
	// Output: 1 entry saved, 0 not, <nil>
}
