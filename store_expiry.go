package keepcache

import (
	"bytes"
	"cmp"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// dueRow is a row of the expiry index whose time has come.
type dueRow struct {
	row int64
	id  uint64
	key []byte
}

// swept says what one step of the sweeper did.
type swept struct {
	removed int // entries
	moved   int // rows moved to the true, later time of their entry
	orphans int // rows that belonged to no entry, which is damage
	more    bool
	next    []byte    // the row at which a next step goes on, where there is more
	spared  []slidKey // entries of due rows that live, as memory knows; their rows stay
	gone    []dueRow  // whose entries were removed
}

// firstDue returns the time of the earliest row of the expiry index, or never.
func (s *store) firstDue() (row int64, err error) {
	row = never
	err = s.view(func(tx *bolt.Tx) error {
		if k, _ := tx.Bucket(expiryBucket).Cursor().First(); k != nil {
			row, _, _, _ = splitExpiryKey(k)
		}
		return nil
	})
	return row, err
}

// rows returns the first rows of the expiry index, as many as limit.
func (s *store) rows(limit int) (rows []dueRow, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(expiryBucket).Cursor()
		for k, _ := c.First(); k != nil && len(rows) < limit; k, _ = c.Next() {
			if row, id, key, ok := splitExpiryKey(k); ok {
				rows = append(rows, dueRow{row, id, bytes.Clone(key)})
			}
		}
		return nil
	})
	return rows, err
}

// sweep removes up to limit entries that are gone at now, and moves the rows of those that live longer
// than their row says, in one transaction.
//
// lives, if not nil, is asked about each of them whether memory knows of a longer life.
func (s *store) sweep(now int64, limit int, lives func(id uint64, key string, now int64) bool) (swept, error) {
	var did swept
	if first, err := s.firstDue(); err != nil || first > now {
		return did, err
	}
	err := s.update(func(tx *bolt.Tx) (err error) {
		did, err = s.sweepIn(tx, nil, now, limit, lives)
		return err
	})
	return did, err
}

// sweepIn is sweep within a transaction, over the rows from the given one on; nil is the first.
func (s *store) sweepIn(tx *bolt.Tx, from []byte, now int64, limit int, lives func(uint64, string, int64) bool) (did swept, err error) {
	expiry := tx.Bucket(expiryBucket)
	due, err := dueRows(expiry, from, now, limit, lives, &did)
	if err != nil {
		return did, err
	}
	book := s.book()
	var b *bolt.Bucket
	for i, d := range due {
		if i == 0 || d.id != due[i-1].id {
			b = entriesOf(tx, d.id)
		}
		if err := settle(b, expiry, d, now, book, &did); err != nil {
			return did, err
		}
	}
	return did, book.enter(tx)
}

// dueRows takes the rows that are due at now off the index and returns them in the order of the entries,
// so that the deletions that follow walk the pages of the entries in one direction.
func dueRows(expiry *bolt.Bucket, from []byte, now int64, limit int, lives func(uint64, string, int64) bool, did *swept) (due []dueRow, err error) {
	var keys [][]byte
	c := expiry.Cursor()
	for k, _ := c.Seek(from); k != nil; k, _ = c.Next() {
		row, id, key, ok := splitExpiryKey(k)
		if ok && row > now {
			break
		}
		if len(keys)+len(did.spared) == limit {
			did.more, did.next = true, bytes.Clone(k)
			break
		}
		if ok && lives != nil && lives(id, string(key), now) {
			did.spared = append(did.spared, slidKey{id, string(key)})
			continue
		}
		keys = append(keys, bytes.Clone(k))
		if !ok {
			did.orphans++
			continue
		}
		due = append(due, dueRow{row, id, bytes.Clone(key)})
	}
	for _, k := range keys {
		if err := expiry.Delete(k); err != nil {
			return nil, err
		}
	}
	if len(did.spared) == 0 {
		if err := requireGone(expiry, keys); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(due, func(a, b dueRow) int {
		return cmp.Or(cmp.Compare(a.id, b.id), bytes.Compare(a.key, b.key))
	})
	return due, nil
}

// requireGone returns an error if a bucket still begins with one of its first keys, which were deleted: its keys are
// out of order, so that one is met but not found, and whoever removes all there is would never come to an end.
func requireGone(b *bolt.Bucket, keys [][]byte) error {
	first, _ := b.Cursor().First()
	if first != nil && slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, first) }) {
		return errDisorder
	}
	return nil
}

// settle removes the entry of a due row that was taken off the index, or puts the row back where the
// entry is gone later.
func settle(b, expiry *bolt.Bucket, d dueRow, now int64, book *ledger, did *swept) error {
	if b == nil {
		did.orphans++
		return nil
	}
	row, rec := splitRow(b.Get(d.key), d.key)
	if rec == nil || row != d.row && row != unknown {
		did.orphans++
		return nil
	}
	gone := goneAtOf(rec)
	if gone <= now {
		did.removed++
		did.gone = append(did.gone, d)
		book.remove(d.id, d.key, rec)
		return b.Delete(d.key)
	}
	did.moved++
	book.note(d.id, d.key)
	// Put may let go of what Get returned, so the record is copied by joinRow first.
	if err := b.Put(d.key, joinRow(gone, d.key, rec)); err != nil || gone == never {
		return err
	}
	return expiry.Put(expiryKey(gone, d.id, d.key), nil)
}

// removeRetired removes up to limit entries of a bucket that no name points at any more, with their expiry
// rows, and at last the bucket itself. It reports how many entries it removed and whether the bucket is gone.
func (s *store) removeRetired(id uint64, limit int) (removed int, done bool, err error) {
	err = s.update(func(tx *bolt.Tx) error {
		removed, done = 0, false
		b := entriesOf(tx, id)
		if b == nil {
			done = true
			return nil
		}
		var keys [][]byte
		c := b.Cursor()
		for k, _ := c.First(); k != nil && len(keys) < limit; k, _ = c.Next() {
			keys = append(keys, bytes.Clone(k))
		}
		expiry, book := tx.Bucket(expiryBucket), s.book()
		for _, k := range keys {
			row, rec := splitRow(b.Get(k), k)
			book.remove(id, k, rec)
			if err := dropRow(expiry, row, id, k, rec); err != nil {
				return err
			}
			if err := b.Delete(k); err != nil {
				return err
			}
		}
		removed = len(keys)
		if removed == limit {
			if err := requireGone(b, keys); err != nil {
				return err
			}
			return book.enter(tx)
		}
		done = true
		if err := tx.Bucket(usageBucket).Delete(encodeUint64(id)); err != nil {
			return err
		}
		return tx.Bucket(entriesBucket).DeleteBucket(encodeUint64(id))
	})
	return removed, done, err
}
