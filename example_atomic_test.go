package keepcache_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/keepcache/keepcache"
)

// exampleDB opens a cache in a new directory. close closes the cache and removes the directory.
func exampleDB() (db *keepcache.DB, close func()) {
	dir, err := os.MkdirTemp("", "keepcache")
	if err != nil {
		log.Fatal(err)
	}
	if db, err = keepcache.Open(filepath.Join(dir, "app.cache"), nil); err != nil {
		log.Fatal(err)
	}
	return db, func() {
		if err := db.Close(); err != nil {
			log.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			log.Fatal(err)
		}
	}
}

// A counter is exact, however many count, and goes on after a restart.
func ExampleBucket_Increment() {
	db, close := exampleDB()
	defer close()

	calls := db.Bucket("calls")
	for range 3 {
		n, err := calls.Increment("10.0.0.1", 1, time.Minute)
		fmt.Println(n, err)
	}
	// Output:
	// 1 <nil>
	// 2 <nil>
	// 3 <nil>
}

// Take reads and removes in one step: a token can be used once.
func ExampleBucket_Take() {
	db, close := exampleDB()
	defer close()

	tokens := db.Bucket("tokens")
	if err := tokens.Set("t1", "ada", time.Hour); err != nil {
		log.Fatal(err)
	}
	var user string
	for range 2 {
		found, err := tokens.Take("t1", &user)
		fmt.Println(found, user, err)
	}
	// Output:
	// true ada <nil>
	// false ada <nil>
}

// Swap stores a value and says what it replaced.
func ExampleBucket_Swap() {
	db, close := exampleDB()
	defer close()

	var before string
	for _, state := range []string{"starting", "running"} {
		found, err := db.Bucket("state").Swap("worker", state, 0, &before)
		fmt.Printf("%t %q %v\n", found, before, err)
	}
	// Output:
	// false "" <nil>
	// true "starting" <nil>
}

// CompareAndSwap writes only what nobody else has changed since it was looked at.
func ExampleBucket_CompareAndSwap() {
	db, close := exampleDB()
	defer close()

	pages := db.Bucket("pages")
	if err := pages.Set("home", "draft", 0); err != nil {
		log.Fatal(err)
	}
	entry, _, err := pages.Stat("home")
	if err != nil {
		log.Fatal(err)
	}
	for _, text := range []string{"mine", "too late"} {
		swapped, err := pages.CompareAndSwap("home", entry.Revision, text)
		fmt.Println(swapped, err)
	}
	// Output:
	// true <nil>
	// false <nil>
}

// Update computes a new value from the old one, and nothing gets in between.
func ExampleView_Update() {
	db, close := exampleDB()
	defer close()

	carts := keepcache.Of[[]string](db.Bucket("carts"))
	for _, item := range []string{"tea", "cups"} {
		err := carts.Update("ada", func(cart []string, found bool) ([]string, error) {
			return append(cart, item), nil
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(carts.Get("ada"))
	// Output: [tea cups] true <nil>
}

// A view reads and writes values of one type.
func ExampleOf() {
	db, close := exampleDB()
	defer close()

	type User struct{ Name string }
	users := keepcache.Of[User](db.Bucket("users"))
	if err := users.Set("123", User{"ada"}, 5*time.Minute); err != nil {
		log.Fatal(err)
	}
	fmt.Println(users.Get("123"))
	fmt.Println(users.Get("456"))
	// Output:
	// {ada} true <nil>
	// {} false <nil>
}

// A batch writes to several buckets, all or nothing.
func ExampleBatch() {
	db, close := exampleDB()
	defer close()

	users, names := db.Bucket("users"), db.Bucket("names")
	var batch keepcache.Batch
	batch.Set(users, "123", map[string]any{"name": "ada"}, 0)
	batch.Set(names, "ada", "123", 0)
	batch.Delete(names, "adah")
	fmt.Println(batch.Len(), db.Apply(&batch))

	var id string
	found, err := names.Get("ada", &id)
	fmt.Println(found, id, err)
	// Output:
	// 3 <nil>
	// true 123 <nil>
}
