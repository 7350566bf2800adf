package keepcache

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/keepcache/keepcache/internal/engine"
)

const (
	// suspectAfter is how often the function of an Update runs, each time because its key has changed meanwhile, before it is
	// suspected of having changed it itself. Where many change a key they take turns long before that.
	suspectAfter = 8

	// convictAfter is in how many runs from then on it has to be seen writing the key.
	convictAfter = 3
)

// errOwnWrites is ErrContended of an Update that contends with itself.
var errOwnWrites = fmt.Errorf("%w: the function that was given to the call writes the key itself, so that its result is always late", ErrContended)

// suspects are calls whose function may be what changes their key. Whether it is, is known for certain and not guessed from
// the number of changes, which says as much of other writers: a write of the key is the function's own if it comes from the goroutine in which
// that runs. The zero value is ready for use.
type suspects struct {
	n   atomic.Int32 // how many, so that writes look no further while there are none
	mu  sync.Mutex   // protects what follows
	all map[*suspect]struct{}
}

type suspect struct {
	spot
	goroutine uint64
	wrote     bool // since it was last asked
	runs      int  // in which it wrote
}

// add makes the caller's goroutine suspect of writing a key.
func (s *suspects) add(bucket, key string) *suspect {
	u := &suspect{spot: spot{bucket, key}, goroutine: goroutineID()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[*suspect]struct{})
	}
	s.all[u] = struct{}{}
	s.n.Add(1)
	return u
}

func (s *suspects) remove(u *suspect) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, u)
	s.n.Add(-1)
}

// convicts reports, after a run of the suspect's function, whether that has written the key in enough of its runs.
func (s *suspects) convicts(u *suspect) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.wrote {
		u.wrote = false
		u.runs++
	}
	return u.runs >= convictAfter
}

// saw notes that the caller's goroutine has written, or is about to write. It may hold locks of the memory.
func (s *suspects) saw(buckets []string, writes []engine.Written) {
	if s.n.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := uint64(0) // it costs microseconds to find out
	for u := range s.all {
		if !u.among(buckets, writes) {
			continue
		}
		if id == 0 {
			id = goroutineID()
		}
		u.wrote = u.wrote || u.goroutine == id
	}
}

// among reports whether a write changes the key: what is written does, and a new id for its bucket.
func (u *suspect) among(buckets []string, writes []engine.Written) bool {
	for i := range writes {
		if writes[i].Key == u.key && writes[i].Bucket == u.bucket {
			return true
		}
	}
	return slices.Contains(buckets, u.bucket)
}

// goroutineID returns the number by which traces name the caller's goroutine. It is slow: only for what has gone wrong already.
func goroutineID() uint64 {
	var buf [64]byte
	text := bytes.TrimPrefix(buf[:runtime.Stack(buf[:], false)], []byte("goroutine "))
	id, _ := strconv.ParseUint(string(text[:max(bytes.IndexByte(text, ' '), 0)]), 10, 64)
	return id
}
