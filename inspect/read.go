package inspect

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
	"github.com/keepcache/keepcache/internal/glob"
	"github.com/keepcache/keepcache/internal/jsontext"
	"github.com/keepcache/keepcache/internal/wire"
)

// Bounds of the work for one page of keys. What is beyond is for the next page.
const (
	defaultLimit  = 100
	pageLooks     = 200_000 // entries looked at
	pageTime      = 250 * time.Millisecond
	pageBytes     = 4 << 20 // of values
	mostPattern   = 1024    // bytes of a pattern: matching takes as many steps a character of a key at worst
	pageEvery     = 1024    // entries of a page between two looks at the clock, so that it has some on a slow day too
	lookEvery     = 64      // the same for walks that take what time they are given
	biggestTime   = 2 * time.Second
	mostRanked    = 1000 // of biggest and soonest
	defaultRanked = 20
)

// query is what a request asks for.
type query struct {
	bucket, prefix, tag, after, key string

	match  *glob.Glob
	none   bool // nothing can match
	limit  int
	values bool
}

func (s *server) query(r *http.Request) (q query, err error) {
	v := r.URL.Query()
	q = query{
		bucket: v.Get("bucket"), prefix: v.Get("prefix"), tag: v.Get("tag"), after: v.Get("after"), key: v.Get("key"),
		values: v.Get("values") == "1",
	}
	if pattern := v.Get("glob"); pattern != "" {
		if len(pattern) > mostPattern {
			return q, badRequest("the pattern is longer than %d bytes", mostPattern)
		}
		if q.match, err = glob.Parse(pattern); err != nil {
			return q, badRequest("the pattern: %w", err)
		}
		q.prefix, q.none = narrower(q.prefix, q.match.Prefix)
	}
	if text := v.Get("limit"); text != "" {
		if q.limit, err = strconv.Atoi(text); err != nil || q.limit < 1 {
			return q, badRequest("limit is %.20q", text)
		}
	}
	return q, nil
}

// narrower returns the one of two prefixes that begins with the other, or that no key begins with both.
func narrower(a, b string) (prefix string, none bool) {
	if len(a) < len(b) {
		a, b = b, a
	}
	return a, a[:len(b)] != b
}

// named is query for requests that speak of one bucket, which is the default one if none is named.
func (s *server) named(r *http.Request) (q query, err error) {
	if q, err = s.query(r); err == nil && q.bucket == "" {
		q.bucket = keepcache.DefaultBucket
	}
	return q, err
}

func (s *server) stats(http.ResponseWriter, *http.Request) (any, error) {
	return wire.StatsOf(s.db.Stats(), time.Now()), nil
}

func (s *server) buckets(http.ResponseWriter, *http.Request) (any, error) {
	return wire.Buckets{Buckets: wire.BucketsOf(s.db.Stats())}, nil
}

func (s *server) keys(_ http.ResponseWriter, r *http.Request) (any, error) {
	q, err := s.named(r)
	if err != nil {
		return nil, err
	}
	page, err := s.page(r.Context(), q)
	if err == nil && page.Looked == 0 { // only then, because the list of all buckets may be long
		err = s.known(q.bucket)
	}
	return page, err
}

// known refuses a bucket that there is not, except for the default one, which every cache may be said to have.
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

// page returns a page of a bucket's entries.
func (s *server) page(ctx context.Context, q query) (wire.Keys, error) {
	page := wire.Keys{Entries: []wire.Entry{}}
	if q.none {
		return page, nil
	}
	if q.limit == 0 {
		q.limit = min(defaultLimit, s.o.PageEntries)
	}
	q.limit = min(q.limit, s.o.PageEntries)
	begun, last, bytes := time.Now(), "", 0
	stop := func() {
		next := wire.Name(last)
		page.Next = &next
	}
	for e, err := range s.db.Bucket(q.bucket).After(q.after, q.prefix) {
		if len(page.Entries) == q.limit || bytes >= pageBytes {
			stop() // here is one more
			break
		}
		page.Looked++
		switch {
		case errors.Is(err, keepcache.ErrCorrupt) && e.Key != "":
			page.Damaged++
		case err != nil:
			return page, err
		case q.match != nil && !q.match.Match(e.Key), q.tag != "" && !slices.Contains(e.Tags, q.tag):
		default:
			entry := wire.EntryOf(q.bucket, e)
			if q.values {
				s.value(&entry, e)
				bytes += len(entry.Value)
			}
			page.Entries = append(page.Entries, entry)
		}
		last = e.Key
		if page.Looked%pageEvery == 0 {
			if err := ctx.Err(); err != nil {
				return page, err
			}
			if page.Looked >= pageLooks || time.Since(begun) > pageTime {
				stop()
				break
			}
		}
	}
	return page, nil
}

// value puts the value of e into an answer, as far as it may be shown.
func (s *server) value(w *wire.Entry, e keepcache.Entry) {
	if !s.o.ShowValues {
		w.Hidden = true
		return
	}
	n, err := jsontext.Of(e)
	if err != nil {
		w.Hidden = true // the record was proved, so this does not happen
		return
	}
	var l jsontext.Literals
	text := n.Append(nil, &l)
	if s.o.Redact != nil {
		shown := s.redact(string(w.Bucket), e.Key, text)
		if shown == nil {
			w.Hidden = true
			return
		}
		if string(shown) != string(text) {
			text, l.Places, w.Redacted = shown, nil, true
		}
	}
	w.Value, w.Literals = text, l.Places
}

// redact asks the program what to show of a value. What is no JSON shows nothing.
func (s *server) redact(bucket, key string, text []byte) (shown []byte) {
	defer func() {
		if recover() != nil {
			shown = nil
		}
	}()
	shown = s.o.Redact(bucket, key, slices.Clone(text))
	if !json.Valid(shown) {
		return nil
	}
	return shown
}

func (s *server) entry(_ http.ResponseWriter, r *http.Request) (any, error) {
	q, err := s.named(r)
	if err != nil {
		return nil, err
	}
	e, err := s.find(q)
	if err != nil {
		return nil, err
	}
	entry := wire.EntryOf(q.bucket, e)
	if q.values {
		s.value(&entry, e)
	}
	return entry, nil
}

// find returns the entry that a request names.
func (s *server) find(q query) (keepcache.Entry, error) {
	e, found, err := s.db.Bucket(q.bucket).Look(q.key)
	if err == nil && !found {
		err = fmt.Errorf("no key %s in bucket %s: %w", display.Name(q.key), display.Name(q.bucket), keepcache.ErrNotFound)
	}
	return e, err
}

func (s *server) exists(_ http.ResponseWriter, r *http.Request) (any, error) {
	q, err := s.named(r)
	if err != nil {
		return nil, err
	}
	e, found, err := s.db.Bucket(q.bucket).Look(q.key)
	if errors.Is(err, keepcache.ErrCorrupt) {
		err = nil // absent to all who do not look closely
	}
	fresh := found && (e.FreshUntil.IsZero() || time.Now().Before(e.FreshUntil))
	return wire.Found{Found: fresh}, err
}

func (s *server) soonest(_ http.ResponseWriter, r *http.Request) (any, error) {
	q, err := s.query(r)
	if err != nil {
		return nil, err
	}
	var names []string
	if q.bucket != "" {
		names = []string{q.bucket}
	}
	found, err := s.db.Soonest(ranked(q.limit), names...)
	page := wire.Keys{Entries: []wire.Entry{}, Looked: int64(len(found))}
	for _, e := range found {
		page.Entries = append(page.Entries, wire.EntryOf(e.Bucket, e.Entry))
	}
	return page, err
}

func ranked(limit int) int {
	if limit == 0 {
		return defaultRanked
	}
	return min(limit, mostRanked)
}

func (s *server) biggest(_ http.ResponseWriter, r *http.Request) (any, error) {
	q, err := s.query(r)
	if err != nil {
		return nil, err
	}
	names := []string{q.bucket}
	if q.bucket == "" {
		names, err = s.db.Buckets()
	}
	page := wire.Keys{}
	top, begun := ranking{most: ranked(q.limit)}, time.Now()
	for _, name := range names {
		if page.Partial = page.Partial || time.Since(begun) > biggestTime; err != nil || page.Partial {
			break
		}
		if err := r.Context().Err(); err != nil {
			return nil, err
		}
		for e, err := range s.db.Bucket(name).All() {
			page.Looked++
			switch {
			case errors.Is(err, keepcache.ErrCorrupt) && e.Key != "":
				page.Damaged++
			case err != nil:
				return nil, err
			default:
				top.add(name, e)
			}
			if page.Looked%lookEvery == 0 {
				if err := r.Context().Err(); err != nil {
					return nil, err
				}
				if page.Partial = time.Since(begun) > biggestTime; page.Partial {
					break
				}
			}
		}
	}
	page.Entries = top.entries
	if page.Entries == nil {
		page.Entries = []wire.Entry{}
	}
	return page, err
}

// ranking holds the entries with the largest values, the largest first.
type ranking struct {
	most    int
	entries []wire.Entry
}

func (k *ranking) add(bucket string, e keepcache.Entry) {
	if n := len(k.entries); n == k.most {
		if e.Size <= k.entries[n-1].Size {
			return
		}
		k.entries = k.entries[:n-1]
	}
	at, _ := slices.BinarySearchFunc(k.entries, e.Size, func(w wire.Entry, size int) int {
		if w.Size == size {
			return -1
		}
		return cmp.Compare(size, w.Size)
	})
	k.entries = slices.Insert(k.entries, at, wire.EntryOf(bucket, e))
}

// link returns a query string of pairs of names and values, without those that are empty.
func link(pairs ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v.Encode()
}
