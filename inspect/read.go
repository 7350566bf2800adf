package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
	"github.com/keepcache/keepcache/internal/glob"
	"github.com/keepcache/keepcache/internal/jsonpack"
	"github.com/keepcache/keepcache/internal/jsontext"
	"github.com/keepcache/keepcache/internal/wire"
)

// Bounds of the work for one page of keys. The next page continues where they are reached.
const (
	defaultLimit  = 100
	pageLooks     = 200_000 // entries scanned
	pageTime      = 250 * time.Millisecond
	pageBytes     = 4 << 20 // of names and values
	redactBytes   = 1 << 20 // of JSON that Options.Redact gets
	mostPattern   = 1024    // bytes of a pattern: at worst, each character of a key takes as many steps to match
	pageSteps     = 1 << 19 // of work between two readings of the clock, so a page has some entries on a slow machine too
	entrySteps    = 1 << 9  // of work that an entry counts as, about 2 µs
	lookEvery     = 64      // entries between two readings of the clock, in scans with a time limit
	lookBytes     = 1 << 20 // of values between them
	biggestTime   = 2 * time.Second
	mostRanked    = 1000 // of biggest and expiring
	defaultRanked = 20
)

// query has the parameters of a request.
type query struct {
	bucket, key string

	scan   keepcache.ScanOptions // of a list
	tag    string                // only entries with this tag; a page counts the others as scanned
	match  *glob.Glob
	none   bool // no key can match
	limit  int
	values bool
}

func (s *server) query(r *http.Request) (q query, err error) {
	v := r.URL.Query()
	q = query{
		bucket: v.Get("bucket"), key: v.Get("key"), tag: v.Get("tag"), values: v.Get("values") == "1",
		scan: keepcache.ScanOptions{
			Prefix: v.Get("prefix"), From: v.Get("from"), To: v.Get("to"), After: v.Get("after"),
			Reverse: v.Get("reverse") == "1", Stale: v.Get("stale") == "1",
		},
	}
	q.scan.KeysOnly = !q.values
	if pattern := v.Get("glob"); pattern != "" {
		if len(pattern) > mostPattern {
			return q, badRequest("the pattern is longer than %d bytes", mostPattern)
		}
		if q.match, err = glob.Parse(pattern); err != nil {
			return q, badRequest("the pattern: %w", err)
		}
		q.scan.Prefix, q.none = narrower(q.scan.Prefix, q.match.Prefix)
	}
	if text := v.Get("limit"); text != "" {
		if q.limit, err = strconv.Atoi(text); err != nil || q.limit < 1 {
			return q, badRequest("limit is %.20q", text)
		}
	}
	return q, nil
}

// narrower returns the prefix that begins with the other one. ok is false if no key can begin with both.
func narrower(a, b string) (prefix string, none bool) {
	if len(a) < len(b) {
		a, b = b, a
	}
	return a, a[:len(b)] != b
}

// named is query for requests about one bucket, by default the default bucket.
func (s *server) named(r *http.Request) (q query, err error) {
	if q, err = s.query(r); err == nil && q.bucket == "" {
		q.bucket = keepcache.DefaultBucket
	}
	return q, err
}

func (s *server) stats(v *visit) (any, error) {
	if err := v.enter(); err != nil {
		return nil, err
	}
	return wire.StatsOf(s.db.Stats(), time.Now()), nil
}

func (s *server) buckets(v *visit) (any, error) {
	if err := v.enter(); err != nil {
		return nil, err
	}
	return wire.Buckets{Buckets: wire.BucketsOf(s.db.Stats())}, nil
}

func (s *server) keys(v *visit) (any, error) {
	q, err := s.named(v.r)
	if err != nil {
		return nil, err
	}
	for {
		if err := v.enter(); err != nil {
			return nil, err
		}
		page, large, err := s.page(v, q)
		if err == nil && page.Looked == 0 { // not always, because the list of all buckets may be long
			err = s.known(q.bucket)
		}
		if err != nil || large == nil {
			return page, err
		}
		if v.alone() {
			return &outsize{entry: page.Entries[0], encoded: large, page: &page}, nil
		}
		if err := v.turn(); err != nil {
			return nil, err
		}
	}
}

// known refuses a bucket that does not exist. The default bucket always counts as existing.
func (s *server) known(bucket string) error {
	if bucket == keepcache.DefaultBucket {
		return nil
	}
	names, err := s.db.Buckets()
	if _, found := slices.BinarySearch(names, bucket); err == nil && !found {
		err = fmt.Errorf("no bucket %s: %w", display.Name(bucket), keepcache.ErrNotFound)
	}
	return err
}

// page returns a page of the entries of a bucket. If a value is too large to share a page, its entry is alone on the
// page, and the value is returned separately.
func (s *server) page(v *visit, q query) (page wire.Keys, large jsonpack.Encoded, err error) {
	page = wire.Keys{Entries: []wire.Entry{}}
	if q.none {
		return page, nil, nil
	}
	if q.limit == 0 {
		q.limit = min(defaultLimit, s.o.PageEntries)
	}
	q.limit = min(q.limit, s.o.PageEntries)
	begun, last, bytes, steps := time.Now(), "", 0, 0
	stop := func() {
		next := wire.Name(last)
		page.Next = &next
	}
	v.collect()
	for e, err := range s.db.Bucket(q.bucket).Scan(&q.scan) {
		if len(page.Entries) == q.limit || bytes >= pageBytes || large != nil {
			stop() // there is another entry
			break
		}
		v.collect()
		steps += entrySteps
		if q.values {
			v.copied(e.Size)
			steps += e.Size / 8
		}
		matches := false
		switch {
		case errors.Is(err, keepcache.ErrCorrupt) && e.Key != "":
			page.Damaged++
		case err != nil:
			return page, nil, err
		case q.tag != "" && !slices.Contains(e.Tags, q.tag):
		case q.match == nil:
			matches = true
		default:
			var n int
			if matches, n, err = q.match.MatchUntil(e.Key, v.ctx.Err); err != nil {
				return page, nil, err
			}
			steps += n
		}
		if matches {
			entry := s.entryOf(q.bucket, e)
			size := namesSize(&entry)
			if q.values {
				rest, err := s.value(v.ctx, &entry, e, max(0, pageBytes-bytes-size))
				switch {
				case err != nil:
					return page, nil, err
				case rest != nil && len(page.Entries) > 0:
					stop() // this entry begins the next page
					return page, nil, nil
				}
				large, size = rest, size+len(entry.Value)
			}
			bytes += size
			page.Entries = append(page.Entries, entry)
		}
		page.Looked++
		if last = e.Key; steps >= pageSteps {
			steps = 0
			if err := v.ctx.Err(); err != nil {
				return page, nil, err
			}
			if page.Looked >= pageLooks || time.Since(begun) > pageTime {
				stop()
				break
			}
		}
	}
	return page, large, nil
}

// namesSize returns the size of an entry's names.
func namesSize(w *wire.Entry) int {
	n := len(w.Bucket) + len(w.Key) + len(w.ETag)
	for _, tag := range w.Tags {
		n += len(tag)
	}
	return n
}

// entryOf returns what may be shown of an entry, without its value. A loader may have put anything into the ETag, so it
// is shown only where values are shown.
func (s *server) entryOf(bucket string, e keepcache.Entry) wire.Entry {
	w := wire.EntryOf(bucket, e)
	if !s.o.ShowValues || s.o.Redact != nil {
		w.ETagHidden = w.ETag != ""
		w.ETag = ""
	}
	return w
}

// value puts the value of e into an answer, if it may be shown. If its text has more than most bytes, value returns it
// instead.
func (s *server) value(
	ctx context.Context, w *wire.Entry, e keepcache.Entry, most int,
) (large jsonpack.Encoded, err error) {
	encoded, redacted, err := s.shown(ctx, string(w.Bucket), e)
	if err != nil || encoded == nil {
		w.Hidden = true
		return nil, err
	}
	if len(encoded)/3 > most { // text is never less than a third of the encoding
		return encoded, nil
	}
	text, places, whole, err := jsontext.AppendSome(ctx, nil, encoded, most)
	switch {
	case err != nil:
		return nil, err
	case !whole:
		return encoded, nil
	}
	w.Value, w.Literals, w.Redacted = text, places, redacted
	return nil, nil
}

// shown returns the value of e in the form that may be shown, or nil.
func (s *server) shown(
	ctx context.Context, bucket string, e keepcache.Entry,
) (encoded jsonpack.Encoded, redacted bool, err error) {
	if !s.o.ShowValues {
		return nil, false, nil
	}
	if e.Decode(&encoded) != nil || len(encoded) == 0 {
		return nil, false, nil // cannot happen: the record has passed its checksum
	}
	if s.o.Redact == nil {
		return encoded, false, nil
	}
	if len(encoded)/3 > redactBytes { // text is never less than a third of the encoding
		return nil, false, nil
	}
	text, _, whole, err := jsontext.AppendSome(ctx, nil, encoded, redactBytes)
	if err != nil || !whole {
		return nil, false, err
	}
	shown := s.redact(bucket, e.Key, text)
	if shown == nil || string(shown) == string(text) {
		if shown == nil {
			encoded = nil
		}
		return encoded, false, nil
	}
	encoded, err = jsonpack.Append(nil, &jsonpack.Text{JSON: shown}, redactBytes)
	if err != nil {
		return nil, false, nil // not a valid value
	}
	return encoded, true, nil
}

// redact calls Options.Redact. If the result is not JSON, or is longer than redactBytes, the value is hidden.
func (s *server) redact(bucket, key string, text []byte) (shown []byte) {
	defer func() {
		if recover() != nil {
			shown = nil
		}
	}()
	shown = s.o.Redact(bucket, key, slices.Clone(text))
	if len(shown) > redactBytes || !utf8.Valid(shown) || !json.Valid(shown) {
		return nil
	}
	return shown
}

func (s *server) entry(v *visit) (any, error) {
	q, err := s.named(v.r)
	if err != nil {
		return nil, err
	}
	for {
		e, err := s.find(v, q)
		if err != nil {
			return nil, err
		}
		entry := s.entryOf(q.bucket, e)
		if !q.values {
			return entry, nil
		}
		large, err := s.value(v.ctx, &entry, e, largeValue)
		if err != nil || large == nil {
			return entry, err
		}
		if v.alone() {
			s.sent = slotKey{q.bucket, q.key}
			return &outsize{entry: entry, encoded: large}, nil
		}
		if err := v.turn(); err != nil {
			return nil, err
		}
	}
}

// find returns the entry that a request names. It enters the gate.
func (s *server) find(v *visit, q query) (e keepcache.Entry, err error) {
	if err := v.enter(); err != nil {
		return e, err
	}
	if q.values && s.sent == (slotKey{q.bucket, q.key}) && len(s.large) > 0 && !v.large {
		// This value is being sent to another client: do not read it in vain.
		if err := v.turn(); err != nil {
			return e, err
		}
		if err := v.enter(); err != nil {
			return e, err
		}
	}
	v.collect()
	e, found, err := s.db.Bucket(q.bucket).Stat(q.key)
	if v.copied(e.Size); err == nil && !found {
		err = fmt.Errorf("no key %s in bucket %s: %w", display.Name(q.key), display.Name(q.bucket), keepcache.ErrNotFound)
	}
	return e, err
}

func (s *server) exists(v *visit) (any, error) {
	q, err := s.named(v.r)
	if err != nil {
		return nil, err
	}
	e, err := s.find(v, q)
	if errors.Is(err, keepcache.ErrCorrupt) || errors.Is(err, keepcache.ErrNotFound) {
		return wire.Found{}, nil // stale and negative entries are absent for Exists
	}
	fresh := e.ExpiresAt.IsZero() || time.Now().Before(e.ExpiresAt)
	return wire.Found{Found: fresh && err == nil}, err
}

func (s *server) expiring(v *visit) (any, error) {
	q, err := s.query(v.r)
	if err != nil {
		return nil, err
	}
	if err := v.enter(); err != nil {
		return nil, err
	}
	var names []string
	if q.bucket != "" {
		names = []string{q.bucket}
	}
	found, err := s.db.Expiring(ranked(q.limit), names...)
	page := wire.Keys{Entries: []wire.Entry{}, Looked: int64(len(found))}
	bytes := 0
	for _, e := range found {
		entry := s.entryOf(e.Bucket, e.Entry)
		if bytes += namesSize(&entry); bytes > pageBytes {
			page.Partial = true
			break
		}
		page.Entries = append(page.Entries, entry)
	}
	return page, err
}

// link returns a query string of pairs of names and values, without empty values.
func link(pairs ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v.Encode()
}
