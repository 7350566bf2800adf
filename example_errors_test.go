package keepcache_test

import (
	"errors"
	"fmt"
	"log"

	"github.com/keepcache/keepcache"
)

// advice says what a program can do about an error of the cache.
func advice(err error) string {
	is := func(targets ...error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil:
		return "go on"
	case is(keepcache.ErrInvalidKey, keepcache.ErrInvalidName, keepcache.ErrInvalidTag, keepcache.ErrInvalidTTL,
		keepcache.ErrInvalidOption, keepcache.ErrUnsupportedValue, keepcache.ErrOtherDB):
		return "mend the call"
	case is(keepcache.ErrNoValue):
		return "read the entry with Stat: this one came without its value"
	case is(keepcache.ErrTooLarge):
		return "store less, or raise Options.MaxValueBytes"
	case is(keepcache.ErrMismatch, keepcache.ErrNotInteger, keepcache.ErrOverflow):
		return "the stored value is of another type: set it anew"
	case is(keepcache.ErrNotFound):
		return "there is no such thing"
	case is(keepcache.ErrLoadCycle):
		return "mend the loader: it waits for itself"
	case is(keepcache.ErrContended):
		return "try again: others write this key all the time"
	case is(keepcache.ErrNoRoom, keepcache.ErrUnavailable):
		return "try again later: the disk is full, slow or failing"
	case is(keepcache.ErrUnknownOutcome):
		return "the write is seen, and may be gone after a restart: set it anew"
	case is(keepcache.ErrLocked):
		return "end the other process, or wait longer with Options.LockTimeout"
	case is(keepcache.ErrFormat):
		return "choose another path, or update this program"
	case is(keepcache.ErrCorrupt):
		return "set or delete the entry; repair the file if there are many"
	case is(keepcache.ErrReadOnly, keepcache.ErrClosed):
		return "this handle takes no such call"
	}
	return "see the message"
}

// errors.Is finds the reason of a failure, and errors.As the operation, bucket and key.
func ExampleError_reasons() {
	db, close := exampleDB()
	defer close()

	err := db.Set("", "ada", 0)
	fmt.Println(advice(err))
	if err := db.Set("word", "ada", 0); err != nil {
		log.Fatal(err)
	}
	_, err = db.Bucket(keepcache.DefaultBucket).Increment("word", 1, 0)
	fmt.Println(advice(err))
	var e *keepcache.Error
	fmt.Println(errors.As(err, &e), e.Op, e.Bucket, e.Key)
	// Output:
	// mend the call
	// the stored value is of another type: set it anew
	// true increment default word
}
