package keepcache

import (
	"strings"
	"time"

	"github.com/keepcache/keepcache/internal/failures"
	"github.com/keepcache/keepcache/internal/format"
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

// failedLately returns the error of a load of key that failed lately, or nil. stale says that there is a value to serve.
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
	// mostErrorText is how long the text of an error may be to be remembered as it is. Of a longer one its beginning is.
	mostErrorText = 4 << 10

	// leastErrorText is what is left of the text at least. If even that does not fit, the failure is not remembered.
	leastErrorText = 128
)

// newFailure returns what is remembered of a load that failed just now. Of a text that is too long its beginning is kept,
// without what the error wraps; of a panic that is too large the stack is left out.
func newFailure(f *flight, a *answer, tags format.Tags, hold time.Duration) *failures.Failure {
	now := time.Now()
	e := &failures.Failure{
		Bucket: f.b.at.Name, Key: f.key, Err: a.err, At: now, RetryAt: now.Add(min(hold, NoExpiry/2)),
		Size: len(a.text), Tags: tags, Start: f.start,
	}
	room := int(f.b.db.loads.failures.Room(e))
	p, panicked := a.err.(*PanicError)
	switch most := max(min(room, mostErrorText), leastErrorText); {
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
