package keepcache

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/pagetree"
	"github.com/keepcache/keepcache/internal/store"
)

// BucketEntry is an entry and the bucket that it is in.
type BucketEntry struct {
	Bucket string
	Entry
}

// Bounds of Soonest. Rows of the expiry index may be earlier than their entry's end, so some are looked at in vain.
const (
	mostSoonest     = 1000
	soonestLookFree = 1024 // rows
	soonestLookEach = 8
)

// Soonest returns the live entries whose lifetime ends first, the soonest first, as many as n and 1,000 at most: of
// all buckets, or of those that are named. It reads the expiry index and no other entries, and looks at a bounded
// number of rows: where most rows are out of date, because lifetimes were prolonged, or are of other buckets, it
// returns fewer than there are, and where more than a thousand entries end within one second, it may miss the soonest
// of these. An entry that may be served stale ends when it may not be any more. The entries come without their values,
// which together may be large; Look has them.
func (db *DB) Soonest(n int, buckets ...string) ([]BucketEntry, error) {
	if db.closed.Load() {
		return nil, db.fail("soonest", "", ErrClosed)
	}
	n = min(n, mostSoonest)
	if n <= 0 {
		return nil, nil
	}
	if db.live != nil {
		found, err := db.soonestLive(n, buckets)
		if err != nil {
			return nil, db.fail("soonest", "", err)
		}
		return found, nil
	}
	names := make(map[uint64]*Bucket)
	all, err := db.Buckets()
	if err != nil {
		return nil, err
	}
	for _, name := range all {
		if len(buckets) > 0 && !slices.Contains(buckets, name) {
			continue
		}
		if ns := db.namespace(name); ns != nil {
			if id := ns.id.Load(); id != 0 {
				names[id] = db.Bucket(name)
			}
		}
	}
	rows, err := db.store.ExpiryRows(soonestLookFree + soonestLookEach*n)
	if err != nil {
		return nil, db.fail("soonest", "", err)
	}
	// Memory knows first of what was written last.
	rows = append(rows, soonestPinned(db.memory, n, names)...)
	return soonestOf(n, names, rows, func(b *Bucket, _ uint64, key string) (reading, error) {
		r, err := b.peek(key)
		if err != nil {
			return r, b.fail("soonest", key, err)
		}
		return r, nil
	})
}

// soonestLive is Soonest for a DB that is open with Options.NoLock. It is of one moment.
func (db *DB) soonestLive(n int, buckets []string) (found []BucketEntry, err error) {
	t := newTail("")
	t.all = true
	err = db.live.read(t, func(v *liveView) error {
		ids, err := v.bucketsLive()
		if err != nil {
			return err
		}
		names := make(map[uint64]*Bucket)
		for name, id := range ids {
			if len(buckets) == 0 || slices.Contains(buckets, name) {
				names[id] = db.Bucket(name)
			}
		}
		rows, err := v.rows(soonestLookFree + soonestLookEach*n)
		if err != nil {
			return err
		}
		rows = append(rows, t.soonest(n, names, v.mark)...)
		found, err = soonestOf(n, names, rows, func(b *Bucket, id uint64, key string) (reading, error) {
			return b.readIn(v, id, key)
		})
		return err
	})
	return found, err
}

// rows returns the first rows of the expiry index, as many as limit.
func (v *liveView) rows(limit int) (rows []store.ExpiryRow, err error) {
	expiry, _, err := v.tree.Root().Bucket(format.ExpiryBucket)
	if err != nil {
		return nil, err
	}
	err = expiry.Scan(nil, func(e *pagetree.Element) (bool, error) {
		if row, id, key, ok := format.SplitExpiryKey(e.Key); ok {
			rows = append(rows, store.ExpiryRow{At: row, ID: id, Key: bytes.Clone(key)})
		}
		return len(rows) < limit, nil
	})
	return rows, err
}

// soonestRows returns the first n rows, in their order.
func soonestRows(rows []store.ExpiryRow, n int) []store.ExpiryRow {
	slices.SortFunc(rows, func(a, b store.ExpiryRow) int { return cmp.Compare(a.At, b.At) })
	return rows[:min(len(rows), n)]
}

// soonestOf returns the first n live entries of those that rows speak of, which are not later than their entries' ends.
// names are the buckets by their ids; rows of others are left out.
func soonestOf(n int, names map[uint64]*Bucket, rows []store.ExpiryRow, look func(b *Bucket, id uint64, key string) (reading, error)) ([]BucketEntry, error) {
	rows = soonestRows(rows, len(rows))
	var found []BucketEntry
	seen := make(map[format.EntryKey]bool)
	byEnd := func(a, b BucketEntry) int { return a.GoneAt.Compare(b.GoneAt) }
	for _, d := range rows {
		// No row is later than its entry's end, so what follows cannot come before what there is.
		if len(found) >= n && format.Time(d.At).After(found[n-1].GoneAt) {
			break
		}
		b, key := names[d.ID], string(d.Key)
		if b == nil || seen[format.EntryKey{ID: d.ID, Key: key}] {
			continue
		}
		seen[format.EntryKey{ID: d.ID, Key: key}] = true
		r, err := look(b, d.ID, key)
		if err != nil {
			return nil, err
		}
		if !r.live || r.header.GoneAt == format.Never {
			continue
		}
		e := BucketEntry{b.name, r.entry(key)}
		e.value = nil // a thousand of them may be large
		at, _ := slices.BinarySearchFunc(found, e, byEnd)
		found = slices.Insert(found, at, e)
		found = found[:min(len(found), n)]
	}
	return found, nil
}

// peek is read for those who only look: it is no use of the entry, and brings nothing into memory.
func (b *Bucket) peek(key string) (r reading, err error) {
	if b.db.live != nil {
		if r, err = b.readLive(key); err == nil && r.damage != nil {
			b.damaged(key, r.damage)
		}
		return r, err
	}
	r, err = b.peekAsOf(key, 0)
	if !r.fresh && r.header.Revision != 0 && err == nil && b.isDoubtful(key, &r) {
		r, err = b.peekAsOf(key, b.moment(key, r.id))
	}
	return r, err
}

func (b *Bucket) peekAsOf(key string, asOf int64) (r reading, err error) {
	ns := b.namespace()
	if ns == nil {
		return r, nil
	}
	if r.id = ns.id.Load(); r.id == 0 {
		return r, nil
	}
	r.seen = b.db.memory.Peek(b.db.memory.Hash(r.id, key), r.id, key)
	rec := r.seen.Record
	if !r.seen.Known {
		if rec, err = b.db.store.Record(r.id, key); err != nil || rec == nil {
			return r, err
		}
		if _, _, r.damage = format.OpenStored(rec, ns.sum, key); r.damage != nil {
			return r, nil
		}
	}
	if rec != nil {
		r.take(b.db, rec, asOf)
		r.seen.Revision = r.header.Revision
	}
	return r, nil
}

// Look is Stat for those who look from outside: it counts as no use of the entry, and a damaged entry, which every other
// read takes for absent, is the error ErrCorrupt.
func (b *Bucket) Look(key string) (entry Entry, found bool, err error) {
	switch {
	case b.db.closed.Load():
		err = ErrClosed
	case !format.ValidName(b.name):
		err = ErrInvalidName
	case !format.ValidKey(key):
		err = ErrInvalidKey
	}
	var r reading
	if err == nil {
		r, err = b.peek(key)
	}
	if err == nil {
		err = r.damage
	}
	if err != nil || !r.held || r.negative {
		return Entry{}, false, b.fail("look", key, err)
	}
	return r.entry(key), true, nil
}

// soonestPinned returns the pinned entries of the given buckets that end first, n at most, in no order.
func soonestPinned(m *memory.Tier, n int, ids map[uint64]*Bucket) (first []store.ExpiryRow) {
	m.EachPinned(func(p *memory.Pin) {
		if p.Stored != nil && p.GoneAt != format.Never && ids[p.ID] != nil {
			if first = append(first, store.ExpiryRow{At: p.GoneAt, ID: p.ID, Key: []byte(p.Key)}); len(first) >= 4*n {
				first = soonestRows(first, n)
			}
		}
	})
	return soonestRows(first, n)
}
