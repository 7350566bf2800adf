package keepcache

import (
	"fmt"
	"time"

	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
)

var errDeadlinePassed = fmt.Errorf("%w: the deadline has passed", ErrInvalidTTL)

// SetUntil is Set with a point in time at which the entry expires, rounded up to the millisecond. The zero time is
// never, whatever the bucket's default. A time that has passed is ErrInvalidTTL. Reads do not prolong the entry's life,
// even if the bucket is Sliding.
func (b *Bucket) SetUntil(key string, value any, until time.Time) error {
	rec, h, err := b.beginUntil(key, until)
	if err == nil {
		rec.buf, err = appendValue(rec.buf, value, b.db.options.MaxValueBytes)
	}
	return b.set("set", key, rec, h, err)
}

// AddUntil is Add with a point in time. See SetUntil.
func (b *Bucket) AddUntil(key string, value any, until time.Time) (added bool, err error) {
	d, err := b.prepareUntil(key, value, until)
	return b.add(key, d, err)
}

// prepareUntil is prepare with a point in time.
func (b *Bucket) prepareUntil(key string, value any, until time.Time) (*engine.Write, error) {
	rec, h, err := b.beginUntil(key, until)
	if err == nil {
		rec.buf, err = appendValue(rec.buf, value, b.db.options.MaxValueBytes)
	}
	if err != nil {
		return nil, err
	}
	d := rec.finish(key, h)
	return &d, nil
}

// beginUntil is begin with a point in time.
func (b *Bucket) beginUntil(key string, until time.Time) (*frame, format.Header, error) {
	if _, err := b.canWrite(NoExpiry); err != nil {
		return nil, format.Header{}, err
	}
	h := format.Header{ExpiresAt: format.DeadlineAt(until), StaleUntil: format.DeadlineAt(until)}
	return b.beginAs(key, h, &format.Options{Tags: b.tags})
}

// beginAs starts the record of an entry with the given times and options. A WrittenAt of 0 is now.
func (b *Bucket) beginAs(key string, h format.Header, t *format.Options) (*frame, format.Header, error) {
	now := format.Millis(b.db.engine.Now())
	switch {
	case !format.ValidKey(key):
		return nil, format.Header{}, ErrInvalidKey
	case h.StaleUntil <= now:
		return nil, format.Header{}, errDeadlinePassed
	case h.WrittenAt == 0:
		h.WrittenAt = now
	}
	f := frameOf(key, h)
	f.buf = format.AppendOptions(f.buf, t)
	return f, h, nil
}

// Restore stores value under e.Key with everything that e says: the times at which it was written, loaded, expires and
// may no longer be served stale, its ETag and tags, its sliding lifetime, and whether it is negative. Size and Revision
// are ignored: the entry gets a revision of its own, and its tags count as of that revision. Defaults of the bucket and
// tags of the handle are ignored too.
//
// The value is as in Set. It may also be an Entry, whose value is taken as it is stored; ErrNoValue says that it has
// none. The value of a negative entry does not matter. An ExpiresAt that has passed makes the entry stale. A StaleUntil
// that has passed, or that is before ExpiresAt, is ErrInvalidTTL. A zero ExpiresAt or StaleUntil is never, and a zero
// WrittenAt is now. Times are kept to the millisecond.
//
//	for e, err := range from.Scan(&ScanOptions{Stale: true}) {
//		if err == nil {
//			err = to.Restore(e, e)
//		}
//		...
//	}
func (b *Bucket) Restore(e Entry, value any) error {
	rec, h, err := b.beginRestore(&e)
	if err == nil {
		limit := b.db.options.MaxValueBytes
		from, isEntry := value.(Entry)
		switch {
		case e.Negative:
			rec.buf = append(rec.buf, jsonNull...)
		case !isEntry:
			rec.buf, err = appendValue(rec.buf, value, limit)
		case from.value == nil:
			err = ErrNoValue
		case len(from.value) > limit:
			err = fmt.Errorf("%w: its encoding passes %d bytes", ErrTooLarge, limit)
		default:
			rec.buf = append(rec.buf, from.value...)
		}
	}
	return b.set("restore", e.Key, rec, h, err)
}

// beginRestore starts the record of Restore.
func (b *Bucket) beginRestore(e *Entry) (*frame, format.Header, error) {
	if _, err := b.canWrite(NoExpiry); err != nil {
		return nil, format.Header{}, err
	}
	h := format.Header{ExpiresAt: format.DeadlineAt(e.ExpiresAt), StaleUntil: format.DeadlineAt(e.StaleUntil),
		WrittenAt: format.Stamp(e.WrittenAt)}
	t := format.Options{
		Negative: e.Negative, LoadedAt: format.Stamp(e.LoadedAt), RetryAt: format.Stamp(e.RetryAt),
		Lifetime: format.Span(max(e.Sliding, 0)), ETag: []byte(e.ETag),
	}
	if e.Sliding == NoExpiry {
		t.Lifetime = 0 // nothing to begin anew
	}
	var err error
	switch {
	case e.Sliding < 0:
		err = fmt.Errorf("%w: Sliding is negative", ErrInvalidTTL)
	case h.StaleUntil < h.ExpiresAt:
		err = fmt.Errorf("%w: StaleUntil is before ExpiresAt", ErrInvalidTTL)
	case len(t.ETag) > MaxETagBytes:
		err = errETagTooLong
	default:
		t.Tags, err = packTags(e.Tags)
	}
	if err != nil {
		return nil, format.Header{}, err
	}
	return b.beginAs(e.Key, h, &t)
}
