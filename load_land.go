package keepcache

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/failures"
	"github.com/keepcache/keepcache/internal/format"
)

var (
	errGoexit       = errors.New("the loader ended its goroutine")
	errFailedLately = errors.New("a load has failed lately")
	errNotThere     = errors.New("the loader says that nothing was modified, but it was given nothing")
	errETagTooLong  = fmt.Errorf("%w: the ETag is longer than %d bytes", ErrTooLarge, MaxETagBytes)
)

// drop discards an answer that came after its flight was abandoned.
func (f *flight) drop(a *answer) {
	if a.err == nil {
		f.b.db.counts.loadsDiscarded.Add(1)
	}
}

// conclude lands a flight with the answer of its loader: it stores the answer if it can, and counts. The caller has
// claimed the flight, and sends the events that conclude adds to later once the other flights of the run have landed.
// No user code runs in here.
func (f *flight) finish(l *Load, o *LoadOptions, a answer, told *laterEvents) {
	took := time.Since(f.began)
	d, fail := f.result(l, o, &a, told)
	f.verdict = a.verdict
	if a.timedOut {
		f.b.db.counts.loadsTimedOut.Add(1)
	}
	f.b.db.counts.loaded(took, a.err != nil && !a.notFound)
	if a.err == nil {
		rec := d.Record()
		f.header, f.options, f.value = d.Header, format.OptionBytes(rec), format.Value(rec)
	}
	if l.NoStore && a.err == nil || a.unfit != nil || f.b.db.options.ReadOnly {
		d = nil
	}
	switch {
	case a.err != nil && !a.notFound:
		told.add(f, Event{Kind: EventLoadFailed, Err: a.err})
	case f.b.db.events.wants(EventLoad):
		told.add(f, Event{Kind: EventLoad, Detail: took.String()})
	}
	if a.unfit != nil && a.err == nil && !l.NoStore && !f.b.db.options.ReadOnly {
		f.notStored(a.unfit, told)
	}
	f.land(d, a.err, fail, told)
}

// add adds an event of a flight, if somebody listens.
func (n *laterEvents) add(f *flight, e Event) {
	if f.b.db.events.wants(e.Kind) {
		e.Bucket, e.Key = f.b.at.Name, eventKey(f.key)
		*n = append(*n, e)
	}
}

// notStored counts and reports that the cache could not store what was loaded.
func (f *flight) notStored(err error, told *laterEvents) {
	f.b.db.counts.loadCacheErrors.Add(1)
	told.add(f, Event{Kind: EventLoadFailed, Detail: "what was loaded cannot be stored", Err: err})
}

// land makes the write of a flight, if there is one, and wakes those who wait, who then see it stored. fail is the
// failure to remember if the write is not made.
func (f *flight) land(d *engine.Write, err error, fail *failures.Failure, told *laterEvents) {
	f.err = err
	switch {
	case d == nil:
	case f.run.noRoom.Load(): // who waits for this key must not wait for room as well
		f.notStored(fmt.Errorf("%w, as for another key of the same load", ErrNoRoom), told)
	default:
		d.Void = &f.void
		switch err := f.b.write(d); {
		case err == engine.ErrMissed:
			f.b.db.counts.loadsDiscarded.Add(1)
		case err != nil && !errors.Is(err, ErrClosed):
			f.run.noRoom.Store(errors.Is(err, ErrNoRoom))
			f.notStored(err, told)
		case err == nil:
			f.header.Revision = d.Header.Revision
			fail = nil
		}
	}
	f.arrive(fail)
}

// eventKey returns a key as events report it: invalid keys, which may be of any length, are empty.
func eventKey(key string) string {
	if !format.ValidKey(key) {
		return ""
	}
	return key
}

// outdated reports whether a tag of what the flight brought was invalidated after the flight began, up to the given
// revision.
func (f *flight) outdated(joined uint64) bool {
	t := format.ReadOptions(f.options)
	at := f.b.db.engine.Invalidated(t.Tags)
	return at >= t.Since(f.header.Revision) && at > f.start && at <= joined
}

// result returns the write that stores the answer, or nil if there is nothing to store. It may turn a success into a
// failure. fail is the failure to remember if the write is not made.
func (f *flight) result(
	l *Load, o *LoadOptions, a *answer, told *laterEvents,
) (d *engine.Write, fail *failures.Failure) {
	now := f.b.db.engine.Now()
	if !format.ValidKey(f.key) {
		a.unfit = fmt.Errorf("%w: %s", ErrInvalidKey, errs.Quote(f.key))
	} else if f.b.tagsErr != nil {
		a.unfit = f.b.tagsErr
	}
	if a.err == nil {
		if d = f.success(l, o, a, now); d != nil {
			f.b.db.loads.failures.Forget(f.b.at.Name, f.key)
			return d, nil
		}
		a.err = errNotThere
		a.verdict = verdict{lasting: true, text: a.err.Error()}
	}
	r := &f.stale
	switch {
	case a.notFound:
		f.b.db.loads.failures.Forget(f.b.at.Name, f.key)
		tags, err := packTags(l.Tags)
		if err == nil {
			err = a.unfit
		}
		a.unfit = nil
		switch {
		case o.NegativeTTL == 0 || l.NoStore:
		case err != nil:
			f.notStored(err, told)
		default:
			h := format.Header{WrittenAt: format.Millis(now), ExpiresAt: format.Deadline(now, o.NegativeTTL)}
			h.StaleUntil = h.ExpiresAt
			t := format.Options{Negative: true, LoadedAt: h.WrittenAt, Tags: tags, AsOf: f.start + 1}
			return &engine.Write{Key: f.key, Header: h, Stored: format.Frame(h, &t, jsonNull)}, nil
		}
		if r.IsStored() {
			return &engine.Write{Key: f.key}, nil // what is there must not be served any more
		}
	case a.lasting:
		stale := r.Held && !r.Negative
		a.unfit = nil
		hold := o.retryAfter(stale)
		if hold == 0 {
			return nil, nil
		}
		tags, _ := packTags(l.Tags)
		fail = newFailure(f, a, tags, hold)
		if stale {
			d = f.retryLater(hold, now)
		}
	}
	return d, fail
}

// retryLater returns a write that stores the entry as it is, with a time before which nobody loads it again. Reads may
// have prolonged its lifetime since the load began.
func (f *flight) retryLater(hold time.Duration, now time.Time) *engine.Write {
	var r engine.Reading
	err := f.b.readQuietly(&r, f.key)
	if err != nil || !r.Held || r.Negative {
		r = f.stale // it is gone, or cannot be read
	}
	t := r.ParseOptions()
	t.RetryAt, t.AsOf = format.Deadline(now, hold), t.Since(r.Header.Revision)
	return &engine.Write{Key: f.key, Header: r.Header, Stored: format.Frame(r.Header, &t, r.Value), SameLife: true}
}

// jsonNull is a stored null.
var jsonNull = []byte{0xc0}

// success returns the write that stores what a loader returned. It leaves out what cannot be stored, and notes that in
// a.unfit. It returns nil if the loader set NotModified although there was no old entry.
func (f *flight) success(l *Load, o *LoadOptions, a *answer, now time.Time) *engine.Write {
	encoded := a.encoded
	ttl, err := lifetime(l.TTL, f.b.defaultTTL)
	if err != nil || l.StaleFor < 0 {
		a.unfit = ErrInvalidTTL
		ttl, l.StaleFor = 1, 0
	}
	if len(l.ETag) > MaxETagBytes {
		a.unfit = errETagTooLong
		l.ETag = ""
	}
	h := format.Header{WrittenAt: format.Millis(now), ExpiresAt: format.Deadline(now, shorten(ttl, o.Jitter))}
	h.StaleUntil = format.Prolong(h.ExpiresAt, format.Span(l.StaleFor))
	t := format.Options{LoadedAt: h.WrittenAt, ETag: []byte(l.ETag), Lifetime: f.b.slidingMillis(ttl)}
	if l.NotModified {
		if !l.Found {
			return nil
		}
		r := &f.stale
		encoded, h.WrittenAt = r.Value, r.Header.WrittenAt
		old := r.ParseOptions()
		if l.ETag == "" {
			t.ETag = old.ETag
		}
		if slices.Equal(l.Tags, f.b.tags.Strings()) && len(old.Tags) > 0 {
			l.Tags = old.Tags.Strings()
		}
	}
	if t.Tags, err = packTags(l.Tags); err != nil {
		a.unfit = err
		t.Tags = nil
	}
	t.AsOf = f.start + 1 // later invalidations hold for the result
	return &engine.Write{Key: f.key, Header: h, Stored: format.Frame(h, &t, encoded)}
}
