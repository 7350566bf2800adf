package keepcache

import (
	"errors"

	"github.com/keepcache/keepcache/internal/engine"
)

// BucketEntry is an entry and the bucket that it is in.
type BucketEntry struct {
	Bucket string
	Entry
}

// Expiring returns the live entries that expire next, the first one first: of all buckets, or of those that are named.
// It returns n of them and 1,000 at most; none if n is not positive. An entry that may be served stale counts by its
// StaleUntil. The entries come without their values, which together may be large; Bucket.Stat has them.
//
// It reads the expiry index, and looks at a bounded number of its rows and at no other entries. So it returns fewer
// entries than there are where most rows are out of date, because lifetimes were prolonged, or belong to other
// buckets; and where more than a thousand entries expire within one second, it may miss the first of these.
func (db *DB) Expiring(n int, buckets ...string) ([]BucketEntry, error) {
	if db.engine.Closed() {
		return nil, db.fail("list expiring", "", ErrClosed)
	}
	n = min(n, mostExpiring)
	if n <= 0 {
		return nil, nil
	}
	found, err := db.engine.Expiring(n, buckets)
	if at := (*engine.EntryError)(nil); errors.As(err, &at) {
		return nil, db.Bucket(at.Bucket).fail("list expiring", at.Key, at.Err)
	}
	if err != nil {
		return nil, db.fail("list expiring", "", err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	entries := make([]BucketEntry, len(found))
	for i := range found {
		f := &found[i]
		entries[i] = BucketEntry{f.Bucket, newEntry(f.Key, &f.Header, f.Options, nil)}
		entries[i].Size = f.Size
	}
	return entries, nil
}

// mostExpiring bounds how many entries Expiring returns.
const mostExpiring = 1000
