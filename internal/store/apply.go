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
	Record     []byte // sealed; nil removes the key
	Stored     []byte // the same with room for its row in front, which is the transaction's; nil if there is none
	StaleUntil int64  // of the record
	At         int64  // when it was decided, or 0
	Late       bool   // set by the transaction: what the file had under the key had expired by then
	Revision   uint64
}

// NameOp is a naming: it points a bucket's name at an id, or invalidates a tag. An id of 0 takes the name away.
type NameOp struct {
	Name     string
	ID       uint64
	Old      uint64 // the id that the name stood for until now, or 0
	Tag      bool   // name is the tag that is invalidated, and there is no id
	Revision uint64 // its own
}

// rowFill is how full a page of the expiry index is left when it is split. Rows mostly come in at the end of those of their time.
const rowFill = 0.9

// neighbours is how many other records bbolt leaves in a page, whatever their size.
const neighbours = 4

// sizeOf estimates by how much a transaction may make the file grow: what it writes, and the pages on the
// way to it, with what is in these already.
func sizeOf(names []NameOp, changes []*Change) (bytes int64) {
	const pages = 16 << 10
	largest := int64(0)
	bytes = int64(len(names)) * pages
	for _, c := range changes {
		n := int64(len(c.Key) + len(c.Record))
		bytes += n + pages
		largest = max(largest, n)
	}
	return bytes + neighbours*largest
}

// Apply makes the changes, which are sorted by id and key, and the namings in one transaction, after which
// the file contains every revision up to mark, and no id up to given is given out again. after, if there is one, is part of the
// transaction.
func (s *Store) Apply(names []NameOp, given uint64, changes []*Change, mark uint64, after func(FreeTx) error) (err error) {
	var named int64 // by how much names need more of the file
	defer func() {
		if err == nil {
			s.named.Add(named)
		}
	}()
	return s.updateBy(sizeOf(names, changes), func(tx *bolt.Tx) error {
		table := tx.Bucket(format.BucketsBucket)
		page := pageOf(tx)
		named = 0
		if err := putTags(tx, names); err != nil {
			return err
		}
		for _, n := range names {
			if n.Tag {
				continue
			}
			switch before := table.Get([]byte(n.Name)) != nil; {
			case !before && n.ID != 0:
				named += page.Name(len(n.Name))
			case before && n.ID == 0:
				named -= page.Name(len(n.Name))
			}
			given = max(given, n.ID)
			if err := applyNaming(table, n); err != nil {
				return err
			}
		}
		if given > table.Sequence() {
			if err := table.SetSequence(given); err != nil {
				return err
			}
		}
		entries, expiry := tx.Bucket(format.EntriesBucket), tx.Bucket(format.ExpiryBucket)
		entries.FillPercent, expiry.FillPercent = rowFill, rowFill // ids rise
		a := applier{expiry: expiry, now: format.Millis(time.Now()), book: s.book(), copies: s.strays.Load() > 0}
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
		if err := a.book.enter(tx); err != nil {
			return err
		}
		if after != nil {
			if err := after(FreeTx{s, tx}); err != nil {
				return err
			}
		}
		return putRevisions(tx.Bucket(format.MetaBucket), mark, names, changes)
	})
}

// putRevisions stores the mark, and the highest revision where a transaction went beyond the mark: one that
// is followed by others of the same commit, or that caught writes that came while it was gathered.
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

func applyNaming(table *bolt.Bucket, n NameOp) error {
	if n.ID == 0 {
		return table.Delete([]byte(n.Name))
	}
	return table.Put([]byte(n.Name), format.Uint64(n.ID))
}

// applier makes changes in one transaction.
type applier struct {
	entries *bolt.Bucket // of the bucket at hand
	cursor  *bolt.Cursor // in it
	crowd   crowd        // of the keys that are new in it
	expiry  *bolt.Bucket
	now     int64
	book    *ledger
	copies  bool     // the rooms of stored values are not the transaction's alone
	rows    [][]byte // of the expiry index, which are still to be put
}

// apply puts or removes one entry, takes its expiry row off the index where that has to go, and says which is to be
// put. The row of an entry is never later than the
// time it is gone, so a row that stands early enough stays as it is: the sweeper will move it.
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
		if err := dropRow(a.expiry, row, c.ID, c.Key, old); err != nil {
			return err
		}
		return a.entries.Delete(c.Key)
	}
	if c.StaleUntil == format.Never || row == format.Never || row == format.UnknownRow || row > c.StaleUntil {
		if err := dropRow(a.expiry, row, c.ID, c.Key, old); err != nil {
			return err
		}
		if row = format.RowTime(c.StaleUntil, a.now); row != format.Never {
			a.rows = append(a.rows, format.ExpiryKey(row, c.ID, c.Key))
		}
	}
	a.book.add(c.ID, c.Key, c.Record)
	if c.Stored == nil || a.copies {
		return a.entries.Put(c.Key, format.JoinRow(row, c.Key, c.Record))
	}
	format.PutRow(c.Stored, row, c.Key)
	return a.entries.Put(c.Key, c.Stored)
}

// expiredBy reports whether a record, which nobody has proved, says that its entry was gone at a time. Of one whose life reads
// prolong it does not know how long that was.
func expiredBy(record []byte, at int64) bool {
	gone := format.StaleUntil(record)
	return gone > 0 && gone <= at && format.CheckOptions(record[:len(record)-format.TrailerSize]) == nil && format.ReadOptions(format.OptionBytes(record)).Lifetime == 0
}

// crowd tells how close to each other the keys are that a transaction adds, in their order, and so how full a page is best left
// when it is split. Where they crowd between two that are there, or behind the last one, full pages stay full. Where they
// come one by one all over the place, a page that was left full is split again by the next one that comes, and what is split off
// stays nearly empty. Computed for random keys that come in by parts of 1 to 30 percent of those that are there, pages are
// 0.68 full in the long run if they are left 0.6 full, 0.55 if 0.9, and 0.4 if they are left full; but after one addition
// of a half to full pages 0.64, 0.73 and 0.74.
type crowd struct {
	added  int
	shared int    // of these, with the same next neighbour as the one before
	next   []byte // neighbour of the last one, from before the transaction
}

const (
	fillScattered = 0.6
	fillCrowded   = 1.0

	// crowdedShare is from which part of shared neighbours on new keys crowd: one for two that are there, if they are anywhere.
	crowdedShare = 1.0 / 3
)

// add notes a new key by the next key that was there before, nil for none.
func (c *crowd) add(next []byte) {
	if c.added > 0 && bytes.Equal(c.next, next) {
		c.shared++
	}
	c.added++
	c.next = append(c.next[:0], next...) // it may go with the next change
}

// fill returns how full a page is to be left.
func (c *crowd) fill() float64 {
	if c.added > 0 && float64(c.shared) >= crowdedShare*float64(c.added) {
		return fillCrowded
	}
	return fillScattered
}

// DropOlder leaves out what the file has in a later version.
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
