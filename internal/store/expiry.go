package store

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/format"
)

// ExpiryRow is a row of the expiry index whose time has come.
type ExpiryRow struct {
	At  int64
	ID  uint64
	Key []byte
}

// SweepReach says what a step of the sweeper takes.
type SweepReach struct {
	Now   int64                                       // what is gone then is removed
	Rows  int64                                       // the latest time of a row that is looked at
	lives func(id uint64, key string, now int64) bool // says whether memory knows of a longer life
}

// Certain returns the reach to the rows whose entries are gone by now, unless their lives were prolonged. Who sweeps
// without being asked keeps to it: of the rows of the last second many belong to entries that live, and each would
// have to be looked up.
func Certain(lives func(id uint64, key string, now int64) bool) SweepReach {
	now := format.Millis(time.Now())
	return SweepReach{now, now - format.RowGrain, lives}
}

// Swept says what one step of the sweeper did.
type Swept struct {
	Removed int // entries
	Moved   int // rows moved to the later time of their entry
	Orphans int // rows that belonged to no entry, which is damage
	More    bool
	Next    []byte            // the row at which a next step goes on, where there is more
	Spared  []format.EntryKey // entries of due rows that live, as memory knows; their rows stay
	Gone    []ExpiryRow       // whose entries were removed
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

// ExpiryRows returns the first rows of the expiry index, as many as limit.
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

// Sweep is one step of the sweeper, from the given row on; nil is the first. It removes entries that are gone, and
// moves the rows of those that live much longer than their row says, in one transaction, if there are any.
func (s *Store) Sweep(from []byte, r SweepReach) (did Swept, err error) {
	found := false
	err = s.View(func(tx *bolt.Tx) error {
		keys, _, err := dueRows(tx, from, r, &did)
		found = len(keys) > 0 || err != nil // which the change will meet too, and which then says that the file is damaged
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
func (s *Store) sweepIn(tx *bolt.Tx, from []byte, r SweepReach) (did Swept, err error) {
	keys, due, err := dueRows(tx, from, r, &did)
	if err != nil {
		return did, err
	}
	expiry, book := tx.Bucket(format.ExpiryBucket), s.book()
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
	// In the order of the entries, the deletions that follow walk their pages in one direction.
	slices.SortFunc(due, func(a, b ExpiryRow) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), bytes.Compare(a.Key, b.Key))
	})
	var b *bolt.Bucket
	for i, d := range due {
		if i == 0 || d.ID != due[i-1].ID {
			b = entriesOf(tx, d.ID)
		}
		if err := settle(b, expiry, d, r.Now, book, &did); err != nil {
			return did, err
		}
	}
	return did, book.enter(tx)
}

// dueRows returns the keys of rows that are to go off the index, and what they say, malformed ones aside. It looks at
// sweepStep rows, so that the transaction is short also where most of them stay.
func dueRows(tx *bolt.Tx, from []byte, r SweepReach, did *Swept) (keys [][]byte, due []ExpiryRow, err error) {
	c, looked := tx.Bucket(format.ExpiryBucket).Cursor(), 0
	for k, _ := c.Seek(from); k != nil; k, _ = c.Next() {
		row, id, key, ok := format.SplitExpiryKey(k)
		if ok && row > r.Rows {
			break
		}
		if looked++; looked > sweepStep {
			if bytes.Compare(k, from) <= 0 {
				return nil, nil, errDisorder // steps that go on at the same row would never come to an end
			}
			did.More, did.Next = true, bytes.Clone(k)
			break
		}
		switch {
		case !ok:
			did.Orphans++
			keys = append(keys, bytes.Clone(k))
		case row > r.Now-format.RowGrain && early(tx, row, id, key, r.Now):
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

// early reports whether a row, although its time has come, is where it may have been put for its entry: the entry
// lives at now, and is gone before the row is due for certain.
func early(tx *bolt.Tx, row int64, id uint64, key []byte, now int64) bool {
	b := entriesOf(tx, id)
	if b == nil {
		return false
	}
	at, rec := format.SplitRow(b.Get(key), key)
	gone := format.StaleUntil(rec)
	return at == row && gone > now && gone-row < format.RowGrain
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
func settle(b, expiry *bolt.Bucket, d ExpiryRow, now int64, book *ledger, did *Swept) error {
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
	book.note(d.ID, d.Key)
	// Put may let go of what Get returned, so the record is copied by format.JoinRow first.
	moved := format.RowTime(gone, now)
	if err := b.Put(d.Key, format.JoinRow(moved, d.Key, rec)); err != nil || moved == format.Never {
		return err
	}
	return expiry.Put(format.ExpiryKey(moved, d.ID, d.Key), nil)
}

// dropRow takes the expiry row of an entry off the index. Where it is unknown, it most likely stands where it was
// put for the time the entry is gone, with one grain or another; if not, the sweeper will find it without an owner.
func dropRow(expiry *bolt.Bucket, row int64, id uint64, key, record []byte) error {
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

// putSorted puts rows into the expiry index in their order, whatever theirs is. Most are later than all that are
// there, and come into one node: a slice, in which a row that is not the last one moves all that follow it.
func putSorted(expiry *bolt.Bucket, rows [][]byte) error {
	slices.SortFunc(rows, bytes.Compare)
	for _, row := range rows {
		if err := expiry.Put(row, nil); err != nil {
			return err
		}
	}
	return nil
}

// sweepStep is how many entries one transaction of the sweeper removes. A step of 1,000 takes a few
// milliseconds, which is what a writer waits for it at most; larger steps gain little.
const sweepStep = 1000
