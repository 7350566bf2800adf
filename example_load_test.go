package keepcache_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/keepcache/keepcache"
)

// What is absent is loaded, once; what does not exist is remembered too.
func ExampleView_GetOrLoad() {
	db, close := exampleDB()
	defer close()

	type User struct{ Name string }
	users := keepcache.Of[User](db.Bucket("users"))
	load := func(ctx context.Context, l *keepcache.Load) (User, error) {
		fmt.Println("loading", l.Key)
		if l.Key == "456" {
			return User{}, fmt.Errorf("no row: %w", keepcache.ErrNotFound)
		}
		return User{"ada"}, nil
	}
	opts := &keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour, NegativeTTL: 10 * time.Second}
	for _, key := range []string{"123", "123", "456", "456"} {
		user, err := users.GetOrLoad(context.Background(), key, load, opts)
		fmt.Println(user.Name, errors.Is(err, keepcache.ErrNotFound))
	}
	// Output:
	// loading 123
	// ada false
	// ada false
	// loading 456
	//  true
	//  true
}

// A loader can say for how long a value is good, give it tags and an ETag, and learn what was there before.
func ExampleLoad() {
	db, close := exampleDB()
	defer close()

	pages := db.Bucket("pages")
	var page string
	_, err := pages.GetOrLoad(context.Background(), "home", &page,
		func(ctx context.Context, l *keepcache.Load) (any, error) {
			fmt.Printf("before: %t %q\n", l.Found, l.Old.ETag)
			l.TTL = time.Hour // what the source's Cache-Control says
			l.ETag = "v1"
			l.Tags = []string{"site:1"}
			return "welcome", nil
		}, nil)
	fmt.Println(page, err)

	entry, _, err := pages.Stat("home")
	fmt.Println(entry.ETag, entry.Tags, err)
	// Output:
	// before: false ""
	// welcome <nil>
	// v1 [site:1] <nil>
}

// Many keys are loaded in one call, as far as they are absent.
func ExampleView_GetOrLoadMany() {
	db, close := exampleDB()
	defer close()

	squares := keepcache.Of[int](db.Bucket("squares"))
	load := func(ctx context.Context, keys []string) (map[string]int, error) {
		slices.Sort(keys)
		fmt.Println("loading", keys)
		values := make(map[string]int)
		for _, key := range keys {
			values[key] = len(key) * len(key)
		}
		return values, nil
	}
	for _, keys := range [][]string{{"a", "bb"}, {"a", "bb", "ccc"}} {
		values, err := squares.GetOrLoadMany(context.Background(), keys, load, &keepcache.LoadOptions{TTL: time.Hour})
		fmt.Println(values, err)
	}
	// Output:
	// loading [a bb]
	// map[a:1 bb:4] <nil>
	// loading [ccc]
	// map[a:1 bb:4 ccc:9] <nil>
}

// One write makes all entries with a tag absent, however many there are.
func ExampleDB_InvalidateTags() {
	db, close := exampleDB()
	defer close()

	pages := db.Bucket("pages")
	for _, key := range []string{"cart", "profile"} {
		if err := pages.WithTags("user:1").Set(key, "of ada", 0); err != nil {
			log.Fatal(err)
		}
	}
	if err := pages.WithTags("user:2").Set("other", "of bob", 0); err != nil {
		log.Fatal(err)
	}
	if err := db.InvalidateTags("user:1"); err != nil {
		log.Fatal(err)
	}
	for entry, err := range pages.All() {
		fmt.Println(entry.Key, entry.Tags, err)
	}
	// Output: other [user:2] <nil>
}

// Entries with a tag are listed by a walk over their bucket.
func ExampleBucket_Tagged() {
	db, close := exampleDB()
	defer close()

	pages := db.Bucket("pages")
	if err := pages.WithTags("user:1", "shop").Set("cart", "tea", 0); err != nil {
		log.Fatal(err)
	}
	if err := pages.Set("home", "welcome", 0); err != nil {
		log.Fatal(err)
	}
	for entry, err := range pages.Tagged("shop") {
		fmt.Println(entry.Key, err)
	}
	// Output: cart <nil>
}

// In a sliding bucket each read begins the lifetime anew: a session ends half an hour after its last use.
func ExampleBucketOptions() {
	dir, err := os.MkdirTemp("", "keepcache")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := keepcache.Open(filepath.Join(dir, "app.cache"), &keepcache.Options{
		Buckets: map[string]keepcache.BucketOptions{"sessions": {DefaultTTL: 30 * time.Minute, Sliding: true}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	sessions := db.Bucket("sessions")
	if err := sessions.Set("s1", "ada", 0); err != nil {
		log.Fatal(err)
	}
	var user string
	found, err := sessions.Get("s1", &user) // half an hour from now on
	fmt.Println(found, user, err)
	// Output: true ada <nil>
}

// A value that is past its lifetime is served while its source is down, and the caller learns why.
func ExampleLoadResult() {
	db, close := exampleDB()
	defer close()

	rates := db.Bucket("rates")
	down := false
	load := func(context.Context, *keepcache.Load) (any, error) {
		if down {
			return nil, errors.New("the source is down")
		}
		return 1.17, nil
	}
	opts := &keepcache.LoadOptions{
		// waits for the source, and serves the old value if it fails
		TTL: time.Millisecond, StaleFor: time.Hour, SoftTimeout: time.Minute,
	}
	for range 2 {
		var rate float64
		result, err := rates.GetOrLoad(context.Background(), "EUR/USD", &rate, load, opts)
		fmt.Println(rate, result.Stale, result.Err, err)
		down = true
		time.Sleep(5 * time.Millisecond)
	}
	// Output:
	// 1.17 false <nil> <nil>
	// 1.17 true the source is down <nil>
}

// A slow source that fails now and then: nobody waits longer than a second, and the source is left in peace.
func ExampleLoadOptions() {
	db, close := exampleDB()
	defer close()

	opts := &keepcache.LoadOptions{
		TTL:          10 * time.Minute,
		Jitter:       0.1,                    // so that what was loaded together does not expire together
		RefreshAhead: 0.1,                    // a read in the last tenth of the lifetime loads anew in the background
		StaleFor:     time.Hour,              // an old value is better than none, for an hour
		SoftTimeout:  100 * time.Millisecond, // then the old value is served, if there is one
		HardTimeout:  time.Second,            // then the call fails, and the load goes on
		LoadTimeout:  30 * time.Second,       // then the load is given up
		RetryAfter:   5 * time.Second,        // after a failure
		NegativeTTL:  time.Minute,            // for what does not exist
	}
	rates := keepcache.Of[float64](db.Bucket("rates"))
	rate, result, err := rates.GetOrLoadResult(context.Background(), "EUR/USD",
		func(context.Context, *keepcache.Load) (float64, error) { return 1.17, nil }, opts)
	fmt.Println(rate, result.Stale, err)
	// Output: 1.17 false <nil>
}
