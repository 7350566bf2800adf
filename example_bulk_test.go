package keepcache_test

import (
	"fmt"
	"log"
	"time"

	"github.com/keepcache/keepcache"
)

// Calls for many keys cost less than a call for each.
func ExampleView_SetMany() {
	db, close := exampleDB()
	defer close()

	users := keepcache.Of[string](db.Bucket("users"))
	if err := users.SetMany(map[string]string{"1": "ada", "2": "grace", "3": "edsger"}, time.Hour); err != nil {
		log.Fatal(err)
	}
	deleted, err := users.DeleteMany([]string{"3", "4"})
	fmt.Println(deleted, err)
	found, err := users.GetMany([]string{"1", "2", "3"})
	fmt.Println(found, err)
	// Output:
	// 1 <nil>
	// map[1:ada 2:grace] <nil>
}

// A deadline that comes from elsewhere, such as that of a token, is a point in time.
func ExampleBucket_SetUntil() {
	db, close := exampleDB()
	defer close()

	tokens := db.Bucket("tokens")
	expires := time.Now().Add(time.Hour)
	if err := tokens.SetUntil("t1", "ada", expires); err != nil {
		log.Fatal(err)
	}
	added, err := tokens.AddUntil("t1", "grace", expires)
	fmt.Println(added, err)
	found, err := tokens.TouchUntil("t1", expires.Add(time.Hour))
	fmt.Println(found, err)
	entry, _, err := tokens.Stat("t1")
	fmt.Println(entry.ExpiresAt.Sub(expires).Round(time.Minute), err)
	// Output:
	// false <nil>
	// true <nil>
	// 1h0m0s <nil>
}

// What expires next.
func ExampleDB_Expiring() {
	db, close := exampleDB()
	defer close()

	sessions := db.Bucket("sessions")
	for i, user := range []string{"ada", "grace", "edsger"} {
		if err := sessions.Set(user, i, time.Duration(i+1)*time.Hour); err != nil {
			log.Fatal(err)
		}
	}
	next, err := db.Expiring(2, "sessions")
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range next {
		fmt.Println(e.Bucket, e.Key, time.Until(e.ExpiresAt).Round(time.Minute))
	}
	// Output:
	// sessions ada 1h0m0s
	// sessions grace 2h0m0s
}

// A value as JSON text, without a Go type for it.
func ExampleEntry_AppendJSON() {
	db, close := exampleDB()
	defer close()

	users := db.Bucket("users")
	if err := users.Set("1", map[string]any{"name": "ada", "score": 1.0}, 0); err != nil {
		log.Fatal(err)
	}
	entry, _, err := users.Stat("1")
	if err != nil {
		log.Fatal(err)
	}
	text, err := entry.AppendJSON(nil)
	fmt.Println(string(text), err)
	// Output: {"name":"ada","score":1.0} <nil>
}

// Restore copies entries with all that is known of them: tags, deadlines, when they were written.
func ExampleBucket_Restore() {
	db, close := exampleDB()
	defer close()

	old, renamed := db.Bucket("old"), db.Bucket("new")
	if err := old.WithTags("team:a").Set("1", "ada", time.Hour); err != nil {
		log.Fatal(err)
	}
	for e, err := range old.Scan(&keepcache.ScanOptions{Stale: true}) {
		if err != nil {
			log.Fatal(err)
		}
		var value any
		if err := e.Decode(&value); err != nil {
			log.Fatal(err)
		}
		if err := renamed.Restore(e, value); err != nil {
			log.Fatal(err)
		}
	}
	entry, found, err := renamed.Stat("1")
	fmt.Println(entry.Tags, found, err)
	// Output: [team:a] true <nil>
}

// Keys that sort by time give the latest entries first, a page at a time.
func ExampleBucket_Scan() {
	db, close := exampleDB()
	defer close()

	visits := db.Bucket("visits")
	for _, day := range []string{"2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02"} {
		if err := visits.WithTags("site:a").Set(day, "visitors of "+day, 0); err != nil {
			log.Fatal(err)
		}
	}
	last := ""
	for page := 1; page <= 2; page++ {
		n := 0
		for e, err := range visits.Scan(&keepcache.ScanOptions{
			Prefix: "2026-", Reverse: true, After: last, Tag: "site:a", KeysOnly: true,
		}) {
			if err != nil {
				log.Fatal(err)
			}
			if n++; n > 2 {
				break
			}
			fmt.Println(page, e.Key, e.Size)
			last = e.Key
		}
	}
	// Output:
	// 1 2026-02-02 23
	// 1 2026-02-01 23
	// 2 2026-01-31 23
	// 2 2026-01-30 23
}

// A range has its first key and not its end.
func ExampleView_Range() {
	db, close := exampleDB()
	defer close()

	visits := keepcache.Of[int](db.Bucket("visits"))
	err := visits.SetMany(map[string]int{"2026-01-31": 7, "2026-02-01": 3, "2026-02-02": 5, "2026-03-01": 2}, 0)
	if err != nil {
		log.Fatal(err)
	}
	for e, err := range visits.Range("2026-02", "2026-03") {
		fmt.Println(e.Key, e.Value, err)
	}
	for e, err := range visits.Scan(&keepcache.ScanOptions{From: "2026-02", To: "2026-03", Reverse: true}) {
		fmt.Println(e.Key, e.Value, err)
	}
	// Output:
	// 2026-02-01 3 <nil>
	// 2026-02-02 5 <nil>
	// 2026-02-02 5 <nil>
	// 2026-02-01 3 <nil>
}

// The keys of a bucket, without their values.
func ExampleBucket_Keys() {
	db, close := exampleDB()
	defer close()

	users := db.Bucket("users")
	if err := users.SetMany(map[string]any{"ada": 1, "grace": 2}, 0); err != nil {
		log.Fatal(err)
	}
	for key, err := range users.Keys() {
		fmt.Println(key, err)
	}
	// Output:
	// ada <nil>
	// grace <nil>
}
