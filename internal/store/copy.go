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

// copyNext copies some more entries: more than were written during the last step, so that copying ends.
func (n *successor) copyNext(from *bolt.Tx) error {
	return n.handle.update(func(to *bolt.Tx) error {
		grow := min(copyBytes+2*n.newBytes+usualGrowth, from.Size()+copyBytes)
		if _, err := n.handle.outgrows(to.Size(), grow); err != nil {
			return err
		}
		w := scanner{tx: from}
		book := makeLedger(pageOf(to))
		var b *bolt.Bucket
		id, size, most, count := uint64(0), 0, max(copyBytes, 2*int(n.newBytes)), 0
		if err := n.removePlaceholders(to); err != nil {
			return err
		}
		for w.seek(n.copiedTo); w.k != nil; w.next() {
			if size >= most && count%cost.LeastInPage == 0 && (w.id != id || n.addPlaceholders(from, position{w.id, w.k})) {
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
				n.rowBytes += 16 + len(w.k)
			}
			if err := b.Put(w.k, format.JoinRow(row, w.k, rec)); err != nil {
				return err
			}
			book.add(id, w.k, rec)
			size += len(w.k) + len(w.v)
			n.bytes += int64(len(w.k) + len(rec))
		}
		n.copiedTo, n.done = position{w.id, bytes.Clone(w.k)}, w.k == nil
		for _, k := range n.placeholders {
			if err := b.Put(k, nil); err != nil {
				return err
			}
		}
		if n.rowBytes > rowsBytes || n.done {
			if err := n.putRows(to); err != nil {
				return err
			}
		}
		return book.flush(to)
	})
}

// addPlaceholders notes the keys that follow the copied ones, enough to fill a leaf. It reports false if the bucket
// ends before that.
//
// The next step continues in the last leaf, and bbolt writes that leaf again. If the leaf had large entries, as many
// pages would become free. So the placeholders, keys without values, fill the last leaf until the next step.
func (n *successor) addPlaceholders(from *bolt.Tx, at position) bool {
	c := entriesOf(from, at.id).Cursor()
	for k, _ := c.Seek(at.key); k != nil; k, _ = c.Next() {
		if len(n.placeholders) == cost.LeafMost {
			return true
		}
		n.placeholders = append(n.placeholders, bytes.Clone(k))
	}
	n.placeholders = nil
	return false
}

// removePlaceholders deletes the placeholders of the last step.
func (n *successor) removePlaceholders(to *bolt.Tx) error {
	for _, k := range n.placeholders {
		if err := entriesOf(to, n.copiedTo.id).Delete(k); err != nil {
			return err
		}
	}
	n.placeholders = nil
	return nil
}

// repairRow splits a stored value. It rebuilds a damaged index row.
func repairRow(key, stored []byte) (row int64, record []byte) {
	row, record = format.SplitRow(stored, key)
	if row == format.UnknownRow {
		row = format.StaleUntil(record)
	}
	return row, record
}

// putRows puts the expiry rows collected so far.
func (n *successor) putRows(to *bolt.Tx) error {
	expiry := to.Bucket(format.ExpiryBucket)
	expiry.FillPercent = cost.FillPercent
	err := putSorted(expiry, n.rows)
	n.rows, n.rowBytes = nil, 0
	return err
}

// catchUp copies again the keys that have become dirty since the last time. From then on changes wait when most keys
// are dirty.
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

// catchUpFrom is catchUp for a caller that keeps the file from changing at least until begun is called.
func (n *successor) catchUpFrom(h *Handle, most int, begun func()) error {
	s := n.store
	if s.dirtyKeys == nil {
		return errSuperseded
	}
	changed := s.dirtyKeys.keys
	s.dirtyKeys.wake()
	s.dirtyKeys = newDirtyKeys(most)
	// The transaction sees all changes of dirty keys, because no change is under way when it begins.
	return h.viewFrom(begun, func(from *bolt.Tx) error { return n.copyDirty(from, changed) })
}

func (n *successor) copyDirty(from *bolt.Tx, changed map[dirtyKey]struct{}) error {
	keys := make([]dirtyKey, 0, len(changed))
	for k := range changed {
		if n.done || k.before(n.copiedTo) { // what lies ahead will be copied anyway
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b dirtyKey) int { return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.key, b.key)) })
	if len(keys) == 0 {
		return nil
	}
	if len(n.rows) > 0 { // in a transaction of their own: the nodes that they fill would slow down each change
		if err := n.handle.update(n.putRows); err != nil {
			return err
		}
	}
	return n.handle.update(func(to *bolt.Tx) error {
		book := makeLedger(pageOf(to))
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
		return errors.Join(putSorted(to.Bucket(format.ExpiryBucket), rows), book.flush(to))
	})
}

func (k dirtyKey) before(p position) bool {
	return k.id < p.id || k.id == p.id && k.key < string(p.key)
}

// transfer makes the entry of a key equal to what the file has stored, nil for none. It returns the time of the expiry
// row that the caller must put, or format.Never.
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
		if err := deleteRow(expiry, row, id, key, old); err != nil {
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

// removeLast deletes an entry, and its bucket if that is now empty: the source may no longer have the bucket, and
// nobody would remove it here.
func removeLast(to *bolt.Tx, b *bolt.Bucket, id uint64, key []byte) error {
	if err := b.Delete(key); err != nil {
		return err
	}
	if k, _ := b.Cursor().First(); k != nil {
		return nil
	}
	return to.Bucket(format.EntriesBucket).DeleteBucket(format.Uint64(id))
}

// copyTables copies everything but the entries: identity, commit mark, bucket names and ids, invalidated tags.
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
