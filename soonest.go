package keepcache

// BucketEntry is an entry and the bucket that it is in.
type BucketEntry struct {
	Bucket string
	Entry
}

// Soonest returns the live entries whose lifetime ends first, the soonest first, as many as n and 1,000 at most: of
// all buckets, or of those that are named. It reads the expiry index and no other entries, and looks at a bounded
// number of rows: where most rows are out of date, because lifetimes were prolonged, or are of other buckets, it
// returns fewer than there are, and where more than a thousand entries end within one second, it may miss the soonest
// of these. An entry that may be served stale ends when it may not be any more. The entries come without their values,
// which together may be large; Look has them.
func (db *DB) Soonest(n int, buckets ...string) ([]BucketEntry, error) {
	if db.engine.Closed() {
		return nil, db.fail("soonest", "", ErrClosed)
	}
	n = min(n, mostSoonest)
	if n <= 0 {
		return nil, nil
	}
	found, err := db.engine.Soonest(n, buckets)
	if err != nil {
		return nil, db.fail("soonest", "", err)
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

// mostSoonest bounds how many entries Soonest returns.
const mostSoonest = 1000
