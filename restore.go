package keepcache

import (
	"fmt"
	"time"
)

var errDeadlinePassed = fmt.Errorf("%w: the deadline has passed", ErrInvalidTTL)

// SetUntil is Set with a point in time at which the entry expires, rounded up to the millisecond. The zero time is
// never, whatever the bucket's default; one that has passed is ErrInvalidTTL. In a bucket that is Sliding too, reads do
// not prolong the entry's life.
func (b *Bucket) SetUntil(key string, value any, until time.Time) error {
	rec, h, err := b.beginUntil(key, until)
	if err == nil {
		rec.buf, err = appendValue(rec.buf, value, b.db.options.MaxValueBytes)
	}
	return b.set("set", key, rec, h, err)
}

// AddUntil is Add with a point in time, as SetUntil has it.
func (b *Bucket) AddUntil(key string, value any, until time.Time) (added bool, err error) {
	rec, h, err := b.beginUntil(key, until)
	if err == nil {
		rec.buf, err = appendValue(rec.buf, value, b.db.options.MaxValueBytes)
	}
	if err != nil {
		return b.add(key, nil, err)
	}
	d := rec.finish(key, h)
	return b.add(key, &d, nil)
}

// beginUntil is begin with a point in time.
func (b *Bucket) beginUntil(key string, until time.Time) (*frame, header, error) {
	if _, err := b.canWrite(NoExpiry); err != nil {
		return nil, header{}, err
	}
	h := header{freshUntil: momentOf(until), goneAt: momentOf(until)}
	return b.beginAs(key, h, &traits{tags: b.tags})
}

// beginAs starts the record of an entry with the given times, of which that of its writing is now if it is 0, and traits.
func (b *Bucket) beginAs(key string, h header, t *traits) (*frame, header, error) {
	now := millis(b.db.clock.now())
	switch {
	case !validKey(key):
		return nil, header{}, ErrInvalidKey
	case h.goneAt <= now:
		return nil, header{}, errDeadlinePassed
	case h.written == 0:
		h.written = now
	}
	f := frameOf(key, h)
	f.buf = appendTraits(f.buf, t)
	return f, h, nil
}

// Restore stores value under e.Key with all that e says: when it was written, loaded, expires and is gone, its ETag and
// tags, its sliding lifetime, and whether it is negative. Size and Revision do not count: the entry gets a revision of its
// own, as of which its tags hold. Defaults of the bucket and tags of the handle do not count either.
//
// The value is as in Set, or an Entry whose value is taken as it is stored; that of a negative entry does not matter. A
// FreshUntil that has passed is that of a stale entry. A GoneAt that has passed, or that is before FreshUntil, is
// ErrInvalidTTL. A zero FreshUntil or GoneAt is never, and a zero Written is now. Times are kept to the millisecond.
//
//	for e, err := range from.Kept("", "") {
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
		case len(from.value) == 0:
			err = fmt.Errorf("%w: an Entry without one", ErrUnsupportedValue)
		case len(from.value) > limit:
			err = fmt.Errorf("%w: its encoding passes %d bytes", ErrTooLarge, limit)
		default:
			rec.buf = append(rec.buf, from.value...)
		}
	}
	return b.set("restore", e.Key, rec, h, err)
}

// beginRestore starts the record of Restore.
func (b *Bucket) beginRestore(e *Entry) (*frame, header, error) {
	if _, err := b.canWrite(NoExpiry); err != nil {
		return nil, header{}, err
	}
	h := header{freshUntil: momentOf(e.FreshUntil), goneAt: momentOf(e.GoneAt), written: stampOf(e.Written)}
	t := traits{
		negative: e.Negative, loaded: stampOf(e.Loaded), retry: stampOf(e.RetryAt), lifetime: spanOf(max(e.Sliding, 0)), etag: []byte(e.ETag),
	}
	if e.Sliding == NoExpiry {
		t.lifetime = 0 // nothing to begin anew
	}
	var err error
	switch {
	case e.Sliding < 0:
		err = fmt.Errorf("%w: Sliding is negative", ErrInvalidTTL)
	case h.goneAt < h.freshUntil:
		err = fmt.Errorf("%w: GoneAt is before FreshUntil", ErrInvalidTTL)
	case len(t.etag) > MaxETagBytes:
		err = errETagTooLong
	default:
		t.tags, err = packTags(e.Tags)
	}
	if err != nil {
		return nil, header{}, err
	}
	return b.beginAs(e.Key, h, &t)
}
