package store

import (
	"bytes"
	"cmp"
	"errors"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/format"
)

// copyNext copies some more entries: more than have come since the last ones, so that there is an end.
func (n *successor) copyNext(from *bolt.Tx) error {
	return n.handle.update(func(to *bolt.Tx) error {
		if _, err := n.handle.outgrows(to.Size(), min(copyBytes+2*n.came+growUsual, from.Size()+copyBytes)); err != nil {
			return err
		}
		w := forwards{tx: from}
		book := newLedger(pageOf(to))
		var b *bolt.Bucket
		id, size, most, count := uint64(0), 0, max(copyBytes, 2*int(n.came)), 0
		if err := n.unmark(to); err != nil {
			return err
		}
		for w.seek(n.front); w.k != nil; w.next() {
			if size >= most && count%cost.LeastInPage == 0 && (w.id != id || n.mark(from, placed{w.id, w.k})) {
				break
			}
			if count++; b == nil || w.id != id {
				id, count = w.id, 1
				var err error
				all := to.Bucket(format.EntriesBucket)
				all.FillPercent = cost.FillPercent
				if b, err = all.CreateBucketIfNotExists(format.Uint64(id)); err != nil {
					return err
				}
				b.FillPercent = cost.FillPercent
			}
			row, rec := repairRow(w.k, w.v)
			if row != format.Never {
				n.rows = append(n.rows, format.ExpiryKey(row, id, w.k))
				n.size += 16 + len(w.k)
			}
			if err := b.Put(w.k, format.JoinRow(row, w.k, rec)); err != nil {
				return err
			}
			book.add(id, w.k, rec)
			size += len(w.k) + len(w.v)
			n.bytes += int64(len(w.k) + len(rec))
		}
		n.front, n.done = placed{w.id, bytes.Clone(w.k)}, w.k == nil
		for _, k := range n.marks {
			if err := b.Put(k, nil); err != nil {
				return err
			}
		}
		if n.size > rowsBytes || n.done {
			if err := n.putRows(to); err != nil {
				return err
			}
		}
		return book.enter(to)
	})
}

// mark notes the keys that follow on what has been copied, those that fill a leaf, unless the bucket ends with them.
//
// The copy goes on in its last leaf, which is written anew for it. If that had large entries it would leave as many free
// pages behind: so these keys stand there without a value until it goes on.
func (n *successor) mark(from *bolt.Tx, at placed) bool {
	c := entriesOf(from, at.id).Cursor()
	for k, _ := c.Seek(at.key); k != nil; k, _ = c.Next() {
		if len(n.marks) == cost.LeafMost {
			return true
		}
		n.marks = append(n.marks, bytes.Clone(k))
	}
	n.marks = nil
	return false
}

// unmark removes what mark has noted.
func (n *successor) unmark(to *bolt.Tx) error {
	for _, k := range n.marks {
		if err := entriesOf(to, n.front.id).Delete(k); err != nil {
			return err
		}
	}
	n.marks = nil
	return nil
}

// repairRow takes a stored value apart. A damaged index row is made anew.
func repairRow(key, stored []byte) (row int64, record []byte) {
	row, record = format.SplitRow(stored, key)
	if row == format.UnknownRow {
		row = format.StaleUntil(record)
	}
	return row, record
}

// putRows puts the expiry rows that have gathered.
func (n *successor) putRows(to *bolt.Tx) error {
	expiry := to.Bucket(format.ExpiryBucket)
	expiry.FillPercent = cost.FillPercent
	err := putSorted(expiry, n.rows)
	n.rows, n.size = nil, 0
	return err
}

// catchUp copies the keys that changed since the last time anew. From then on changes wait when that many keys are
// noted.
func (n *successor) catchUp(most int) error {
	h, err := n.store.lock()
	if err != nil {
		return err
	}
	held := true
	unlock := func() {
		if held {
			held = false
			h.unlock()
		}
	}
	defer unlock()
	return n.catchUpFrom(h, most, unlock)
}

// catchUpFrom is catchUp for a caller who keeps the file from changing, until begun is called at least.
func (n *successor) catchUpFrom(h *Handle, most int, begun func()) error {
	s := n.store
	if s.noted == nil {
		return errSuperseded
	}
	changed := s.noted.keys
	s.noted.look()
	s.noted = newNotes(most)
	// The transaction sees all that is noted, because no change is on its way when it begins.
	return h.viewFrom(begun, func(from *bolt.Tx) error { return n.copyNoted(from, changed) })
}

func (n *successor) copyNoted(from *bolt.Tx, changed map[noteKey]struct{}) error {
	keys := make([]noteKey, 0, len(changed))
	for k := range changed {
		if n.done || k.before(n.front) { // what lies ahead will be copied anyway
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b noteKey) int { return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.key, b.key)) })
	if len(keys) == 0 {
		return nil
	}
	if len(n.rows) > 0 { // in a transaction of their own: the nodes that they fill would make each change slow
		if err := n.handle.update(n.putRows); err != nil {
			return err
		}
	}
	return n.handle.update(func(to *bolt.Tx) error {
		book := newLedger(pageOf(to))
		var rows [][]byte
		for _, k := range keys {
			var stored []byte
			if b := entriesOf(from, k.id); b != nil {
				stored = b.Get([]byte(k.key))
			}
			row, err := transfer(to, k.id, []byte(k.key), stored, book)
			if err != nil {
				return err
			}
			if row != format.Never {
				rows = append(rows, format.ExpiryKey(row, k.id, []byte(k.key)))
			}
		}
		return errors.Join(putSorted(to.Bucket(format.ExpiryBucket), rows), book.enter(to))
	})
}

func (k noteKey) before(p placed) bool {
	return k.id < p.id || k.id == p.id && k.key < string(p.key)
}

// transfer makes the entry of a key what the file has stored there, which is nil for none. It returns the time of
// the expiry row that is still to be put, or format.Never.
func transfer(to *bolt.Tx, id uint64, key, stored []byte, book *ledger) (row int64, err error) {
	b, expiry := entriesOf(to, id), to.Bucket(format.ExpiryBucket)
	if b == nil {
		if stored == nil {
			return format.Never, nil
		}
		if b, err = to.Bucket(format.EntriesBucket).CreateBucket(format.Uint64(id)); err != nil {
			return format.Never, err
		}
	}
	if row, old := format.SplitRow(b.Get(key), key); old != nil {
		book.remove(id, key, old)
		if err := dropRow(expiry, row, id, key, old); err != nil {
			return format.Never, err
		}
	}
	if stored == nil {
		return format.Never, removeLast(to, b, id, key)
	}
	row, rec := repairRow(key, stored)
	book.add(id, key, rec)
	return row, b.Put(key, format.JoinRow(row, key, rec))
}

// removeLast removes an entry, and its bucket if that was the last one: in the file that is copied the bucket may be gone too, and
// nobody would look for it here.
func removeLast(to *bolt.Tx, b *bolt.Bucket, id uint64, key []byte) error {
	if err := b.Delete(key); err != nil {
		return err
	}
	if k, _ := b.Cursor().First(); k != nil {
		return nil
	}
	return to.Bucket(format.EntriesBucket).DeleteBucket(format.Uint64(id))
}

// copyTables copies what is not about entries: identity, commit mark, names and ids, invalidated tags.
func (n *successor) copyTables(from *bolt.Tx) error {
	return n.handle.update(func(to *bolt.Tx) error {
		for _, name := range [][]byte{format.MetaBucket, format.BucketsBucket, format.TagsBucket} {
			source := from.Bucket(name)
			if source == nil {
				continue // only the tags may be missing
			}
			target, err := to.CreateBucketIfNotExists(name)
			if err != nil {
				return err
			}
			target.FillPercent = cost.FillPercent
			if err := source.ForEach(target.Put); err != nil {
				return err
			}
			if err := target.SetSequence(source.Sequence()); err != nil {
				return err
			}
		}
		return nil
	})
}
