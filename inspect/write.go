package inspect

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/jsontext"
	"github.com/keepcache/keepcache/internal/wire"
)

func (s *server) set(w http.ResponseWriter, r *http.Request) (any, error) {
	b, value, err := s.toStore(w, r)
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.store(b, func(c *keepcache.Bucket, ttl time.Duration) (bool, error) {
		return true, c.Set(string(b.Key), value, ttl)
	})
}

func (s *server) add(w http.ResponseWriter, r *http.Request) (any, error) {
	b, value, err := s.toStore(w, r)
	if err != nil {
		return nil, err
	}
	added := false
	err = s.store(b, func(c *keepcache.Bucket, ttl time.Duration) (_ bool, err error) {
		if added { // with a deadline that was a little late
			return true, c.Set(string(b.Key), value, ttl)
		}
		added, err = c.Add(string(b.Key), value, ttl)
		return added, err
	})
	return wire.Found{Found: !added}, err
}

// toStore reads what is to be stored.
func (s *server) toStore(w http.ResponseWriter, r *http.Request) (b wire.Write, value any, err error) {
	if b, err = body(w, r); err != nil {
		return b, nil, err
	}
	switch {
	case b.Bytes != nil && b.Value != nil:
		return b, nil, badRequest("there are both value and bytes")
	case b.Bytes != nil:
		return b, b.Bytes, nil
	case b.Value == nil:
		return b, nil, badRequest("there is no value")
	}
	n, err := jsontext.Parse(b.Value)
	if err != nil {
		return b, nil, badRequest("the value: %w", err)
	}
	return b, n.Stored(b.Value, &jsontext.Literals{Places: slices.Clone(b.Literals)}), nil
}

// store has set store with the lifetime, or the deadline, that b names.
//
// The library takes a lifetime and rounds the deadline up to the millisecond, so for a deadline the lifetime given is
// most of a millisecond shorter; where even so too much time passed before the library looked at the clock, another
// try follows.
func (s *server) store(b wire.Write, set func(*keepcache.Bucket, time.Duration) (stored bool, err error)) error {
	c := s.db.Bucket(string(b.Bucket))
	if b.Expires == 0 {
		ttl, err := lifetime(b.TTL)
		if err != nil {
			return err
		}
		_, err = set(c, ttl)
		return err
	}
	const slack, tries = 900 * time.Microsecond, 20
	if b.TTL != 0 || b.Expires < 0 {
		return badRequest("expires_ms is %d and ttl_ms %d", b.Expires, b.TTL)
	}
	deadline := time.UnixMilli(b.Expires)
	for range tries {
		left := time.Until(deadline) // saturates
		if left <= slack {
			return fmt.Errorf("%w: the deadline has passed", keepcache.ErrInvalidTTL)
		}
		if stored, err := set(c, min(left-slack, keepcache.NoExpiry-1)); err != nil || !stored {
			return err
		}
		e, found, err := c.Look(string(b.Key))
		if err != nil || !found || !e.FreshUntil.After(deadline) {
			return nil
		}
	}
	return nil
}

// lifetime reads a lifetime as the protocol has it.
func lifetime(ms int64) (time.Duration, error) {
	switch {
	case ms == -1:
		return keepcache.NoExpiry, nil
	case ms < 0:
		return 0, keepcache.ErrInvalidTTL
	case ms > math.MaxInt64/int64(time.Millisecond):
		return keepcache.NoExpiry - 1, nil
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func (s *server) delete(w http.ResponseWriter, r *http.Request) (any, error) {
	b, err := body(w, r)
	if err != nil {
		return nil, err
	}
	found, err := s.db.Bucket(string(b.Bucket)).Delete(string(b.Key))
	return wire.Found{Found: found}, err
}

func (s *server) touch(w http.ResponseWriter, r *http.Request) (any, error) {
	b, err := body(w, r)
	if err != nil {
		return nil, err
	}
	ttl, err := lifetime(b.TTL)
	if err != nil {
		return nil, err
	}
	found, err := s.db.Bucket(string(b.Bucket)).Touch(string(b.Key), ttl)
	return wire.Found{Found: found}, err
}

func (s *server) invalidate(w http.ResponseWriter, r *http.Request) (any, error) {
	b, err := body(w, r)
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.db.InvalidateTag(string(b.Tag))
}

func (s *server) clear(w http.ResponseWriter, r *http.Request) (any, error) {
	b, err := body(w, r)
	if err != nil {
		return nil, err
	}
	bucket := s.db.Bucket(string(b.Bucket))
	var n int
	switch {
	case b.Prefix != "" && b.Drop:
		return nil, badRequest("prefix and drop exclude each other")
	case b.Prefix != "":
		n, err = bucket.DeletePrefix(r.Context(), string(b.Prefix))
		return wire.Removed{Removed: n}, err
	}
	if n, err = bucket.Len(); err != nil {
		return nil, err
	}
	if b.Drop {
		_, err = s.db.DropBucket(string(b.Bucket))
	} else {
		err = bucket.Clear(r.Context())
	}
	return wire.Removed{Removed: n}, err
}

func (s *server) sweep(_ http.ResponseWriter, r *http.Request) (any, error) {
	n, err := s.db.Sweep(r.Context())
	return wire.Removed{Removed: n}, err
}

func (s *server) compact(_ http.ResponseWriter, r *http.Request) (any, error) {
	before := s.db.Stats().FileBytes
	err := s.db.Compact(r.Context())
	return wire.Compacted{Before: before, After: s.db.Stats().FileBytes}, err
}

func (s *server) verify(_ http.ResponseWriter, r *http.Request) (any, error) {
	v, err := s.db.Verify(r.Context())
	report := wire.Report{
		Buckets: v.Buckets, Entries: v.Entries, Expired: v.Expired, Pending: v.Pending, Rows: v.Rows,
		Journal:  wire.ReportJournal{FileBytes: v.Journal.FileBytes, Entries: v.Journal.Entries, Removed: v.Journal.Removed},
		Problems: []string{}, More: v.More,
	}
	for _, p := range v.Problems {
		report.Problems = append(report.Problems, p.String())
	}
	return report, err
}

// backup sends a copy of the whole cache, values and all.
func (s *server) backup(w http.ResponseWriter, r *http.Request) (any, error) {
	if !s.o.ShowValues || s.o.Redact != nil {
		return nil, wire.ErrNoValues
	}
	w.Header().Set("Trailer", wire.ResultTrailer)
	w.Header().Set("Content-Type", "application/octet-stream")
	counted := &counter{w: w, control: http.NewResponseController(w)}
	err := s.db.Backup(r.Context(), counted)
	switch {
	case err == nil:
		w.Header().Set(wire.ResultTrailer, "ok")
	case counted.n == 0:
		w.Header().Del("Trailer")
		return nil, err
	default:
		f, _ := wire.FailureOf(err)
		text, _ := json.Marshal(f)
		w.Header().Set(wire.ResultTrailer, string(text))
	}
	return nil, nil
}

// counter counts what is written, to a reader who must not stall: a copy that is under way keeps old pages alive.
type counter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	n       int64
}

func (c *counter) Write(p []byte) (int, error) {
	_ = c.control.SetWriteDeadline(time.Now().Add(streamStall)) // where the server can; else its own holds
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
