package store

import (
	"bytes"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/format"
)

// Change is what a transaction does to one key.
type Change struct {
	ID         uint64
	Key        []byte
	Record     []byte // sealed; nil deletes the key
	Stored     []byte // the record with room for its row in front, which belongs to the transaction; or nil
	StaleUntil int64  // of the record
	At         int64  // when the change was decided, or 0
	Late       bool   // set by the transaction: the entry in the file had expired by At
	Revision   uint64
}

// NameOp maps the name of a bucket to an id, or removes the name if ID is 0. With Tag it invalidates a tag.
type NameOp struct {
	Name     string
	ID       uint64
	Old      uint64 // the id of the name until now, or 0
	Tag      bool   // Name is the tag to invalidate, and ID is unused
	Revision uint64 // of the operation itself
}

// rowFill is how full bbolt leaves a page of the expiry index when it splits it. Most new rows go to the end of the
// index.
const rowFill = 0.9

// pageSiblings is how many other records bbolt leaves in a page, whatever their size.
const pageSiblings = 4

// estimateGrowth estimates by how much a transaction may make the file grow: what it writes, and copies of the pages on
// the path to it with what they hold.
func estimateGrowth(names []NameOp, changes []*Change) (bytes int64) {
	const pages = 16 << 10
	largest := int64(0)
	bytes = int64(len(names)) * pages
	for _, c := range changes {
		n := int64(len(c.Key) + len(c.Record))
		bytes += n + pages
		largest = max(largest, n)
	}
	return bytes + pageSiblings*largest
}

// Apply makes the changes, which must be sorted by id and key, and the name operations in one transaction. Afterwards
// the file has every revision up to mark, and new buckets get ids above lastID. after, if not nil, runs in the same
// transaction.
func (s *Store) Apply(
	names []NameOp, lastID uint64, changes []*Change, mark uint64, after func(EvictTx) error,
) (err error) {
	var nameBytes int64 // by how much names need more of the file
	defer func() {
		if err == nil {
			s.nameBytes.Add(nameBytes)
		}
	}()
	return s.updateBy(estimateGrowth(names, changes), func(tx *bolt.Tx) error {
		table := tx.Bucket(format.BucketsBucket)
		page := pageOf(tx)
		nameBytes = 0
		if err := putTags(tx, names); err != nil {
			return err
		}
		for _, n := range names {
			if n.Tag {
				continue
			}
			switch before := table.Get([]byte(n.Name)) != nil; {
			case !before && n.ID != 0:
				nameBytes += page.Name(len(n.Name))
			case before && n.ID == 0:
				nameBytes -= page.Name(len(n.Name))
			}
			lastID = max(lastID, n.ID)
			if err := applyName(table, n); err != nil {
				return err
			}
		}
		if lastID > table.Sequence() {
			if err := table.SetSequence(lastID); err != nil {
				return err
			}
		}
		entries, expiry := tx.Bucket(format.EntriesBucket), tx.Bucket(format.ExpiryBucket)
		entries.FillPercent, expiry.FillPercent = rowFill, rowFill // ids rise
		a := applier{expiry: expiry, now: format.Millis(time.Now()), book: s.newLedger(), mustCopy: s.detached.Load() > 0}
		for i, c := range changes {
			if i == 0 || c.ID != changes[i-1].ID {
				b, err := entries.CreateBucketIfNotExists(format.Uint64(c.ID))
				if err != nil {
					return err
				}
				a.entries, a.cursor, a.crowd = b, b.Cursor(), crowd{}
			}
			if err := a.apply(c); err != nil {
				return err
			}
			if i == len(changes)-1 || changes[i+1].ID != c.ID {
				a.entries.FillPercent = a.crowd.fill()
			}
		}
		if err := putSorted(expiry, a.rows); err != nil {
			return err
		}
		if err := a.book.flush(tx); err != nil {
			return err
		}
		if after != nil {
			if err := after(EvictTx{s, tx}); err != nil {
				return err
			}
		}
		return putRevisions(tx.Bucket(format.MetaBucket), mark, names, changes)
	})
}

// putRevisions stores the mark. It also stores the highest revision if the transaction goes beyond the mark: other
// transactions of the commit follow, or the commit caught writes that came while it collected.
func putRevisions(meta *bolt.Bucket, mark uint64, names []NameOp, changes []*Change) error {
	highest := format.ReadUint64(meta.Get(format.MetaHighest))
	before := highest
	for _, c := range changes {
		highest = max(highest, c.Revision)
	}
	for _, n := range names {
		highest = max(highest, n.Revision)
	}
	if highest > before {
		if err := meta.Put(format.MetaHighest, format.Uint64(highest)); err != nil {
			return err
		}
	}
	return meta.Put(format.MetaSequence, format.Uint64(mark))
}

func applyName(table *bolt.Bucket, n NameOp) error {
	if n.ID == 0 {
		return table.Delete([]byte(n.Name))
	}
	return table.Put([]byte(n.Name), format.Uint64(n.ID))
}

// applier makes changes in one transaction.
type applier struct {
	entries  *bolt.Bucket // of the current bucket
	cursor   *bolt.Cursor // in it
	crowd    crowd        // the keys that are new in it
	expiry   *bolt.Bucket
	now      int64
	book     *ledger
	mustCopy bool     // Stored must not be used: a detached transaction may still use it
	rows     [][]byte // of the expiry index, still to be put
}

// apply puts or deletes one entry. It deletes the entry's old expiry row if necessary and appends the new one to rows.
// The row of an entry must not be later than the entry's end, but may be earlier: the sweeper will move it.
func (a *applier) apply(c *Change) error {
	k, stored := a.cursor.Seek(c.Key)
	if !bytes.Equal(k, c.Key) {
		stored = nil
		if c.Record != nil {
			a.crowd.add(k)
		}
	}
	row, old := format.SplitRow(stored, c.Key)
	c.Late = expiredBy(old, c.At)
	if old != nil {
		a.book.remove(c.ID, c.Key, old)
	}
	if c.Record == nil {
		if old == nil {
			return nil
		}
		if err := deleteRow(a.expiry, row, c.ID, c.Key, old); err != nil {
			return err
		}
		return a.entries.Delete(c.Key)
	}
	if c.StaleUntil == format.Never || row == format.Never || row == format.UnknownRow || row > c.StaleUntil {
		if err := deleteRow(a.expiry, row, c.ID, c.Key, old); err != nil {
			return err
		}
		if row = format.RowTime(c.StaleUntil, a.now); row != format.Never {
			a.rows = append(a.rows, format.ExpiryKey(row, c.ID, c.Key))
		}
	}
	a.book.add(c.ID, c.Key, c.Record)
	if c.Stored == nil || a.mustCopy {
		return a.entries.Put(c.Key, format.JoinRow(row, c.Key, c.Record))
	}
	format.PutRow(c.Stored, row, c.Key)
	return a.entries.Put(c.Key, c.Stored)
}

// expiredBy reports whether a record, which need not be intact, had expired at the given time. It returns false for a
// sliding lifetime: reads may have prolonged it.
func expiredBy(record []byte, at int64) bool {
	gone := format.StaleUntil(record)
	return gone > 0 && gone <= at && format.CheckOptions(record[:len(record)-format.TrailerSize]) == nil &&
		format.ReadOptions(format.OptionBytes(record)).Lifetime == 0
}

// crowd measures how close together the new keys of a transaction are, in their order, to choose how full bbolt should
// leave a page that it splits. If the new keys crowd between two existing ones, or behind the last one, full pages stay
// full. If they are scattered, the next key that hits a full page splits it again, and what is split off stays nearly
// empty.
//
// Computed for random keys that arrive in batches of 1 to 30 percent of the existing ones, pages end up 0.68 full if
// left 0.6 full, 0.55 if left 0.9 full, and 0.4 if left full. After a single batch of half as many keys to full pages
// it is 0.64, 0.73 and 0.74.
type crowd struct {
	added  int
	shared int    // of these, those with the same existing neighbour as the key before
	next   []byte // existing neighbour of the last key
}

const (
	fillScattered = 0.6
	fillCrowded   = 1.0

	// crowdedShare is the share of shared neighbours from which on keys count as crowded: one for each pair of existing
	// keys.
	crowdedShare = 1.0 / 3
)

// add counts a new key. next is the existing key that follows it, or nil.
func (c *crowd) add(next []byte) {
	if c.added > 0 && bytes.Equal(c.next, next) {
		c.shared++
	}
	c.added++
	c.next = append(c.next[:0], next...) // copied, because the next change may move it
}

// fill returns how full to leave a page.
func (c *crowd) fill() float64 {
	if c.added > 0 && float64(c.shared) >= crowdedShare*float64(c.added) {
		return fillCrowded
	}
	return fillScattered
}

// DropOlder removes operations and changes that are older than what the file has.
func (s *Store) DropOlder(names []NameOp, changes []*Change) ([]NameOp, []*Change, error) {
	err := s.View(func(tx *bolt.Tx) error {
		table := tx.Bucket(format.BucketsBucket)
		names = slices.DeleteFunc(names, func(n NameOp) bool {
			return !n.Tag && n.ID != 0 && format.ReadUint64(table.Get([]byte(n.Name))) > n.ID // ids rise
		})
		changes = slices.DeleteFunc(changes, func(c *Change) bool {
			b := entriesOf(tx, c.ID)
			if b == nil {
				return false
			}
			_, rec := format.SplitRow(b.Get(c.Key), c.Key)
			return len(rec) >= format.HeaderSize+format.TrailerSize && format.ReadHeader(rec).Revision > c.Revision
		})
		return nil
	})
	return names, changes, err
}
