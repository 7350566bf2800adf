package inspect

import (
	"encoding/json"
	"math"
	"slices"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/jsonpack"
	"github.com/keepcache/keepcache/internal/rewrite"
	"github.com/keepcache/keepcache/internal/wire"
)

// set stores a value. It keeps the other properties of an existing entry, unless the request changes them or they
// belong to the old value.
func (s *server) set(v *visit) (any, error) {
	b, value, err := v.toStore()
	if err != nil {
		return nil, err
	}
	until, ttl, err := b.deadline()
	if err != nil {
		return nil, err
	}
	r := rewrite.Write{Key: string(b.Key), Value: value, TTL: ttl, Until: until, Tags: b.TagList(), Retag: b.Tags != nil}
	c := s.db.Bucket(string(b.Bucket))
	if err := v.enter(); err != nil {
		return nil, err
	}
	v.collect()
	v.copied(r.Look(c))
	v.leave() // a write may have to wait
	return struct{}{}, r.Set(c)
}

func (s *server) add(v *visit) (any, error) {
	b, value, err := v.toStore()
	if err != nil {
		return nil, err
	}
	until, ttl, err := b.deadline()
	if err != nil {
		return nil, err
	}
	c := s.db.Bucket(string(b.Bucket)).WithTags(b.TagList()...)
	added := false
	if until.IsZero() {
		added, err = c.Add(string(b.Key), value, ttl)
	} else {
		added, err = c.AddUntil(string(b.Key), value, until)
	}
	return wire.Found{Found: !added}, err
}

// restore stores an entry exactly as the request says.
func (s *server) restore(v *visit) (any, error) {
	b, value, err := v.toStore()
	if err != nil {
		return nil, err
	}
	if b.TTL != 0 || min(b.ExpiresAt, b.WrittenAt, b.LoadedAt, b.RetryAt) < 0 || b.StaleUntil < -1 {
		return nil, badRequest("a time is negative, or there is a ttl_ms")
	}
	return struct{}{}, s.db.Bucket(string(b.Bucket)).Restore(b.Entry(), value)
}

// toStore returns the value to store. The library encodes its text, and stops when the encoding becomes too large.
func (v *visit) toStore() (b write, value any, err error) {
	if b, err = v.body(); err != nil {
		return b, nil, err
	}
	switch {
	case b.Bytes != nil && b.value != nil:
		return b, nil, badRequest("the body has both value and bytes")
	case b.Bytes != nil:
		return b, b.Bytes, nil
	case b.value == nil:
		return b, nil, badRequest("the body has no value")
	}
	slices.Sort(b.Literals)
	return b, &jsonpack.Text{JSON: b.value, Literals: b.Literals}, nil
}

// deadline returns when the entry expires, or a zero time and its lifetime.
func (b *write) deadline() (until time.Time, ttl time.Duration, err error) {
	if b.ExpiresAt == 0 {
		ttl, err = lifetime(b.TTL)
		return until, ttl, err
	}
	if b.TTL != 0 || b.ExpiresAt < 0 {
		return until, 0, badRequest("expires_at_ms is %d and ttl_ms %d", b.ExpiresAt, b.TTL)
	}
	return time.UnixMilli(b.ExpiresAt), 0, nil
}

// lifetime converts a lifetime of the protocol.
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
	until, ttl, err := b.deadline()
	if err != nil {
		return nil, err
	}
	var found bool
	if bucket := s.db.Bucket(string(b.Bucket)); until.IsZero() {
		found, err = bucket.Touch(string(b.Key), ttl)
	} else {
		found, err = bucket.TouchUntil(string(b.Key), until)
	}
	return wire.Found{Found: found}, err
}

func (s *server) increment(v *visit) (any, error) {
	b, err := v.body()
	if err != nil {
		return nil, err
	}
	ttl, err := lifetime(b.TTL)
	if err != nil {
		return nil, err
	}
	sum, err := s.db.Bucket(string(b.Bucket)).Increment(string(b.Key), b.By, ttl)
	return wire.Sum{Sum: sum}, err
}

func (s *server) invalidate(v *visit) (any, error) {
	b, err := v.body()
	if err != nil {
		return nil, err
	}
	if b.Tags == nil || len(*b.Tags) == 0 {
		return nil, badRequest("the body has no tags")
	}
	return struct{}{}, s.db.InvalidateTags(b.TagList()...)
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
		return nil, badRequest("prefix and drop cannot be used together")
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
		Journal: wire.ReportJournal{FileBytes: found.Journal.FileBytes, Entries: found.Journal.Entries,
			Removed: found.Journal.Removed},
		Problems: []string{}, More: found.More,
	}
	for _, p := range found.Problems {
		report.Problems = append(report.Problems, p.String())
	}
	return report, err
}

// backup sends a copy of the whole cache, including values. It changes nothing, so it requires only that values are
// shown.
func (s *server) backup(v *visit) (any, error) {
	if !s.o.ShowValues || s.o.Redact != nil {
		return nil, wire.ErrNoValues
	}
	v.w.Header().Set("Trailer", wire.ResultTrailer)
	v.w.Header().Set("Content-Type", "application/octet-stream")
	// The client must keep reading, but may read slowly.
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
