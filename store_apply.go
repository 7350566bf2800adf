package keepcache

import (
	"bytes"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/format"
)

// change is what a transaction does to one key.
type change struct {
	id       uint64
	key      []byte
	record   []byte // sealed; nil removes the key
	stored   []byte // the same with room for its row in front, which is the transaction's; nil if there is none
	goneAt   int64  // of the record
	at       int64  // when it was decided, or 0
	late     bool   // set by the transaction: what the file had under the key had expired by then
	revision uint64
}

// naming points a bucket's name at an id, or invalidates a tag. An id of 0 takes the name away.
type naming struct {
	name     string
	id       uint64
	old      uint64 // the id that the name stood for until now, or 0
	tag      bool   // name is the tag that is invalidated, and there is no id
	revision uint64 // its own
}

// rowFill is how full a page of the expiry index is left when it is split. Rows mostly come in at the end of those of their time.
const rowFill = 0.9

// neighbours is how many other records bbolt leaves in a page, whatever their size.
const neighbours = 4

// sizeOf estimates by how much a transaction may make the file grow: what it writes, and the pages on the
// way to it, with what is in these already.
func sizeOf(names []naming, changes []*change) (bytes int64) {
	const pages = 16 << 10
	largest := int64(0)
	bytes = int64(len(names)) * pages
	for _, c := range changes {
		n := int64(len(c.key) + len(c.record))
		bytes += n + pages
		largest = max(largest, n)
	}
	return bytes + neighbours*largest
}

// apply makes the changes, which are sorted by id and key, and the namings in one transaction, after which
// the file contains every revision up to mark, and no id up to given is given out again. after, if there is one, is part of the
// transaction.
func (s *store) apply(names []naming, given uint64, changes []*change, mark uint64, after func(freeing) error) (err error) {
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
			if n.tag {
				continue
			}
			switch before := table.Get([]byte(n.name)) != nil; {
			case !before && n.id != 0:
				named += page.name(len(n.name))
			case before && n.id == 0:
				named -= page.name(len(n.name))
			}
			given = max(given, n.id)
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
			if i == 0 || c.id != changes[i-1].id {
				b, err := entries.CreateBucketIfNotExists(format.Uint64(c.id))
				if err != nil {
					return err
				}
				a.entries, a.cursor, a.crowd = b, b.Cursor(), crowd{}
			}
			if err := a.apply(c); err != nil {
				return err
			}
			if i == len(changes)-1 || changes[i+1].id != c.id {
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
			if err := after(freeing{s, tx}); err != nil {
				return err
			}
		}
		return putRevisions(tx.Bucket(format.MetaBucket), mark, names, changes)
	})
}

// putRevisions stores the mark, and the highest revision where a transaction went beyond the mark: one that
// is followed by others of the same commit, or that caught writes that came while it was gathered.
func putRevisions(meta *bolt.Bucket, mark uint64, names []naming, changes []*change) error {
	highest := format.ReadUint64(meta.Get(format.MetaHighest))
	before := highest
	for _, c := range changes {
		highest = max(highest, c.revision)
	}
	for _, n := range names {
		highest = max(highest, n.revision)
	}
	if highest > before {
		if err := meta.Put(format.MetaHighest, format.Uint64(highest)); err != nil {
			return err
		}
	}
	return meta.Put(format.MetaSequence, format.Uint64(mark))
}

func applyNaming(table *bolt.Bucket, n naming) error {
	if n.id == 0 {
		return table.Delete([]byte(n.name))
	}
	return table.Put([]byte(n.name), format.Uint64(n.id))
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
func (a *applier) apply(c *change) error {
	k, stored := a.cursor.Seek(c.key)
	if !bytes.Equal(k, c.key) {
		stored = nil
		if c.record != nil {
			a.crowd.add(k)
		}
	}
	row, old := format.SplitRow(stored, c.key)
	c.late = expiredBy(old, c.at)
	if old != nil {
		a.book.remove(c.id, c.key, old)
	}
	if c.record == nil {
		if old == nil {
			return nil
		}
		if err := dropRow(a.expiry, row, c.id, c.key, old); err != nil {
			return err
		}
		return a.entries.Delete(c.key)
	}
	if c.goneAt == format.Never || row == format.Never || row == format.UnknownRow || row > c.goneAt {
		if err := dropRow(a.expiry, row, c.id, c.key, old); err != nil {
			return err
		}
		if row = format.RowTime(c.goneAt, a.now); row != format.Never {
			a.rows = append(a.rows, format.ExpiryKey(row, c.id, c.key))
		}
	}
	a.book.add(c.id, c.key, c.record)
	if c.stored == nil || a.copies {
		return a.entries.Put(c.key, format.JoinRow(row, c.key, c.record))
	}
	format.PutRow(c.stored, row, c.key)
	return a.entries.Put(c.key, c.stored)
}

// expiredBy reports whether a record, which nobody has proved, says that its entry was gone at a time. Of one whose life reads
// prolong it does not know how long that was.
func expiredBy(record []byte, at int64) bool {
	gone := format.GoneAt(record)
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
