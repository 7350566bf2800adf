package lockless

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/keyrange"
	"github.com/keepcache/keepcache/internal/pagetree"
	"github.com/keepcache/keepcache/internal/store"
)

// Read reads a key. A damaged entry reads as absent, with Damage set.
func (l *Reader) Read(at *engine.Ref, key string, _ bool) (r engine.Reading, err error) {
	switch {
	case l.Closed():
		return r, errs.ErrClosed
	case !format.ValidName(at.Name):
		return r, errs.ErrInvalidName
	case !format.ValidKey(key):
		return r, errs.ErrInvalidKey
	}
	t := newTail(at.Name)
	t.onlyKey = key
	err = l.withView(t, func(v *view) (err error) {
		r, err = l.readIn(v, v.id(), at.Name, key)
		return err
	})
	if err != nil {
		return engine.Reading{}, err
	}
	return r, nil
}

// Peek is Read: without the lock nothing that was read is kept.
func (l *Reader) Peek(at *engine.Ref, key string, sliding bool) (engine.Reading, error) {
	return l.Read(at, key, sliding)
}

// readIn reads a key of the bucket with the given id in one state of the cache.
func (l *Reader) readIn(v *view, id uint64, bucket, key string) (r engine.Reading, err error) {
	r = engine.Reading{File: true, ID: id}
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
	if _, _, r.Damage = format.OpenStored(rec, format.BucketSum(bucket), key); r.Damage != nil {
		return r, nil
	}
	if err := l.learnTags(v, format.OptionBytes(rec)); err != nil {
		return r, err
	}
	r.Fill(&l.Judge, rec, v.began)
	r.Seen.Revision = r.Header.Revision
	return r, nil
}

// learnTags adds what the view knows of the tags in a record's options to the table of tags. An invalidation is never
// revoked, so the table is right even if the view turns out not to be.
func (l *Reader) learnTags(v *view, options []byte) error {
	l.RaiseFloor(v.floor)
	if len(options) == 0 {
		return nil
	}
	return v.invalidated(format.ReadOptions(options).Tags, l.Learn)
}

// Scan hands what is stored under the keys of a range to fn, in its order, a page at a time, until fn returns false.
// Each page is of one moment.
func (l *Reader) Scan(at *engine.Ref, scan engine.Scan, fn func([]engine.ScanEntry) bool) error {
	switch {
	case !format.ValidName(at.Name):
		return errs.ErrInvalidName
	case scan.Keys.Empty():
		return nil
	}
	t := newTail(at.Name)
	t.keys = scan.Keys
	sum := format.BucketSum(at.Name)
	id, rest := uint64(0), scan.Keys
	for first, more := true, true; more; first = false {
		if l.Closed() {
			return errs.ErrClosed
		}
		var page []engine.ScanEntry
		next := rest
		now := uint64(0)
		err := l.withView(t, func(v *view) (err error) {
			page, next, more = nil, rest, false
			if now = v.id(); now == 0 || !first && now != id {
				return nil
			}
			var items []item
			if items, more, err = v.page(now, rest); err != nil {
				return err
			}
			if n := len(items); n > 0 {
				next.After(items[n-1].key)
			}
			for _, it := range items {
				if _, _, err := format.OpenStored(it.record, sum, it.key); err != nil {
					page = append(page, engine.ScanEntry{Key: it.key, Damage: err})
					continue
				}
				if err := l.learnTags(v, format.OptionBytes(it.record)); err != nil {
					return err
				}
				f := engine.StoredAs(it.key, it.record, 0, v.began)
				if scan.NoValues {
					f.DropValue()
				}
				page = append(page, f)
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
		id, rest = now, next
	}
	return nil
}

// item is an entry as file or journal have it.
type item struct {
	key    string
	record []byte
}

// page returns the first entries of a range of a bucket, journal and file in one, and whether more may follow.
func (v *view) page(id uint64, r keyrange.Range) (items []item, more bool, err error) {
	entries, err := v.entries(id)
	if err != nil {
		return nil, false, err
	}
	late := v.tail.keysIn(id, r)
	size := 0
	full := func() bool { return len(items) >= store.PageItems || size >= store.PageBytes }
	add := func(key string, record []byte) {
		items = append(items, item{key, record})
		size += len(key) + len(record)
	}
	// before adds what the journal has of keys up to one that the file has, and reports whether it has that one too.
	before := func(key string) (same bool) {
		for len(late) > 0 && r.Compare(late[0], key) <= 0 && !full() {
			record, known := v.tail.find(id, late[0], v.mark)
			if known {
				same = late[0] == key
				if record != nil {
					add(late[0], record)
				}
			}
			late = late[1:]
		}
		return same
	}
	err = scanTree(entries, r, func(e *pagetree.Element) (bool, error) {
		key := string(e.Key)
		if !r.Contains(key) {
			return false, nil
		}
		same := before(key)
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
		add(key, rec)
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

// scanTree calls fn for the elements of a range in its order. It may go past its end.
func scanTree(entries pagetree.Bucket, r keyrange.Range, fn func(*pagetree.Element) (bool, error)) error {
	switch {
	case !r.Reverse:
		return entries.Scan([]byte(r.First), fn)
	case r.End == "":
		return entries.ScanBack(nil, fn)
	}
	return entries.ScanBack([]byte(r.End), fn)
}

// buckets returns the ids of all buckets by name.
func (v *view) buckets() (map[string]uint64, error) {
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

// BucketNames returns the sorted names of all buckets.
func (l *Reader) BucketNames() (found []string, err error) {
	err = l.withView(newTail(""), func(v *view) error {
		ids, err := v.buckets()
		found = slices.Sorted(maps.Keys(ids))
		return err
	})
	return found, err
}

// Stats returns what file and journal tell of the state of the cache, and no counts of operations. After Shut, or if
// the files cannot be read, it returns less.
func (l *Reader) Stats() (s engine.Stats) {
	if !l.Closed() {
		t := newTail("")
		t.all, t.sizes = true, true
		if l.withView(t, func(v *view) (err error) {
			s, err = v.stats()
			return err
		}) != nil {
			s = engine.Stats{}
		}
	}
	s.Health.Moved = l.dir.Load().Moved()
	return s
}

func (v *view) stats() (s engine.Stats, err error) {
	ids, err := v.buckets()
	if err != nil {
		return s, err
	}
	usageRows, _, err := v.tree.Root().Bucket(format.UsageBucket)
	if err != nil {
		return s, err
	}
	s.Buckets = make(map[string]engine.BucketStats, len(ids))
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
		s.Cost += u.Cost() + page.Bucket(u) + page.Name(len(name))
		u = u.After(change)
		s.Buckets[name] = engine.BucketStats{Entries: u.Entries, Bytes: u.Bytes, Cost: u.Cost()}
		s.Entries += u.Entries
		s.Bytes += u.Bytes
		named[id] = true
	}
	s.FileBytes = v.meta.Bytes()
	s.Memory.PinnedBytes = v.tail.logBytes
	return s, v.sweepStats(&s.Sweep, named)
}

// sweepStats returns what the sweeper still has to do.
func (v *view) sweepStats(s *engine.SweepStats, named map[uint64]bool) error {
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

// unnamed calls fn for each id that has entries in the file but no name.
func (v *view) unnamed(named map[uint64]bool, fn func(id uint64)) error {
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

// change is cost.Pending.Change for the view.
func (v *view) change(p *cost.Pending, id uint64) (cost.Usage, error) {
	if len(p.Keys[id]) == 0 {
		return cost.Usage{}, nil
	}
	entries, err := v.entries(id)
	if err != nil {
		return cost.Usage{}, err
	}
	return p.Change(id, func(key string) (size int64, err error) {
		// Get would also read the value.
		err = entries.Scan([]byte(key), func(e *pagetree.Element) (bool, error) {
			if string(e.Key) == key {
				size = int64(len(key)) + max(e.Size()-format.RowSize, 0)
			}
			return false, nil
		})
		return size, err
	})
}

// Expiring returns the first n live entries in the order in which they end: of all buckets, or of those that are named.
// They are of one moment.
func (l *Reader) Expiring(n int, buckets []string) (found []engine.Ending, err error) {
	t := newTail("")
	t.all = true
	err = l.withView(t, func(v *view) error {
		ids, err := v.buckets()
		if err != nil {
			return err
		}
		names := make(map[uint64]string)
		for name, id := range ids {
			if len(buckets) == 0 || slices.Contains(buckets, name) {
				names[id] = name
			}
		}
		rows, err := v.rows(engine.ExpiringRowsFree + engine.ExpiringRowsEach*n)
		if err != nil {
			return err
		}
		var late engine.ExpiringRows
		t.expiring(n, names, v.mark, &late)
		found, err = engine.FirstExpiring(n, names, append(rows, late...),
			func(id uint64, bucket, key string) (engine.Reading, error) {
				return l.readIn(v, id, bucket, key)
			})
		return err
	})
	return found, err
}

// rows returns the first rows of the expiry index, as many as limit.
func (v *view) rows(limit int) (rows []store.ExpiryRow, err error) {
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
