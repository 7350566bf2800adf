package keepcache_test

import (
	"errors"
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

// CompareAndSwap writes only if nobody else has changed the entry. Each call returns what the next one needs.
func ExampleBucket_CompareAndSwap() {
	db, close := exampleDB()
	defer close()

	pages := db.Bucket("pages")
	draft, err := pages.SetEntry("home", "draft", time.Hour)
	if err != nil {
		log.Fatal(err)
	}
	second, swapped, err := pages.CompareAndSwap("home", draft.Revision, "second", keepcache.KeepTTL)
	fmt.Println(swapped, err)
	_, swapped, err = pages.CompareAndSwap("home", draft.Revision, "too late", keepcache.KeepTTL)
	fmt.Println(swapped, err)
	_, swapped, err = pages.CompareAndSwap("home", second.Revision, "third", 24*time.Hour)
	fmt.Println(swapped, err)
	_, swapped, err = pages.CompareAndSwap("about", 0, "new", 0) // 0: it must not be there
	fmt.Println(swapped, err)
	// Output:
	// true <nil>
	// false <nil>
	// true <nil>
	// true <nil>
}

// Update computes a new value from the old one, and nothing gets in between.
func ExampleView_Update() {
	db, close := exampleDB()
	defer close()

	carts := keepcache.Of[[]string](db.Bucket("carts"))
	for _, item := range []string{"tea", "cups"} {
		cart, err := carts.Update("ada", func(cart []string, found bool) ([]string, error) {
			return append(cart, item), nil
		}, time.Hour)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(cart.Value)
	}
	// Output:
	// [tea]
	// [tea cups]
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

// Increment counts in a view of integers.
func ExampleIncrement() {
	db, close := exampleDB()
	defer close()

	tries := keepcache.Of[uint8](db.Bucket("tries"))
	fmt.Println(keepcache.Increment(tries, "ada", 250, time.Minute))
	_, err := keepcache.Increment(tries, "ada", 10, time.Minute)
	fmt.Println(errors.Is(err, keepcache.ErrOverflow))
	// Output:
	// 250 <nil>
	// true
}

// GetEntry reads a value together with what is known of it.
func ExampleBucket_GetEntry() {
	db, close := exampleDB()
	defer close()

	pages := db.Bucket("pages")
	if err := pages.WithTags("public").Set("home", "hello", 0); err != nil {
		log.Fatal(err)
	}
	entry, found, err := pages.GetEntry("home")
	if err != nil {
		log.Fatal(err)
	}
	var text string
	if err := entry.Decode(&text); err != nil {
		log.Fatal(err)
	}
	fmt.Println(found, text, entry.Tags, entry.ExpiresAt.IsZero())
	// Output: true hello [public] true
}

// A view's GetEntry has the value in its type.
func ExampleView_GetEntry() {
	db, close := exampleDB()
	defer close()

	counts := keepcache.Of[int](db.Bucket("counts"))
	if err := counts.Set("visits", 7, 0); err != nil {
		log.Fatal(err)
	}
	item, found, err := counts.GetEntry("visits")
	fmt.Println(item.Key, item.Value, item.Size, "byte", found, err)
	// Output: visits 7 1 byte true <nil>
}
