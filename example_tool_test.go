package keepcache_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/keepcache/keepcache"
)

// toolCache keeps answers for a command line tool of which several may run at once. It has the file open for as long as
// one call takes, and never while it waits for something else.
type toolCache struct{ path string }

// get reads what an earlier run has left. It takes no lock, so that any number of tools can look at the same time, also
// while another one writes.
func (c toolCache) get(key string, dst any) (found bool, err error) {
	db, err := keepcache.Open(c.path, &keepcache.Options{ReadOnly: true, NoLock: true})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // the first run
	}
	if err != nil {
		return false, err
	}
	defer db.Close()
	return db.Get(key, dst)
}

// set stores a value for later runs. It waits for other tools that write, a few milliseconds each.
func (c toolCache) set(key string, value any, ttl time.Duration) error {
	db, err := keepcache.Open(c.path, &keepcache.Options{LockTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	return errors.Join(db.Set(key, value, ttl), db.Close())
}

// A command line tool looks into the cache, closes it, fetches what is not there, and opens the cache again to store
// it. A cache that cannot be read or written costs time and is no reason to fail.
func Example_commandLineTool() {
	dir, err := os.MkdirTemp("", "keepcache")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	fetch := func(name string) (string, error) { // the slow source
		return "what " + name + " means", nil
	}

	cache := toolCache{filepath.Join(dir, "tool.cache")}
	lookUp := func(name string) (string, error) {
		var answer string
		found, err := cache.get(name, &answer)
		if err != nil {
			fmt.Fprintln(os.Stderr, "warning:", err)
		}
		if found {
			return answer, nil
		}
		if answer, err = fetch(name); err != nil {
			return "", err
		}
		if err := cache.set(name, answer, time.Hour); err != nil {
			fmt.Fprintln(os.Stderr, "warning:", err)
		}
		return answer, nil
	}

	for range 2 { // the second run finds it
		answer, err := lookUp("TTL")
		fmt.Println(answer, err)
	}
	// Output:
	// what TTL means <nil>
	// what TTL means <nil>
}
