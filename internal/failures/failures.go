// Package failures remembers for a short time the loads that failed, so that a source that is down is not asked with
// every request.
package failures

import (
	"container/list"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/ground"
)

const (
	// Failures are kept in a sixteenth of Options.MemoryBytes, within these bounds, beside it.
	leastBytes = 16 << 10
	mostBytes  = 4 << 20

	// overhead is what a failure takes besides its key and its text: its place in map and list, and the error.
	overhead = 256

	never = time.Duration(math.MaxInt64) / 2 // long enough, and no sum with it overflows
)

// Failure is one load that failed.
type Failure struct {
	Bucket, Key string
	Err         error
	At, RetryAt time.Time
	Size        int         // of the texts that Err holds, in bytes
	Tags        format.Tags // of the entry that the load would have brought
	Start       uint64      // the revision as of which its tags hold

	over time.Time // when it may go, by the clock of the ground
}

func (f *Failure) bytes() int64 { return f.bytesWithoutText() + int64(f.Size) }

func (f *Failure) bytesWithoutText() int64 {
	return int64(len(f.Bucket)+len(f.Key)+len(f.Tags)) + overhead
}

// Memory holds the failures that left nothing to serve, or nothing that could be stored. It is bounded: the oldest go
// first. Call Init before anything else. All methods may be called from any goroutine.
type Memory struct {
	n      atomic.Int64   // how many, so that writes need no lock to find that there are none
	most   int64          // bytes
	ground *ground.Ground // of the timer, which may be set in a bubble of testing/synctest that ends before it does

	mu     sync.Mutex // protects what follows
	byKey  map[entry]*list.Element
	oldest list.List // of *Failure
	bytes  int64
	timer  *time.Timer // runs expire, at due
	due    time.Time   // by the clock of the ground; zero if the timer is not set
	closed bool
}

type entry struct{ bucket, key string }

func (f *Failure) entry() entry { return entry{f.Bucket, f.Key} }

// Init sizes the memory for a cache with that much memory of its own, in bytes.
func (m *Memory) Init(memoryBytes int64, g *ground.Ground) {
	m.most, m.ground = min(max(memoryBytes/16, leastBytes), mostBytes), g
}

// Len returns how many failures there are. It takes no lock.
func (m *Memory) Len() int { return int(m.n.Load()) }

// Room returns how many bytes of text a failure may have to be remembered; it may be negative.
func (m *Memory) Room(f *Failure) int64 { return m.mostOf() - f.bytesWithoutText() }

// mostOf is how many bytes one failure may take, so that none displaces all others.
func (m *Memory) mostOf() int64 { return m.most / 8 }

// Put remembers a failure in the place of an older one of the key. One that is too large is not remembered.
func (m *Memory) Put(f *Failure) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remove(m.byKey[f.entry()])
	if f.bytes() > m.mostOf() || m.closed {
		return
	}
	if m.byKey == nil {
		m.byKey = make(map[entry]*list.Element)
	}
	m.byKey[f.entry()] = m.oldest.PushBack(f)
	m.bytes += f.bytes()
	m.n.Add(1)
	for m.bytes > m.most {
		m.remove(m.oldest.Front())
	}
	m.ground.Do(func() {
		now := time.Now()
		f.over = now.Add(min(f.RetryAt.Sub(f.At), never))
		m.expireBy(now, f.over)
	})
}

// expireBy has expire run at that moment, or a second from now if that is later. The caller holds mu and is on the
// ground.
func (m *Memory) expireBy(now, at time.Time) {
	if least := now.Add(time.Second); at.Before(least) {
		at = least
	}
	switch {
	case m.timer == nil:
		m.timer = time.AfterFunc(at.Sub(now), m.expire)
	case m.due.IsZero() || at.Before(m.due):
		m.timer.Reset(at.Sub(now))
	default:
		return
	}
	m.due = at
}

// Get returns the failure of a key, or nil. The caller lets it hold for at most the given time. invalidated returns the
// revision up to which entries with one of the tags are invalid.
func (m *Memory) Get(bucket, key string, most time.Duration, invalidated func(format.Tags) uint64) *Failure {
	if m.Len() == 0 || most == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.byKey[entry{bucket, key}]
	if at == nil {
		return nil
	}
	f := at.Value.(*Failure)
	switch since := time.Since(f.At); {
	case since >= f.RetryAt.Sub(f.At), invalidated(f.Tags) > f.Start:
		m.remove(at)
		return nil
	case since >= most:
		return nil
	}
	return f
}

// Forget forgets a key. It is called after every write and removal of it. A nil Memory has nothing to forget.
func (m *Memory) Forget(bucket, key string) {
	if m == nil || m.Len() == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remove(m.byKey[entry{bucket, key}])
}

// ForgetPrefix forgets all keys of a bucket that begin with prefix.
func (m *Memory) ForgetPrefix(bucket, prefix string) {
	if m.Len() == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for at, element := range m.byKey {
		if at.bucket == bucket && strings.HasPrefix(at.key, prefix) {
			m.remove(element)
		}
	}
}

// remove takes a failure out, if there is one. The caller holds mu.
func (m *Memory) remove(at *list.Element) {
	if at == nil {
		return
	}
	f := m.oldest.Remove(at).(*Failure)
	delete(m.byKey, f.entry())
	m.bytes -= f.bytes()
	if m.n.Add(-1) == 0 {
		m.byKey = nil // a map keeps the room that it once needed
	}
}

// expire removes what is over, and comes again while there is more: at most once a second, as it looks at all of them.
func (m *Memory) expire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	var next time.Time
	for at := m.oldest.Front(); at != nil; {
		f := at.Value.(*Failure)
		after := at.Next()
		if !f.over.After(now) {
			m.remove(at)
		} else if next.IsZero() || f.over.Before(next) {
			next = f.over
		}
		at = after
	}
	m.due = time.Time{}
	if !next.IsZero() && !m.closed {
		m.expireBy(now, next)
	}
}

// Close forgets everything, and remembers nothing more.
func (m *Memory) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.ground.Do(func() {
		if m.timer != nil {
			m.timer.Stop()
		}
	})
	m.byKey, m.bytes = nil, 0
	m.oldest.Init()
	m.n.Store(0)
}
