package keepcache_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepcache/keepcache"
)

// inTempDir goes to a directory of its own and returns the way back, so that an example can name its file
// as a program would.
func inTempDir() (leave func()) {
	back, err := os.Getwd()
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "keepcache-example-")
	if err != nil {
		log.Fatal(err)
	}
	if err := os.Chdir(dir); err != nil {
		log.Fatal(err)
	}
	return func() {
		os.Chdir(back)
		os.RemoveAll(dir)
	}
}

func Example() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	type User struct {
		Name  string   `json:"name"`
		Roles []string `json:"roles"`
	}
	err = db.Set("user:123", User{Name: "ada", Roles: []string{"admin", "dev"}}, 5*time.Minute)
	if err != nil {
		log.Fatal(err)
	}

	var user User
	found, err := db.Get("user:123", &user)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(found, user.Name, user.Roles)

	found, err = db.Get("user:456", &user) // a miss is no error
	fmt.Println(found, err)

	found, err = db.Delete("user:123")
	fmt.Println(found, err)

	// Output:
	// true ada [admin dev]
	// false <nil>
	// true <nil>
}

// What was set is there when the file is opened again, with the deadline that it had.
func ExampleOpen() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := db.Set("session-token", "xyz", time.Hour); err != nil {
		log.Fatal(err)
	}
	if err := db.Close(); err != nil {
		log.Fatal(err)
	}

	db, err = keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	var token string
	found, err := db.Get("session-token", &token)
	fmt.Println(found, token, err)
	ttl, _, err := db.Bucket(keepcache.DefaultBucket).TTL("session-token")
	fmt.Println(ttl.Round(time.Minute), err)

	// Output:
	// true xyz <nil>
	// 1h0m0s <nil>
}

// A bucket can have a default lifetime of its own, for entries that are set with a lifetime of 0.
func ExampleOptions() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", &keepcache.Options{
		DefaultTTL: 24 * time.Hour,
		Buckets: map[string]keepcache.BucketOptions{
			"sessions": {DefaultTTL: 30 * time.Minute},
			"settings": {DefaultTTL: keepcache.NoExpiry},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	for _, name := range []string{"pages", "sessions", "settings"} {
		b := db.Bucket(name)
		if err := b.Set("key", "value", 0); err != nil {
			log.Fatal(err)
		}
		ttl, _, err := b.TTL("key")
		if err != nil {
			log.Fatal(err)
		}
		if ttl == keepcache.NoExpiry {
			fmt.Println(name, "never expires")
		} else {
			fmt.Println(name, ttl.Round(time.Minute))
		}
	}

	// Output:
	// pages 24h0m0s
	// sessions 30m0s
	// settings never expires
}

// A service with writes that must survive a power cut, little memory, and a file that a person looks at when it is
// damaged.
func ExampleOptions_tuned() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", &keepcache.Options{
		Sync:           keepcache.SyncAlways, // a write returns when it is durable; by default one is within SyncInterval
		SyncInterval:   100 * time.Millisecond,
		MaxValueBytes:  1 << 20,
		MemoryBytes:    16 << 20,
		JournalBytes:   8 << 20,         // what a crash leaves for the next Open to replay
		CommitInterval: 5 * time.Second, // how long the file may lag behind the journal
		CommitBytes:    2 << 20,         // or by how many bytes
		CompactBytes:   64 << 20,        // of free pages that are given back to the disk
		OnCorruption:   keepcache.CorruptionFail,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	fmt.Println(db.Set("key", "value", 0))
	// Output: <nil>
}

func ExampleDB_Set() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	err = db.Set("session-token", "xyz", 20*time.Millisecond)
	fmt.Println(err)

	// A negative lifetime is refused, and the entry that is there stays as it is.
	err = db.Set("session-token", "abc", -time.Second)
	fmt.Println(errors.Is(err, keepcache.ErrInvalidTTL))

	time.Sleep(25 * time.Millisecond)
	found, err := db.Exists("session-token")
	fmt.Println(found, err)

	// Output:
	// <nil>
	// true
	// false <nil>
}

// Into an any, integers come back exact and floats stay floats, which JSON alone does not promise.
func ExampleDB_Get() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	for _, value := range []any{int64(9007199254740993), 1.0, "text", []string{"a", "b"}, map[string]int{"n": 1}, nil} {
		if err := db.Set("key", value, 0); err != nil {
			log.Fatal(err)
		}
		var got any
		found, err := db.Get("key", &got)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%t %T %v\n", found, got, got)
	}

	// Output:
	// true int64 9007199254740993
	// true float64 1
	// true string text
	// true []interface {} [a b]
	// true map[string]interface {} map[n:1]
	// true <nil> <nil>
}

// A stored null is there. Only what was never set, was deleted or has expired is not.
func ExampleDB_Exists() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	if err := db.Set("nickname", nil, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Println(db.Exists("nickname"))
	fmt.Println(db.Exists("birthday"))

	// Output:
	// true <nil>
	// false <nil>
}

func ExampleDB_Delete() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	if err := db.Set("temp-key", "value", 0); err != nil {
		log.Fatal(err)
	}
	fmt.Println(db.Delete("temp-key"))
	fmt.Println(db.Delete("temp-key"))

	// Output:
	// true <nil>
	// false <nil>
}

// Buckets keep their keys apart.
func ExampleDB_Buckets() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	for _, name := range []string{"users", "pages"} {
		if err := db.Bucket(name).Set("1", "one of "+name, 0); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(db.Buckets())

	found, err := db.DropBucket("pages")
	fmt.Println(found, err)
	fmt.Println(db.Buckets())

	var value string
	found, err = db.Bucket("users").Get("1", &value)
	fmt.Println(found, value, err)

	// Output:
	// [pages users] <nil>
	// true <nil>
	// [users] <nil>
	// true one of users <nil>
}

func ExampleDB_Stats() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	var value string
	if _, err := db.Get("key", &value); err != nil {
		log.Fatal(err)
	}
	if err := db.Set("key", "value", 0); err != nil {
		log.Fatal(err)
	}
	if _, err := db.Get("key", &value); err != nil {
		log.Fatal(err)
	}
	if _, err := db.Sweep(context.Background()); err != nil { // what was written goes into the file
		log.Fatal(err)
	}
	stats := db.Stats()
	fmt.Println("hits", stats.Hits, "misses", stats.Misses, "sets", stats.Sets)
	fmt.Println("entries", stats.Entries, "in bucket default", stats.Buckets[keepcache.DefaultBucket].Entries)

	// Output:
	// hits 1 misses 1 sets 1
	// entries 1 in bucket default 1
}

// How often reads find what they look for, and how long reads take.
func ExampleStats_HitRatio() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	if err := db.Set("key", "value", 0); err != nil {
		log.Fatal(err)
	}
	before := db.Stats()
	for _, key := range []string{"key", "key", "key", "none"} {
		var value string
		if _, err := db.Get(key, &value); err != nil {
			log.Fatal(err)
		}
	}
	stats := db.Stats()
	fmt.Println(stats.HitRatio())
	reads := stats.Reads.Sub(before.Reads) // a sample of them
	fmt.Println(reads.Count() <= 4, reads.Quantile(0.99) < time.Minute)
	fmt.Println(keepcache.LatencyBound(0), keepcache.LatencyBound(10))

	// Output:
	// 0.75
	// true true
	// 128ns 131.072µs
}

// The sweeper removes expired entries from the file by itself. Sweep has it done now.
func ExampleDB_Sweep() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", &keepcache.Options{SweepInterval: -1})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	for _, key := range []string{"a", "b", "c"} {
		if err := db.Set(key, "short-lived", time.Millisecond); err != nil {
			log.Fatal(err)
		}
	}
	time.Sleep(5 * time.Millisecond)
	removed, err := db.Sweep(context.Background())
	fmt.Println(removed, err)

	// Output:
	// 3 <nil>
}

func ExampleDB_Verify() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	if err := db.Set("a", 1, time.Hour); err != nil {
		log.Fatal(err)
	}
	if err := db.Set("b", 2, 0); err != nil {
		log.Fatal(err)
	}
	report, err := db.Verify(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.OK(), report.Entries, "entries", report.Rows, "row in the expiry index")
	for _, problem := range report.Problems {
		fmt.Println(problem)
	}

	// Output:
	// true 2 entries 1 row in the expiry index
}

// Of many callers that add one key exactly one succeeds.
func ExampleBucket_Add() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	locks := db.Bucket("locks")
	fmt.Println(locks.Add("report", "worker 1", time.Minute))
	fmt.Println(locks.Add("report", "worker 2", time.Minute))

	var holder string
	if _, err := locks.Get("report", &holder); err != nil {
		log.Fatal(err)
	}
	fmt.Println(holder)

	// Output:
	// true <nil>
	// false <nil>
	// worker 1
}

func ExampleBucket_Touch() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	sessions := db.Bucket("sessions")
	if err := sessions.Set("ada", "token", time.Minute); err != nil {
		log.Fatal(err)
	}
	fmt.Println(sessions.Touch("ada", time.Hour))
	fmt.Println(sessions.Touch("bob", time.Hour)) // creates nothing

	ttl, found, err := sessions.TTL("ada")
	fmt.Println(ttl.Round(time.Minute), found, err)

	// Output:
	// true <nil>
	// false <nil>
	// 1h0m0s true <nil>
}

func ExampleBucket_TTL() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	b := db.Bucket("pages")
	if err := b.Set("home", "<html>", 10*time.Minute); err != nil {
		log.Fatal(err)
	}
	if err := b.Set("about", "<html>", keepcache.NoExpiry); err != nil {
		log.Fatal(err)
	}
	for _, key := range []string{"home", "about", "absent"} {
		ttl, found, err := b.TTL(key)
		switch {
		case err != nil:
			log.Fatal(err)
		case !found:
			fmt.Println(key, "is not there")
		case ttl == keepcache.NoExpiry:
			fmt.Println(key, "never expires")
		default:
			fmt.Println(key, "expires in", ttl.Round(time.Minute))
		}
	}

	// Output:
	// home expires in 10m0s
	// about never expires
	// absent is not there
}

func ExampleBucket_SetBytes() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	images := db.Bucket("images")
	if err := images.SetBytes("pixel", []byte{0x89, 'P', 'N', 'G'}, 0); err != nil {
		log.Fatal(err)
	}
	value, found, err := images.GetBytes("pixel")
	fmt.Printf("%q %t %v\n", value, found, err)

	// Output:
	// "\x89PNG" true <nil>
}

func ExampleBucket_Stat() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	b := db.Bucket("pages")
	if err := b.Set("home", "<html>", time.Hour); err != nil {
		log.Fatal(err)
	}
	entry, found, err := b.Stat("home")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(found, entry.Key, entry.Size, "bytes")
	fmt.Println("lives for", entry.StaleUntil.Sub(entry.WrittenAt).Round(time.Minute))

	// Output:
	// true home 7 bytes
	// lives for 1h0m0s
}

// Entries come in the byte order of their keys, and the loop may write to the cache.
func ExampleBucket_All() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	stock := db.Bucket("stock")
	for key, n := range map[string]int{"pears": 0, "apples": 3, "plums": 12} {
		if err := stock.Set(key, n, 0); err != nil {
			log.Fatal(err)
		}
	}
	for entry, err := range stock.All() {
		if err != nil {
			log.Fatal(err)
		}
		var n int
		if err := entry.Decode(&n); err != nil {
			log.Fatal(err)
		}
		fmt.Println(entry.Key, n)
		if n == 0 {
			if _, err := stock.Delete(entry.Key); err != nil {
				log.Fatal(err)
			}
		}
	}
	fmt.Println(stock.Len())

	// Output:
	// apples 3
	// pears 0
	// plums 12
	// 2 <nil>
}

func ExampleBucket_Prefix() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	b := db.Bucket("users")
	for _, key := range []string{"user:2", "user:1", "group:1"} {
		if err := b.Set(key, "value of "+key, 0); err != nil {
			log.Fatal(err)
		}
	}
	for entry, err := range b.Prefix("user:") {
		if err != nil {
			log.Fatal(err)
		}
		var value string
		if err := entry.Decode(&value); err != nil {
			log.Fatal(err)
		}
		fmt.Println(entry.Key, "=", value)
	}

	// Output:
	// user:1 = value of user:1
	// user:2 = value of user:2
}

// A prefix is literal: the star is a star.
func ExampleBucket_DeletePrefix() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	b := db.Bucket("pages")
	for _, key := range []string{"a*1", "a*2", "ab"} {
		if err := b.Set(key, "value", 0); err != nil {
			log.Fatal(err)
		}
	}
	deleted, err := b.DeletePrefix(context.Background(), "a*")
	fmt.Println(deleted, err)
	fmt.Println(b.Exists("ab"))

	// Output:
	// 2 <nil>
	// true <nil>
}

// Clear returns at once, whatever the number of entries.
func ExampleBucket_Clear() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	b := db.Bucket("pages")
	for i := range 100 {
		if err := b.Set(fmt.Sprint("page:", i), i, 0); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(b.Clear(context.Background()))
	fmt.Println(b.Len())

	// Output:
	// <nil>
	// 0 <nil>
}

// Errors name what was done to what, and errors.Is finds the cause.
func ExampleError() {
	defer inTempDir()()

	db, err := keepcache.Open("app.cache", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	err = db.Set("answer", make(chan int), 0)
	fmt.Println(errors.Is(err, keepcache.ErrUnsupportedValue))
	var e *keepcache.Error
	if errors.As(err, &e) {
		fmt.Println(e.Op, e.Bucket, e.Key)
	}

	// An error names the operation, its object and the file.
	err = db.Set("", "value", 0)
	fmt.Println(strings.ReplaceAll(err.Error(), filepath.Dir(db.Path()), "..."))

	// A second Open of the same file, here or in another process, does not wait for ever.
	_, err = keepcache.Open("app.cache", &keepcache.Options{LockTimeout: 10 * time.Millisecond})
	fmt.Println(errors.Is(err, keepcache.ErrLocked))

	// Output:
	// true
	// set default answer
	// keepcache: set bucket "default" of ".../app.cache": invalid key
	// true
}
