package store

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/format"
)

// ExpiryRow is a due row of the expiry index.
type ExpiryRow struct {
	At  int64
	ID  uint64
	Key []byte
}

// SweepBounds bounds what a step of the sweeper takes.
type SweepBounds struct {
	Now   int64                                       // entries that have expired by then are removed
	Rows  int64                                       // the latest time of a row that is read
	lives func(id uint64, key string, now int64) bool // reports whether an entry lives longer by memory
}

// CertainlyExpired returns bounds for entries that have expired for certain, unless reads have prolonged their life.
// Sweeps that nobody waits for use it: many rows of the last second belong to entries that still live, and each would
// cost a look-up.
func CertainlyExpired(lives func(id uint64, key string, now int64) bool) SweepBounds {
	now := format.Millis(time.Now())
	return SweepBounds{now, now - format.RowGrain, lives}
}

// Swept is the result of one step of the sweeper.
type Swept struct {
	Removed int // entries
	Moved   int // rows moved to the later end of their entry
	Orphans int // rows without an entry, which are damage
	More    bool
	Next    []byte            // the row where the next step begins, if there is more
	Spared  []format.EntryKey // entries of due rows that live longer by memory; their rows stay
	Gone    []ExpiryRow       // rows whose entries were removed
}

// FirstRow returns the time of the earliest row of the expiry index, or format.Never.
func (s *Store) FirstRow() (row int64, err error) {
	row = format.Never
	err = s.View(func(tx *bolt.Tx) error {
		if k, _ := tx.Bucket(format.ExpiryBucket).Cursor().First(); k != nil {
			row, _, _, _ = format.SplitExpiryKey(k)
		}
		return nil
	})
	return row, err
}

// ExpiryRows returns the first rows of the expiry index, at most limit.
func (s *Store) ExpiryRows(limit int) (rows []ExpiryRow, err error) {
	err = s.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(format.ExpiryBucket).Cursor()
		for k, _ := c.First(); k != nil && len(rows) < limit; k, _ = c.Next() {
			if row, id, key, ok := format.SplitExpiryKey(k); ok {
				rows = append(rows, ExpiryRow{At: row, ID: id, Key: bytes.Clone(key)})
			}
		}
		return nil
	})
	return rows, err
}

// Sweep is one step of the sweeper, beginning at the given row; nil is the first. In one transaction it removes entries
// that have expired and moves the rows of those that live much longer than their row says. It starts no transaction if
// there is nothing to do.
func (s *Store) Sweep(from []byte, r SweepBounds) (did Swept, err error) {
	found := false
	err = s.View(func(tx *bolt.Tx) error {
		keys, _, err := dueRows(tx, from, r, &did)
		found = len(keys) > 0 || err != nil // on an error the update reports the damage
		return nil
	})
	if err != nil || !found {
		return did, err
	}
	err = s.Update(func(tx *bolt.Tx) (err error) {
		did, err = s.sweepIn(tx, from, r)
		return err
	})
	return did, err
}

// sweepIn is Sweep within a transaction.
func (s *Store) sweepIn(tx *bolt.Tx, from []byte, r SweepBounds) (did Swept, err error) {
	keys, due, err := dueRows(tx, from, r, &did)
	if err != nil {
		return did, err
	}
	expiry, book := tx.Bucket(format.ExpiryBucket), s.newLedger()
	for _, k := range keys {
		if err := expiry.Delete(k); err != nil {
			return did, err
		}
	}
	if len(did.Spared) == 0 {
		if err := requireGone(expiry, keys); err != nil {
			return did, err
		}
	}
	// Sorted by entry, the following deletions walk the pages in one direction.
	slices.SortFunc(due, func(a, b ExpiryRow) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), bytes.Compare(a.Key, b.Key))
	})
	var b *bolt.Bucket
	for i, d := range due {
		if i == 0 || d.ID != due[i-1].ID {
			b = entriesOf(tx, d.ID)
		}
		if err := sweepRow(b, expiry, d, r.Now, book, &did); err != nil {
			return did, err
		}
	}
	return did, book.flush(tx)
}

// dueRows returns the keys of the rows to delete and, except for malformed ones, what they say. It reads at most
// sweepStep rows, which keeps the transaction short even if most of them stay.
func dueRows(tx *bolt.Tx, from []byte, r SweepBounds, did *Swept) (keys [][]byte, due []ExpiryRow, err error) {
	c, looked := tx.Bucket(format.ExpiryBucket).Cursor(), 0
	for k, _ := c.Seek(from); k != nil; k, _ = c.Next() {
		row, id, key, ok := format.SplitExpiryKey(k)
		if ok && row > r.Rows {
			break
		}
		if looked++; looked > sweepStep {
			if bytes.Compare(k, from) <= 0 {
				return nil, nil, errKeyOrder // steps that begin at the same row again would never end
			}
			did.More, did.Next = true, bytes.Clone(k)
			break
		}
		switch {
		case !ok:
			did.Orphans++
			keys = append(keys, bytes.Clone(k))
		case row > r.Now-format.RowGrain && notYetDue(tx, row, id, key, r.Now):
		case r.lives(id, string(key), r.Now):
			did.Spared = append(did.Spared, format.EntryKey{ID: id, Key: string(key)})
		default:
			k = bytes.Clone(k)
			keys = append(keys, k)
			due = append(due, ExpiryRow{At: row, ID: id, Key: k[len(k)-len(key):]})
		}
	}
	return keys, due, nil
}

// notYetDue reports whether a row is where it belongs although its time has come: its entry lives at now, and expires
// before the row is due for certain.
func notYetDue(tx *bolt.Tx, row int64, id uint64, key []byte, now int64) bool {
	b := entriesOf(tx, id)
	if b == nil {
		return false
	}
	at, rec := format.SplitRow(b.Get(key), key)
	gone := format.StaleUntil(rec)
	return at == row && gone > now && gone-row < format.RowGrain
}

// requireGone returns an error if a bucket still begins with one of the deleted keys. Then its keys are out of order: a
// cursor meets the key but Delete does not find it, and removing everything would never end.
func requireGone(b *bolt.Bucket, keys [][]byte) error {
	first, _ := b.Cursor().First()
	if first != nil && slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, first) }) {
		return errKeyOrder
	}
	return nil
}

// sweepRow handles a due row that was deleted from the index: it removes the entry, or puts a later row if the entry
// still lives.
func sweepRow(b, expiry *bolt.Bucket, d ExpiryRow, now int64, book *ledger, did *Swept) error {
	if b == nil {
		did.Orphans++
		return nil
	}
	row, rec := format.SplitRow(b.Get(d.Key), d.Key)
	if rec == nil || row != d.At && row != format.UnknownRow {
		did.Orphans++
		return nil
	}
	gone := format.StaleUntil(rec)
	if gone <= now {
		did.Removed++
		did.Gone = append(did.Gone, d)
		book.remove(d.ID, d.Key, rec)
		return b.Delete(d.Key)
	}
	did.Moved++
	book.markDirty(d.ID, d.Key)
	// Copy the record by format.JoinRow first: Put may invalidate what Get returned.
	moved := format.RowTime(gone, now)
	if err := b.Put(d.Key, format.JoinRow(moved, d.Key, rec)); err != nil || moved == format.Never {
		return err
	}
	return expiry.Put(format.ExpiryKey(moved, d.ID, d.Key), nil)
}

// deleteRow deletes the expiry row of an entry. If the row's time is unknown, it tries the times at which the row was
// most likely put. If none is right, the sweeper will find the row as an orphan.
func deleteRow(expiry *bolt.Bucket, row int64, id uint64, key, record []byte) error {
	switch row {
	case format.Never:
		return nil
	case format.UnknownRow:
	default:
		return expiry.Delete(format.ExpiryKey(row, id, key))
	}
	gone := format.StaleUntil(record)
	if gone == format.Never {
		return nil
	}
	for grain := int64(1); grain <= format.RowGrain; grain *= 2 {
		if err := expiry.Delete(format.ExpiryKey(gone-gone%grain, id, key)); err != nil {
			return err
		}
	}
	return nil
}

// putSorted puts rows into the expiry index in order. Most are later than all existing rows and go into one bbolt node,
// a slice in which an insertion moves everything behind it.
func putSorted(expiry *bolt.Bucket, rows [][]byte) error {
	slices.SortFunc(rows, bytes.Compare)
	for _, row := range rows {
		if err := expiry.Put(row, nil); err != nil {
			return err
		}
	}
	return nil
}

// sweepStep is how many entries one transaction of the sweeper removes. 1,000 take a few milliseconds, which is how
// long a writer waits for it at most. Larger steps gain little.
const sweepStep = 1000
