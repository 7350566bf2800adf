package keepcache

import (
	"bytes"

	bolt "go.etcd.io/bbolt"
)

// change is what a transaction does to one key.
type change struct {
	id       uint64
	key      []byte
	record   []byte // sealed; nil removes the key
	goneAt   int64  // of the record
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

// fillPercent is how full a page is left when it is split. Measured with 100,000 entries of 250 bytes, by
// the size of the file over the logical bytes: 1.46 after they came in ascending order (2.70 with bbolt's
// default of 0.5) and 1.84 in random order (2.29); 2.01 and 2.69 after each was overwritten ten times (3.69 and
// 2.76). Commits are sorted, so pages are mostly filled from one end.
const fillPercent = 0.9

// sizeOf estimates by how much a transaction may make the file grow: what it writes, and the pages on the
// way to it.
func sizeOf(changes []*change) (bytes int64) {
	const pages = 16 << 10
	for _, c := range changes {
		bytes += int64(len(c.key)+len(c.record)) + pages
	}
	return bytes
}

// apply makes the changes, which are sorted by id and key, and the namings in one transaction, after which
// the file contains every revision up to mark. after, if there is one, is part of the transaction.
func (s *store) apply(names []naming, changes []*change, mark uint64, after func(freeing) error) error {
	defer s.withhold(sizeOf(changes))()
	return s.update(func(tx *bolt.Tx) error {
		table := tx.Bucket(bucketsBucket)
		if err := putTags(tx, names); err != nil {
			return err
		}
		for _, n := range names {
			if n.tag {
				continue
			}
			if err := applyNaming(table, n); err != nil {
				return err
			}
		}
		entries, expiry := tx.Bucket(entriesBucket), tx.Bucket(expiryBucket)
		expiry.FillPercent = fillPercent
		a := applier{expiry: expiry, book: s.book(), room: make([]byte, 0, storedBytes(changes))}
		for i, c := range changes {
			if i == 0 || c.id != changes[i-1].id {
				b, err := entries.CreateBucketIfNotExists(encodeUint64(c.id))
				if err != nil {
					return err
				}
				b.FillPercent = fillPercent
				a.entries, a.cursor = b, b.Cursor()
			}
			if err := a.apply(c); err != nil {
				return err
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
		return putRevisions(tx.Bucket(metaBucket), mark, changes)
	})
}

// putRevisions stores the mark, and the highest revision where a transaction went beyond the mark: one that
// is followed by others of the same commit, or that caught writes that came while it was gathered.
func putRevisions(meta *bolt.Bucket, mark uint64, changes []*change) error {
	highest := decodeUint64(meta.Get(metaHighest))
	before := highest
	for _, c := range changes {
		highest = max(highest, c.revision)
	}
	if highest > before {
		if err := meta.Put(metaHighest, encodeUint64(highest)); err != nil {
			return err
		}
	}
	return meta.Put(metaSequence, encodeUint64(mark))
}

func applyNaming(table *bolt.Bucket, n naming) error {
	if n.id == 0 {
		return table.Delete([]byte(n.name))
	}
	if n.id > table.Sequence() {
		if err := table.SetSequence(n.id); err != nil {
			return err
		}
	}
	return table.Put([]byte(n.name), encodeUint64(n.id))
}

// applier makes changes in one transaction.
type applier struct {
	entries *bolt.Bucket // of the bucket at hand
	cursor  *bolt.Cursor // in it
	expiry  *bolt.Bucket
	book    *ledger
	rows    [][]byte // of the expiry index, which are still to be put
	room    []byte   // for the stored values, which bbolt keeps until the transaction ends: one allocation for all
}

// storedBytes returns how many bytes of stored values changes bring.
func storedBytes(changes []*change) (n int) {
	for _, c := range changes {
		if c.record != nil {
			n += rowSize + len(c.record)
		}
	}
	return n
}

// apply puts or removes one entry, takes its expiry row off the index where that has to go, and says which is to be
// put. The row of an entry is never later than the
// time it is gone, so a row that stands early enough stays as it is: the sweeper will move it.
func (a *applier) apply(c *change) error {
	k, stored := a.cursor.Seek(c.key)
	if !bytes.Equal(k, c.key) {
		stored = nil
	}
	row, old := splitRow(stored, c.key)
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
	if c.goneAt == never || row == never || row == unknown || row > c.goneAt {
		if err := dropRow(a.expiry, row, c.id, c.key, old); err != nil {
			return err
		}
		if row = c.goneAt; row != never {
			a.rows = append(a.rows, expiryKey(row, c.id, c.key))
		}
	}
	a.book.add(c.id, c.key, c.record)
	at := len(a.room)
	a.room = appendRow(a.room, row, c.key, c.record)
	return a.entries.Put(c.key, a.room[at:len(a.room):len(a.room)])
}
