package store

import (
	"bytes"
	"errors"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/format"
)

// Bounds of one transaction that removes retired buckets, in addition to sweepStep for their entries.
const (
	// RetireStep is from how many buckets one transaction removes the rest. Buckets of one entry lie side by side, and
	// removing 4,096 of them takes about 15 ms. Most entries of such a transaction have been counted by then.
	RetireStep = 4 * sweepStep

	// maxRetirePages bounds, roughly, how many pages one transaction frees or changes: large values have pages of their
	// own, and rows of the expiry index are spread all over it.
	maxRetirePages = 8192
)

// Emptied is the result of one step of RemoveRetired.
type Emptied struct {
	IDs     int // of the given ids, in order, how many are gone completely
	Entries int
}

// Existing returns those of the ids for which the file has a bucket. It sorts ids.
func (s *Store) Existing(ids []uint64) (held []uint64, err error) {
	slices.Sort(ids)
	err = s.View(func(tx *bolt.Tx) error {
		held = held[:0]
		c := tx.Bucket(format.EntriesBucket).Cursor()
		for _, id := range ids {
			key := format.Uint64(id)
			if k, _ := c.Seek(key); bytes.Equal(k, key) {
				held = append(held, id)
			}
		}
		return nil
	})
	return held, err
}

// RemoveRetired removes buckets without a name, with their entries and expiry rows, in the given order. It stops when
// the transaction is large enough.
func (s *Store) RemoveRetired(ids []uint64) (did Emptied, err error) {
	err = s.Update(func(tx *bolt.Tx) error {
		did = Emptied{}
		entries := tx.Bucket(format.EntriesBucket)
		used, err := OpenUsage(tx)
		if err != nil {
			return err
		}
		r := retiring{expiry: tx.Bucket(format.ExpiryBucket), book: s.newLedger(), page: tx.DB().Info().PageSize}
		for _, id := range ids {
			if did.Entries = r.entries; r.full() || did.IDs == RetireStep {
				break
			}
			key := format.Uint64(id)
			if b := entries.Bucket(key); b != nil {
				whole, err := r.remove(b, id)
				if did.Entries = r.entries; err != nil || !whole {
					return errors.Join(err, r.book.flush(tx))
				}
				if err := entries.DeleteBucket(key); err != nil {
					return err
				}
			}
			delete(r.book.deltas, id)
			if err := used.remove(id); err != nil {
				return err
			}
			did.IDs++
		}
		return r.book.flush(tx)
	})
	return did, err
}

// retiring is one transaction of RemoveRetired.
type retiring struct {
	expiry  *bolt.Bucket
	book    *ledger
	page    int // its size in bytes
	entries int
	pages   int
}

// full reports whether the transaction is as large as it may be.
func (r *retiring) full() bool { return r.entries >= sweepStep || r.pages >= maxRetirePages }

// remove removes the entries of a bucket, and reports whether those were all.
func (r *retiring) remove(b *bolt.Bucket, id uint64) (whole bool, err error) {
	var keys [][]byte
	c := b.Cursor()
	k, v := c.First()
	for ; k != nil && !r.full(); k, v = c.Next() {
		row, rec := format.SplitRow(v, k)
		r.book.remove(id, k, rec)
		if err := deleteRow(r.expiry, row, id, k, rec); err != nil {
			return false, err
		}
		if row != format.Never {
			r.pages++
		}
		r.pages += len(v) / r.page
		r.entries++
		keys = append(keys, bytes.Clone(k))
	}
	if k == nil {
		return true, nil // the caller deletes the bucket
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return false, err
		}
	}
	return false, requireGone(b, keys)
}

// DropNonEmpty deletes the ids from the map for which the file has an entry.
func (s *Store) DropNonEmpty(ids map[uint64]bool) error {
	return s.View(func(tx *bolt.Tx) error {
		for id := range ids {
			if b := entriesOf(tx, id); b != nil {
				if k, _ := b.Cursor().First(); k != nil {
					delete(ids, id)
				}
			}
		}
		return nil
	})
}
