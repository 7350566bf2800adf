package keepcache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/ground"
)

const (
	// conflictTries bounds how often an operation starts over because others changed its key between its look
	// and its write. Each conflict means that another writer got through.
	conflictTries = 10_000

	// queueAfter is the number of conflicts after which callers queue for a key, so that of n callers one runs
	// and not n-1 in vain. Up to there a queue would cost more than it saves.
	queueAfter = 3

	// queueMost is how long a caller waits in the queue before it goes on without its turn. The queue is a
	// courtesy: correctness does not rest on it, and an Update within an Update of the same key must not wait
	// for itself.
	queueMost = 100 * time.Millisecond

	// backoffAfter is the number of conflicts after which there is a pause before the next look, of a random time up to
	// backoffMost. Where memory is so small that it has one shard, a writer of other keys that takes its lock again and again can
	// come between each look and each write: the two keep step, and only chance ends that.
	backoffAfter = 64
	backoffMost  = 200 * time.Microsecond
)

// modify looks at a key, lets decide draft a write on what it found, and writes that if the key is still as it was;
// otherwise it starts over, unless it is decide itself that changes the key each time. A nil write is the decision to
// write nothing, which is as durable when modify returns as a write. decide runs anew only if what it decided on has
// changed, and outside of all locks and transactions.
func (b *Bucket) modify(key string, decide func(engine.Reading) (*engine.Write, error)) error {
	var before engine.Reading
	var d *engine.Write
	var leave func()
	var self *suspect
	runs := 0 // of decide
	for try := range conflictTries {
		if try >= queueAfter && leave == nil {
			if leave = b.db.queues.enter(b.at.Name, key); leave != nil {
				defer leave()
			}
		}
		if try >= backoffAfter {
			time.Sleep(rand.N(backoffMost))
		}
		r, err := b.read(key)
		if err != nil {
			return err
		}
		if d == nil || !r.Same(&before) {
			if runs++; runs > suspectAfter && self == nil {
				self = b.db.suspects.add(b.at.Name, key)
				defer b.db.suspects.remove(self)
			}
			if d, err = decide(r); err != nil {
				return err
			}
			if d == nil {
				return b.db.engine.Observed()
			}
			if self != nil && b.db.suspects.convicts(self) {
				return errOwnWrites
			}
		}
		before = r
		d.Expect(&r)
		if err = b.write(d); err != engine.ErrMissed {
			return err
		}
	}
	return ErrContended
}

// queues are the callers that wait for their turn at a key, each in the queue of its key. The zero value is
// ready for use.
type queues struct {
	ground *ground.Ground // of callers that may be in different bubbles

	mu    sync.Mutex // protects what follows
	lines map[entryID]*line
}

// entryID names an entry.
type entryID struct{ bucket, key string }

// line is the queue of one key.
type line struct {
	turn  chan struct{} // holds a token while it is somebody's turn
	made  time.Time     // when turn was, by the clock of the ground
	users int
}

// enter waits for the caller's turn and returns what ends it, or nil if the turn did not come in time.
func (q *queues) enter(bucket, key string) (leave func()) {
	at := entryID{bucket, key}
	q.mu.Lock()
	l := q.lines[at]
	if l == nil {
		if q.lines == nil {
			q.lines = make(map[entryID]*line)
		}
		l = new(line)
		q.ground.Do(func() { l.turn, l.made = make(chan struct{}, 1), time.Now() })
		q.lines[at] = l
	}
	l.users++
	q.mu.Unlock()

	if !l.take() {
		q.left(at, l)
		return nil
	}
	return func() {
		<-l.turn
		q.left(at, l)
	}
}

// left counts a caller as gone who was in the queue, or whose turn is over.
func (q *queues) left(at entryID, l *line) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(q.lines, at)
	}
}

// take waits for the caller's turn and reports whether it came in time.
func (l *line) take() bool {
	if inBubble(time.Now(), l.made) {
		return l.poll()
	}
	timer := time.NewTimer(queueMost)
	defer timer.Stop()
	select {
	case l.turn <- struct{}{}:
		return true
	case <-timer.C:
		return false
	}
}

// poll is take for callers in a bubble of testing/synctest where the cache was opened outside: who waits there for a channel of the
// ground keeps the clock of the bubble from going on, for which the one whose turn it is may be waiting.
func (l *line) poll() bool {
	return poll(queueMost, func() bool {
		select {
		case l.turn <- struct{}{}:
			return true
		default:
			return false
		}
	})
}

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
	entryID
	goroutine uint64
	wrote     bool // since it was last asked
	runs      int  // in which it wrote
}

// add makes the caller's goroutine suspect of writing a key.
func (s *suspects) add(bucket, key string) *suspect {
	u := &suspect{entryID: entryID{bucket, key}, goroutine: goroutineID()}
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
