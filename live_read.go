package keepcache

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/pagetree"
	"github.com/keepcache/keepcache/internal/store"
)

// read looks at a key. A damaged entry reads as absent, with the damage beside it.
func (l *live) read(at *ref, key string, _ bool) (r reading, err error) {
	switch {
	case l.isClosed():
		return r, errs.ErrClosed
	case !format.ValidName(at.name):
		return r, errs.ErrInvalidName
	case !format.ValidKey(key):
		return r, errs.ErrInvalidKey
	}
	t := newTail(at.name)
	t.only = key
	err = l.look(t, func(v *liveView) (err error) {
		r, err = l.readIn(v, v.id(), at.name, key)
		return err
	})
	if err != nil {
		return reading{}, err
	}
	return r, nil
}

// peek is read: without the lock nothing is kept of what was read.
func (l *live) peek(at *ref, key string, sliding bool) (reading, error) {
	return l.read(at, key, sliding)
}

// readIn looks at a key of the bucket, which has the given id, in one state of the cache.
func (l *live) readIn(v *liveView, id uint64, bucket, key string) (r reading, err error) {
	r = reading{file: true, id: id}
	if id == 0 {
		return r, nil
	}
	rec, known := v.tail.find(id, key, v.mark)
	if !known {
		entries, err := v.entries(id)
		if err != nil {
			return r, err
		}
		stored, _, err := entries.Get([]byte(key))
		if err != nil || stored == nil {
			return r, err
		}
		_, rec = format.SplitRow(stored, []byte(key))
	}
	if rec == nil {
		return r, nil
	}
	if _, _, r.damage = format.OpenStored(rec, format.BucketSum(bucket), key); r.damage != nil {
		return r, nil
	}
	if err := l.learnTags(v, format.OptionBytes(rec)); err != nil {
		return r, err
	}
	r.take(&l.judge, rec, v.began)
	r.seen.Revision = r.header.Revision
	return r, nil
}

// learnTags enters into the table of tags what the view says of those in a record's options. An invalidation stays
// true, so what was learnt once needs no other look.
func (l *live) learnTags(v *liveView, options []byte) error {
	l.tags.raise(v.floor)
	if len(options) == 0 {
		return nil
	}
	return v.invalidated(format.ReadOptions(options).Tags, l.tags.put)
}

// scan hands what is stored under keys that begin with prefix and are not less than from to fn, in the order of the keys, a page at a
// time, until fn returns false. Each page is of one moment.
func (l *live) scan(at *ref, from, prefix string, fn func([]stored) bool) error {
	if !format.ValidName(at.name) {
		return errs.ErrInvalidName
	}
	t := newTail(at.name)
	t.prefix = prefix
	sum := format.BucketSum(at.name)
	id := uint64(0)
	for first, more := true, true; more; first = false {
		if l.isClosed() {
			return errs.ErrClosed
		}
		var page []stored
		var next string
		now := uint64(0)
		err := l.look(t, func(v *liveView) (err error) {
			page, next, more = nil, from, false
			if now = v.id(); now == 0 || !first && now != id {
				return nil
			}
			var items []store.Item
			if items, more, err = v.page(now, from, prefix); err != nil {
				return err
			}
			for _, it := range items {
				key := string(it.Key)
				next = key + "\x00" // the least key after it
				if _, _, err := format.OpenStored(it.Record, sum, key); err != nil {
					page = append(page, stored{key: key, damage: err})
					continue
				}
				if err := l.learnTags(v, format.OptionBytes(it.Record)); err != nil {
					return err
				}
				page = append(page, storedAs(key, it.Record, 0, v.began))
			}
			return nil
		})
		if err != nil {
			return err
		}
		// A Clear in the middle ends the range, as it does everywhere.
		if !first && now != id || !fn(page) {
			return nil
		}
		id, from = now, next
	}
	return nil
}

// page returns the entries of a bucket from key from on, as long as they begin with prefix, journal and file in one, and
// whether more may follow.
func (v *liveView) page(id uint64, from, prefix string) (items []store.Item, more bool, err error) {
	entries, err := v.entries(id)
	if err != nil {
		return nil, false, err
	}
	late := v.tail.keys(id, from)
	size := 0
	full := func() bool { return len(items) >= store.PageItems || size >= store.PageBytes }
	add := func(key, record []byte) {
		items = append(items, store.Item{Key: key, Record: record})
		size += len(key) + len(record)
	}
	// before adds what the journal has of keys up to one that the file has, and reports whether it has that one too.
	before := func(key string) (same bool) {
		for len(late) > 0 && late[0] <= key && !full() {
			record, known := v.tail.find(id, late[0], v.mark)
			if known {
				same = late[0] == key
				if record != nil {
					add([]byte(late[0]), record)
				}
			}
			late = late[1:]
		}
		return same
	}
	err = entries.Scan([]byte(from), func(e *pagetree.Element) (bool, error) {
		if !bytes.HasPrefix(e.Key, []byte(prefix)) {
			return false, nil
		}
		same := before(string(e.Key))
		if full() && !same {
			more = true
			return false, nil
		}
		if same {
			return true, nil
		}
		value, err := e.Value()
		if err != nil {
			return false, err
		}
		_, rec := format.SplitRow(bytes.Clone(value), e.Key)
		add(bytes.Clone(e.Key), rec)
		return true, nil
	})
	if err == nil && !more {
		for len(late) > 0 && !full() {
			before(late[0])
		}
		more = len(late) > 0
	}
	return items, more, err
}

// bucketsLive returns the ids of all buckets by name.
func (v *liveView) bucketsLive() (map[string]uint64, error) {
	ids := make(map[string]uint64)
	names, _, err := v.tree.Root().Bucket(format.BucketsBucket)
	if err == nil {
		err = names.Scan(nil, func(e *pagetree.Element) (bool, error) {
			id, err := e.Value()
			ids[string(e.Key)] = format.ReadUint64(id)
			return true, err
		})
	}
	for name, n := range v.tail.names {
		if n.revision > v.mark {
			ids[name] = n.id
		}
	}
	for name, id := range ids {
		if id == 0 {
			delete(ids, name)
		}
	}
	return ids, err
}

// bucketNames returns the names of all buckets in their order.
func (l *live) bucketNames() (found []string, err error) {
	err = l.look(newTail(""), func(v *liveView) error {
		ids, err := v.bucketsLive()
		found = slices.Sorted(maps.Keys(ids))
		return err
	})
	return found, err
}

// standing says what file and journal tell: how the cache stands, and nothing of what it did. After shut, and where they cannot be read, it
// is empty.
func (l *live) standing() (s standing) {
	if l.isClosed() {
		return s
	}
	t := newTail("")
	t.all, t.sizes = true, true
	if l.look(t, func(v *liveView) (err error) {
		s, err = v.standing()
		return err
	}) != nil {
		return standing{}
	}
	return s
}

func (v *liveView) standing() (s standing, err error) {
	ids, err := v.bucketsLive()
	if err != nil {
		return s, err
	}
	usageRows, _, err := v.tree.Root().Bucket(format.UsageBucket)
	if err != nil {
		return s, err
	}
	s.buckets = make(map[string]bucketUse, len(ids))
	costsRows, _, err := v.tree.Root().Bucket(format.CostsBucket)
	if err != nil {
		return s, err
	}
	page := cost.Paging(v.meta.PageSize())
	named := make(map[uint64]bool, len(ids))
	late := v.tail.pending(v.mark)
	for name, id := range ids {
		row, _, err := usageRows.Get(format.Uint64(id))
		if err != nil {
			return s, err
		}
		change, err := v.change(late, id)
		if err != nil {
			return s, err
		}
		costs, _, err := costsRows.Get(format.Uint64(id))
		if err != nil {
			return s, err
		}
		u := page.ReadUsage(format.Uint64(id), row, costs)
		s.cost += u.Cost() + page.Bucket(u) + page.Name(len(name))
		u = u.After(change)
		s.buckets[name] = bucketUse{u.Entries, u.Bytes, u.Cost()}
		s.entries += u.Entries
		s.bytes += u.Bytes
		named[id] = true
	}
	s.fileBytes = v.meta.Bytes()
	s.memory.PinnedBytes = v.tail.pieces
	return s, v.sweepStats(&s.sweep, named)
}

// sweepStats says what the sweeper has still to do.
func (v *liveView) sweepStats(s *sweepStats, named map[uint64]bool) error {
	expiry, _, err := v.tree.Root().Bucket(format.ExpiryBucket)
	if err != nil {
		return err
	}
	err = expiry.Scan(nil, func(e *pagetree.Element) (bool, error) {
		if row, _, _, ok := format.SplitExpiryKey(e.Key); ok {
			s.Lag = format.Overdue(row, time.Now())
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	return v.unnamed(named, func(uint64) { s.Pending++ })
}

// unnamed calls fn with each id that has entries in the file and no name.
func (v *liveView) unnamed(named map[uint64]bool, fn func(id uint64)) error {
	all, _, err := v.tree.Root().Bucket(format.EntriesBucket)
	if err != nil {
		return err
	}
	return all.Scan(nil, func(e *pagetree.Element) (bool, error) {
		if e.IsBucket() && len(e.Key) == 8 && !named[format.ReadUint64(e.Key)] {
			fn(format.ReadUint64(e.Key))
		}
		return true, nil
	})
}

// change is pending.change beside the process that has the file open.
func (v *liveView) change(p *cost.Pending, id uint64) (cost.Usage, error) {
	if len(p.Keys[id]) == 0 {
		return cost.Usage{}, nil
	}
	entries, err := v.entries(id)
	if err != nil {
		return cost.Usage{}, err
	}
	return p.Change(id, func(key string) (size int64, err error) {
		// Get would read the value too.
		err = entries.Scan([]byte(key), func(e *pagetree.Element) (bool, error) {
			if string(e.Key) == key {
				size = int64(len(key)) + max(e.Size()-format.RowSize, 0)
			}
			return false, nil
		})
		return size, err
	})
}

// soonest returns the live entries that end first, the soonest first, n at most: of all buckets, or of those that are named. It is of one
// moment.
func (l *live) soonest(n int, buckets []string) (found []ending, err error) {
	t := newTail("")
	t.all = true
	err = l.look(t, func(v *liveView) error {
		ids, err := v.bucketsLive()
		if err != nil {
			return err
		}
		names := make(map[uint64]string)
		for name, id := range ids {
			if len(buckets) == 0 || slices.Contains(buckets, name) {
				names[id] = name
			}
		}
		rows, err := v.rows(soonestLookFree + soonestLookEach*n)
		if err != nil {
			return err
		}
		var late soonestRows
		t.soonest(n, names, v.mark, &late)
		found, err = soonestOf(n, names, append(rows, late...), func(id uint64, bucket, key string) (reading, error) {
			return l.readIn(v, id, bucket, key)
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
