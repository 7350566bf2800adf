package keepcache

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

var (
	errGoexit       = errors.New("the loader ended its goroutine")
	errFailedLately = errors.New("a load has failed lately")
	errNotThere     = errors.New("the loader says that nothing was modified, but it was given nothing")
	errETagTooLong  = fmt.Errorf("the ETag is longer than %d bytes", MaxETagBytes)
)

// finish lands a flight with what a loader brought: it stores that, as far as it may, and counts.
func (f *flight) finish(l *Load, o *LoadOptions, encoded []byte, err error) {
	took := time.Since(f.began)
	f.strange = err != nil && f.caller != nil && f.caller.Err() != nil && errors.Is(err, f.caller.Err())
	d, err := f.outcome(l, o, encoded, err)
	f.b.db.counts.loaded(took, err)
	if err == nil {
		rec := d.record()
		f.header, f.options, f.value = d.header, recordOptions(rec), recordValue(rec)
	}
	if (l.NoStore || f.unfit != nil) && err == nil || f.b.db.options.ReadOnly {
		d = nil
	}
	defer f.land(d, err) // also where code that is not ours ends this goroutine
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		f.b.db.events.tell(Event{Kind: EventLoadFailed, Bucket: f.b.name, Key: f.key, Err: err})
	case f.b.db.events.wants(EventLoad):
		f.b.db.events.tell(Event{Kind: EventLoad, Bucket: f.b.name, Key: f.key, Detail: took.String()})
	}
	if f.unfit != nil && err == nil && !l.NoStore && !f.b.db.options.ReadOnly {
		f.b.loadFailed(f.key, "what was loaded cannot be stored", f.unfit)
	}
}

// land stores what a flight brought, if anything, and lets those who wait go. They see it stored.
func (f *flight) land(d *draft, err error) {
	f.err = err
	if d != nil {
		d.flight = f
		switch err := f.b.write(d); {
		case err == errMissed:
			f.b.db.counts.loadsDiscarded.Add(1)
		case err != nil && !errors.Is(err, ErrClosed):
			f.b.loadFailed(f.key, "what was loaded cannot be stored", err)
		case err == nil:
			f.header.revision = d.header.revision
		}
	}
	f.arrive()
}

// outdated reports whether a tag of what the flight brought was invalidated after the flight began, and before
// the given revision.
func (f *flight) outdated(joined uint64) bool {
	t := readTraits(f.options)
	at := f.b.db.tags.invalidated(t.tags)
	return at >= t.since(f.header.revision) && at > f.start && at <= joined
}

// outcome drafts what is to be stored of a load; nil is nothing. The error is the one of the load.
func (f *flight) outcome(l *Load, o *LoadOptions, encoded []byte, err error) (*draft, error) {
	now := f.b.db.clock.now()
	if err == nil {
		var d *draft
		if d, err = f.success(l, o, encoded, now); err == nil {
			return d, nil
		}
	}
	r := &f.stale
	switch {
	case errors.Is(err, ErrNotFound):
		if o.NegativeTTL > 0 && !l.NoStore {
			tags, _ := packTags(l.Tags)
			h := header{written: millis(now), freshUntil: deadline(now, o.NegativeTTL)}
			h.goneAt = h.freshUntil
			t := traits{negative: true, loaded: h.written, tags: tags, asOf: f.start + 1}
			return &draft{key: f.key, header: h, stored: recordOf(h, &t, jsonNull)}, err
		}
		if r.stored() {
			return &draft{key: f.key}, err // what is there is not to be served any more
		}
	case r.held && !r.negative && o.RetryAfter > 0 && !f.strange:
		return f.retryLater(o, now), err
	}
	return nil, err
}

// retryLater drafts the entry as it is, with a time before which nobody tries again. Its life may be longer than
// when the load began, because reads have prolonged it.
func (f *flight) retryLater(o *LoadOptions, now time.Time) *draft {
	r, err := f.b.read(f.key)
	if err != nil || !r.held || r.negative {
		r = f.stale // it is gone, or cannot be read
	}
	t := r.traits()
	t.retry, t.asOf = deadline(now, o.RetryAfter), t.since(r.header.revision)
	return &draft{key: f.key, header: r.header, stored: recordOf(r.header, &t, r.value), sameLife: true}
}

// jsonNull is a stored null.
var jsonNull = []byte{0xc0}

// success drafts the record of what a loader returned, encoded. What cannot be stored of that is left out, and noted.
func (f *flight) success(l *Load, o *LoadOptions, encoded []byte, now time.Time) (*draft, error) {
	ttl, err := lifetime(l.TTL, f.b.defaultTTL)
	if err != nil || l.StaleFor < 0 {
		f.unfit = ErrInvalidTTL
		ttl, l.StaleFor = 1, 0
	}
	if len(l.ETag) > MaxETagBytes {
		f.unfit = errETagTooLong
		l.ETag = ""
	}
	h := header{written: millis(now), freshUntil: deadline(now, shorten(ttl, o.Jitter))}
	h.goneAt = prolong(h.freshUntil, spanOf(l.StaleFor))
	t := traits{loaded: h.written, etag: []byte(l.ETag), lifetime: f.b.slidingMillis(ttl)}
	if l.NotModified {
		if !l.Found {
			return nil, errNotThere
		}
		r := &f.stale
		encoded, h.written = r.value, r.header.written
		old := r.traits()
		if l.ETag == "" {
			t.etag = old.etag
		}
		if slices.Equal(l.Tags, f.b.tags.strings()) && len(old.tags) > 0 {
			l.Tags = old.tags.strings()
		}
	}
	if t.tags, err = packTags(l.Tags); err != nil {
		f.unfit = err
		t.tags = nil
	}
	t.asOf = f.start + 1 // an invalidation from the beginning of the load on is later than what it brought
	return &draft{key: f.key, header: h, stored: recordOf(h, &t, encoded)}, nil
}
