// Package contend helps callers who change the same key: it lets them take turns, and finds those who contend with
// themselves.
package contend

import (
	"sync"
	"time"

	"github.com/keepcache/keepcache/internal/ground"
)

// turnMost is how long a caller waits for its turn before it goes on without. Turns are a courtesy: correctness does
// not rest on them, and an Update within an Update of the same key must not wait for itself.
const turnMost = 100 * time.Millisecond

// Turns lets the callers who change a key do so one after the other. The zero value is ready for use. All methods may
// be called from any goroutine.
type Turns struct {
	Ground *ground.Ground // where the cache was opened: callers may be in different bubbles of testing/synctest

	mu    sync.Mutex // protects what follows
	lines map[entry]*line
}

// entry names an entry of the cache.
type entry struct{ bucket, key string }

// line is the queue of one key.
type line struct {
	turn  chan struct{} // holds a token while it is somebody's turn
	made  time.Time     // when turn was made, by the clock of the ground
	users int
}

// Enter waits for the caller's turn at a key and returns what ends it, or nil if the turn did not come in time.
func (t *Turns) Enter(bucket, key string) (leave func()) {
	at := entry{bucket, key}
	t.mu.Lock()
	l := t.lines[at]
	if l == nil {
		if t.lines == nil {
			t.lines = make(map[entry]*line)
		}
		l = new(line)
		t.Ground.Do(func() { l.turn, l.made = make(chan struct{}, 1), time.Now() })
		t.lines[at] = l
	}
	l.users++
	t.mu.Unlock()

	if !l.take() {
		t.left(at, l)
		return nil
	}
	return func() {
		<-l.turn
		t.left(at, l)
	}
}

// left counts a caller as gone, who was in the queue or had its turn.
func (t *Turns) left(at entry, l *line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(t.lines, at)
	}
}

// take waits for the caller's turn and reports whether it came in time.
func (l *line) take() bool {
	if ground.InBubble(time.Now(), l.made) {
		return ground.Poll(turnMost, l.tryTake)
	}
	timer := time.NewTimer(turnMost)
	defer timer.Stop()
	select {
	case l.turn <- struct{}{}:
		return true
	case <-timer.C:
		return false
	}
}

func (l *line) tryTake() bool {
	select {
	case l.turn <- struct{}{}:
		return true
	default:
		return false
	}
}
