package keepcache

import (
	"container/list"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/ground"
)

const (
	// Failures are remembered in a sixteenth of MemoryBytes, within these bounds, beside it.
	leastFailureBytes = 16 << 10
	mostFailureBytes  = 4 << 20

	// failureOverhead is what one takes besides its key and its text: its place in map and list, and the error.
	failureOverhead = 256

	// mostErrorText is how long the text of an error may be to be remembered as it is. Of a longer one its beginning is.
	mostErrorText = 4 << 10

	// leastErrorText is what is left of the text at least. If even that does not fit, the failure is not remembered.
	leastErrorText = 128
)

// RememberedError is the error of a load that failed a moment ago, returned without trying again; see
// LoadOptions.RetryAfter. errors.As finds it, and errors.Is looks through it.
type RememberedError struct {
	Err     error     // what the load failed with, and so all that it wraps; its text alone if that was too long to be kept
	At      time.Time // when
	RetryAt time.Time // when the next request tries again
}

// Error is the text of the error that is remembered.
func (e *RememberedError) Error() string { return e.Err.Error() }

// Unwrap returns the error that is remembered.
func (e *RememberedError) Unwrap() error { return e.Err }

// failures are the loads that failed lately and have left nothing to serve, or nothing that could be stored. They are in
// memory only, and bounded; the oldest go first. All methods may be called from any goroutine.
type failures struct {
	n      atomic.Int64   // how many, so that writes need no lock to find that there are none
	most   int64          // bytes
	ground *ground.Ground // of the timer, which may be set in a bubble of testing/synctest that ends before it does

	mu     sync.Mutex // protects what follows
	byKey  map[failureKey]*list.Element
	oldest list.List // of *failedLoad
	bytes  int64
	timer  *time.Timer // runs expire, at due
	due    time.Time   // by the clock of the ground; zero if the timer is not set
	closed bool
}

type failureKey struct{ bucket, key string }

// failedLoad is one load that failed.
type failedLoad struct {
	RememberedError
	key   failureKey
	bytes int64
	over  time.Time // when it may go, by the clock of the ground

	tags  format.Tags // of the entry that it would have brought,
	start uint64      // as of this revision
}

// newFailedLoad returns what is to be remembered of a load that failed just now. What is too large of it is left out: of a text all but
// its beginning, together with what the error wraps, and of a panic the stack.
func newFailedLoad(f *flight, a *answer, tags format.Tags, hold time.Duration) *failedLoad {
	now := time.Now()
	e := &failedLoad{
		RememberedError: RememberedError{a.err, now, now.Add(min(hold, NoExpiry/2))},
		key:             failureKey{f.b.at.Name, f.key}, tags: tags, start: f.start,
	}
	e.bytes = int64(len(f.b.at.Name)+len(f.key)+len(tags)) + failureOverhead
	room := min(f.b.db.loads.failures.mostOf()-e.bytes, mostErrorText)
	size := int64(len(a.text))
	if p, ok := a.err.(*PanicError); size > max(room, leastErrorText) {
		cut := cutText(a.text, int(max(room, leastErrorText)))
		e.Err, size = cutError(cut), int64(len(cut))
	} else if ok && e.bytes+size+int64(len(p.Stack)) <= f.b.db.loads.failures.mostOf() {
		size += int64(len(p.Stack))
	} else if ok {
		e.Err = &PanicError{Value: p.Value, text: p.text}
	}
	e.bytes += size
	return e
}

// cutError is what is left of an error whose text is too long.
type cutError string

func (e cutError) Error() string { return string(e) }

// cutText cuts a text to the given number of bytes, which is 3 at least.
func cutText(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(strings.Clone(text[:most-3]), "") + "..."
}

// mostOf is how many bytes one failure may take, so that none displaces all others.
func (fs *failures) mostOf() int64 { return fs.most / 8 }

// put remembers a failure, in the place of an older one of the key.
func (fs *failures) put(e *failedLoad) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.remove(fs.byKey[e.key])
	if e.bytes > fs.mostOf() || fs.closed {
		return
	}
	if fs.byKey == nil {
		fs.byKey = make(map[failureKey]*list.Element)
	}
	fs.byKey[e.key] = fs.oldest.PushBack(e)
	fs.bytes += e.bytes
	fs.n.Add(1)
	for fs.bytes > fs.most {
		fs.remove(fs.oldest.Front())
	}
	fs.ground.Do(func() {
		now := time.Now()
		e.over = now.Add(min(e.RetryAt.Sub(e.At), NoExpiry/2))
		fs.expireBy(now, e.over)
	})
}

// expireBy has expire run at that moment, or a second from now if that is later. The caller holds mu, and is on the ground.
func (fs *failures) expireBy(now, at time.Time) {
	if least := now.Add(time.Second); at.Before(least) {
		at = least
	}
	switch {
	case fs.timer == nil:
		fs.timer = time.AfterFunc(at.Sub(now), fs.expire)
	case fs.due.IsZero() || at.Before(fs.due):
		fs.timer.Reset(at.Sub(now))
	default:
		return
	}
	fs.due = at
}

// get returns the failure that is remembered of a key, or nil. shorter is for how long the caller has it hold at most.
func (fs *failures) get(db *DB, bucket, key string, shorter time.Duration) *failedLoad {
	if fs.n.Load() == 0 || shorter == 0 {
		return nil
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	at := fs.byKey[failureKey{bucket, key}]
	if at == nil {
		return nil
	}
	e := at.Value.(*failedLoad)
	switch since := time.Since(e.At); {
	case since >= e.RetryAt.Sub(e.At), db.engine.Invalidated(e.tags) > e.start:
		fs.remove(at)
		return nil
	case since >= shorter:
		return nil
	}
	return e
}

// forget forgets a key: whoever writes or removes it does so after that.
func (fs *failures) forget(bucket, key string) {
	if fs == nil || fs.n.Load() == 0 {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.remove(fs.byKey[failureKey{bucket, key}])
}

// forgetPrefix forgets all keys of a bucket that begin with prefix.
func (fs *failures) forgetPrefix(bucket, prefix string) {
	if fs.n.Load() == 0 {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for key, at := range fs.byKey {
		if key.bucket == bucket && strings.HasPrefix(key.key, prefix) {
			fs.remove(at)
		}
	}
}

// remove takes a failure out, if there is one. The caller holds mu.
func (fs *failures) remove(at *list.Element) {
	if at == nil {
		return
	}
	e := fs.oldest.Remove(at).(*failedLoad)
	delete(fs.byKey, e.key)
	fs.bytes -= e.bytes
	if fs.n.Add(-1) == 0 {
		fs.byKey = nil // a map keeps the room that it once needed
	}
}

// expire removes what is over, and comes again while there is more. It looks at all of them at most once a second.
func (fs *failures) expire() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	now := time.Now()
	var next time.Time
	for at := fs.oldest.Front(); at != nil; {
		e := at.Value.(*failedLoad)
		after := at.Next()
		if !e.over.After(now) {
			fs.remove(at)
		} else if next.IsZero() || e.over.Before(next) {
			next = e.over
		}
		at = after
	}
	fs.due = time.Time{}
	if !next.IsZero() && !fs.closed {
		fs.expireBy(now, next)
	}
}

// close forgets all.
func (fs *failures) close() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.closed = true
	fs.ground.Do(func() {
		if fs.timer != nil {
			fs.timer.Stop()
		}
	})
	fs.byKey, fs.bytes = nil, 0
	fs.oldest.Init()
	fs.n.Store(0)
}

// failedLately returns the error of a load of key that failed lately, or nil. stale says that there is a value to serve.
func (b *Bucket) failedLately(key string, o *LoadOptions, stale bool) error {
	shorter := o.retryAfter(stale)
	e := b.db.loads.failures.get(b.db, b.at.Name, key, shorter)
	if e == nil {
		return nil
	}
	remembered := e.RememberedError
	if at := e.At.Add(min(shorter, NoExpiry/2)); at.Before(e.RetryAt) {
		remembered.RetryAt = at
	}
	return &remembered
}
