package inspect

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/jsonpack"
	"github.com/keepcache/keepcache/internal/wire"
)

func (s *server) set(v *visit) (any, error) {
	b, value, err := v.toStore()
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.store(b, func(c *keepcache.Bucket, ttl time.Duration) (bool, error) {
		return true, c.Set(string(b.Key), value, ttl)
	})
}

func (s *server) add(v *visit) (any, error) {
	b, value, err := v.toStore()
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

// toStore reads what is to be stored. Its text is turned into what is stored by the library, which stops where that is
// larger than it takes.
func (v *visit) toStore() (b write, value any, err error) {
	if b, err = v.body(); err != nil {
		return b, nil, err
	}
	switch {
	case b.Bytes != nil && b.value != nil:
		return b, nil, badRequest("there are both value and bytes")
	case b.Bytes != nil:
		return b, b.Bytes, nil
	case b.value == nil:
		return b, nil, badRequest("there is no value")
	}
	slices.Sort(b.Literals)
	return b, &jsonpack.Text{JSON: b.value, Literals: b.Literals}, nil
}

// store has set store with the lifetime, or the deadline, that b names.
//
// The library takes a lifetime and rounds the deadline up to the millisecond, so for a deadline the lifetime given is
// most of a millisecond shorter; where even so too much time passed before the library looked at the clock, another
// try follows.
func (s *server) store(b write, set func(*keepcache.Bucket, time.Duration) (stored bool, err error)) error {
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

func (s *server) delete(v *visit) (any, error) {
	b, err := v.body()
	if err != nil {
		return nil, err
	}
	found, err := s.db.Bucket(string(b.Bucket)).Delete(string(b.Key))
	return wire.Found{Found: found}, err
}

func (s *server) touch(v *visit) (any, error) {
	b, err := v.body()
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

func (s *server) invalidate(v *visit) (any, error) {
	b, err := v.body()
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.db.InvalidateTag(string(b.Tag))
}

func (s *server) clear(v *visit) (any, error) {
	b, err := v.body()
	if err != nil {
		return nil, err
	}
	bucket := s.db.Bucket(string(b.Bucket))
	var n int
	switch {
	case b.Prefix != "" && b.Drop:
		return nil, badRequest("prefix and drop exclude each other")
	case b.Prefix != "":
		n, err = bucket.DeletePrefix(v.ctx, string(b.Prefix))
		return wire.Removed{Removed: n}, err
	}
	if n, err = bucket.Len(); err != nil {
		return nil, err
	}
	if b.Drop {
		_, err = s.db.DropBucket(string(b.Bucket))
	} else {
		err = bucket.Clear(v.ctx)
	}
	return wire.Removed{Removed: n}, err
}

func (s *server) sweep(v *visit) (any, error) {
	n, err := s.db.Sweep(v.ctx)
	return wire.Removed{Removed: n}, err
}

func (s *server) compact(v *visit) (any, error) {
	before := s.db.Stats().FileBytes
	err := s.db.Compact(v.ctx)
	return wire.Compacted{Before: before, After: s.db.Stats().FileBytes}, err
}

func (s *server) verify(v *visit) (any, error) {
	found, err := s.db.Verify(v.ctx)
	report := wire.Report{
		Buckets: found.Buckets, Entries: found.Entries, Expired: found.Expired, Pending: found.Pending, Rows: found.Rows,
		Journal:  wire.ReportJournal{FileBytes: found.Journal.FileBytes, Entries: found.Journal.Entries, Removed: found.Journal.Removed},
		Problems: []string{}, More: found.More,
	}
	for _, p := range found.Problems {
		report.Problems = append(report.Problems, p.String())
	}
	return report, err
}

// backup sends a copy of the whole cache, values and all. It changes nothing, so it is for who may see them.
func (s *server) backup(v *visit) (any, error) {
	if !s.o.ShowValues || s.o.Redact != nil {
		return nil, wire.ErrNoValues
	}
	v.w.Header().Set("Trailer", wire.ResultTrailer)
	v.w.Header().Set("Content-Type", "application/octet-stream")
	// The reader must not stall, but may take his time.
	out := &patient{w: v.w, control: v.control}
	err := s.db.Backup(v.ctx, out)
	switch {
	case err == nil:
		v.w.Header().Set(wire.ResultTrailer, "ok")
	case out.n == 0:
		v.w.Header().Del("Trailer")
		return nil, err
	default:
		f, _ := wire.FailureOf(err)
		text, _ := json.Marshal(f)
		v.w.Header().Set(wire.ResultTrailer, string(text))
	}
	return nil, nil
}
