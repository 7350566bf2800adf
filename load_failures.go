package keepcache

import (
	"strings"
	"time"

	"github.com/keepcache/keepcache/internal/failures"
	"github.com/keepcache/keepcache/internal/format"
)

// RememberedError is the error of a load that failed a moment ago, returned without trying again. See
// LoadOptions.RetryAfter. It is found by errors.As, and errors.Is looks through it.
type RememberedError struct {
	Err     error     // of the load, with all that it wraps; only its text, cut, if that was too long
	At      time.Time // when the load failed
	RetryAt time.Time // when the next request tries again
}

// Error returns the text of the remembered error.
func (e *RememberedError) Error() string { return e.Err.Error() }

// Unwrap returns the remembered error.
func (e *RememberedError) Unwrap() error { return e.Err }

// failedLately returns the remembered error of key, or nil. stale is true if there is a value to serve.
func (b *Bucket) failedLately(key string, o *LoadOptions, stale bool) error {
	most := o.retryAfter(stale)
	f := b.db.loads.failures.Get(b.at.Name, key, most, b.db.engine.Invalidated)
	if f == nil {
		return nil
	}
	e := &RememberedError{f.Err, f.At, f.RetryAt}
	if at := f.At.Add(min(most, NoExpiry/2)); at.Before(e.RetryAt) {
		e.RetryAt = at
	}
	return e
}

const (
	// mostErrorText is how long the text of a remembered error may be. A longer one is cut.
	maxErrorText = 4 << 10

	// leastErrorText is how much of the text is kept at least. If not even that fits, the failure is not remembered.
	minErrorText = 128
)

// newFailure returns what is remembered of a load that failed just now. A text that is too long is cut, and loses what
// the error wraps. A panic that is too large loses its stack.
func newFailure(f *flight, a *answer, tags format.Tags, hold time.Duration) *failures.Failure {
	now := time.Now()
	e := &failures.Failure{
		Bucket: f.b.at.Name, Key: f.key, Err: a.err, At: now, RetryAt: now.Add(min(hold, NoExpiry/2)),
		Size: len(a.text), Tags: tags, Start: f.start,
	}
	room := int(f.b.db.loads.failures.Room(e))
	p, panicked := a.err.(*PanicError)
	switch most := max(min(room, maxErrorText), minErrorText); {
	case e.Size > most:
		cut := cutText(a.text, most)
		e.Err, e.Size = cutError(cut), len(cut)
	case panicked && e.Size+len(p.Stack) <= room:
		e.Size += len(p.Stack)
	case panicked:
		e.Err = &PanicError{Value: p.Value, text: p.text}
	}
	return e
}

// cutError is an error whose text was too long to keep.
type cutError string

func (e cutError) Error() string { return string(e) }

// cutText cuts a text to at most the given number of bytes, which is at least 3.
func cutText(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(strings.Clone(text[:most-3]), "") + "..."
}
