package contend

import (
	"bytes"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/keepcache/keepcache/internal/engine"
)

// convictAfter is in how many of its runs a suspected function has to write the key before it is convicted.
const convictAfter = 3

// Suspects are calls whose function may be what changes their key. Whether it is, is known for certain and not guessed
// from the number of changes, which says as much of other writers: a write of the key is the function's own if it comes
// from the goroutine in which that runs. The zero value is ready for use. All methods may be called from any goroutine.
type Suspects struct {
	n   atomic.Int32 // how many, so that writes look no further while there are none
	mu  sync.Mutex   // protects what follows
	all map[*Suspect]struct{}
}

// Suspect is one such call.
type Suspect struct {
	entry
	goroutine uint64
	wrote     bool // since Convicts was last asked
	runs      int  // in which it wrote
}

// Any reports whether there are suspects, so that writes are worth a look.
func (s *Suspects) Any() bool { return s.n.Load() != 0 }

// Add makes the caller's goroutine suspect of writing a key.
func (s *Suspects) Add(bucket, key string) *Suspect {
	u := &Suspect{entry: entry{bucket, key}, goroutine: goroutineID()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[*Suspect]struct{})
	}
	s.all[u] = struct{}{}
	s.n.Add(1)
	return u
}

// Remove takes a suspect out, whose call is over.
func (s *Suspects) Remove(u *Suspect) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, u)
	s.n.Add(-1)
}

// Convicts reports, after a run of the suspect's function, whether that has written the key in enough of its runs.
func (s *Suspects) Convicts(u *Suspect) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.wrote {
		u.wrote = false
		u.runs++
	}
	return u.runs >= convictAfter
}

// Wrote notes that the caller's goroutine has written, or is about to write. It waits for nothing, so the caller may
// hold locks.
func (s *Suspects) Wrote(buckets []string, writes []engine.Written) {
	if !s.Any() {
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

// among reports whether a write changes the key: one of the key does, and so does a new id of its bucket.
func (u *Suspect) among(buckets []string, writes []engine.Written) bool {
	for i := range writes {
		if writes[i].Key == u.key && writes[i].Bucket == u.bucket {
			return true
		}
	}
	return slices.Contains(buckets, u.bucket)
}

// goroutineID returns the number by which stack traces name the caller's goroutine. It takes microseconds.
func goroutineID() uint64 {
	var buf [64]byte
	text := bytes.TrimPrefix(buf[:runtime.Stack(buf[:], false)], []byte("goroutine "))
	id, _ := strconv.ParseUint(string(text[:max(bytes.IndexByte(text, ' '), 0)]), 10, 64)
	return id
}
