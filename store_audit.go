package keepcache

import (
	"bytes"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/format"
)

// audited is an entry of the file, with what the expiry index says of it in the same transaction.
type audited struct {
	key    []byte
	used   usage // of the entry
	header format.Header
	damage error // what prove said of the record

	row    int64 // its index row
	stands bool  // there is a row at that time in the expiry index
}

// auditEntries returns a page of the entries of a bucket from key from on, and whether more may follow. The records are proved where
// they are, because a copy of one may be too much for the memory; a nil prove proves nothing.
func (s *store) auditEntries(id uint64, from []byte, prove prover) (page []audited, more bool, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		b := entriesOf(tx, id)
		if b == nil {
			return nil
		}
		paging := pageOf(tx)
		expiry, c, size := tx.Bucket(format.ExpiryBucket), b.Cursor(), 0
		for k, v := c.Seek(from); k != nil; k, v = c.Next() {
			if len(page) == pageItems || size >= pageBytes {
				more = true
				return advances(from, page[len(page)-1].key)
			}
			row, rec := format.SplitRow(v, k)
			e := audited{key: bytes.Clone(k), used: paging.of(k, rec), row: row}
			e.stands = row != format.Never && row != format.UnknownRow && expiry.Get(format.ExpiryKey(row, id, k)) != nil
			if prove != nil {
				e.header, e.damage = prove(k, rec)
			}
			page = append(page, e)
			size += len(k) + len(v)
		}
		return nil
	})
	return page, more, err
}

// auditedRow is a row of the expiry index.
type auditedRow struct {
	raw   []byte
	id    uint64
	key   []byte
	owned bool // there is an entry whose index row is this one
}

// auditRows returns a page of the expiry index from row from on, and whether more may follow.
func (s *store) auditRows(from []byte) (page []auditedRow, more bool, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(format.ExpiryBucket).Cursor()
		for k, _ := c.Seek(from); k != nil; k, _ = c.Next() {
			if len(page) == pageItems {
				more = true
				return advances(from, page[len(page)-1].raw)
			}
			r := auditedRow{raw: bytes.Clone(k)}
			if row, id, key, ok := format.SplitExpiryKey(r.raw); ok {
				r.id, r.key = id, key
				if b := entriesOf(tx, id); b != nil {
					stored := b.Get(key)
					at, _ := format.SplitRow(stored, key)
					r.owned = stored != nil && at == row
				}
			}
			page = append(page, r)
		}
		return nil
	})
	return page, more, err
}

// auditedTag is a row of the table of invalidated tags.
type auditedTag struct{ tag, revision []byte }

// auditTags returns a page of the table of invalidated tags from a tag on, and whether more may follow.
func (s *store) auditTags(from []byte) (page []auditedTag, more bool, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		b := tx.Bucket(format.TagsBucket)
		if b == nil {
			return nil
		}
		c := b.Cursor()
		for k, v := c.Seek(from); k != nil; k, v = c.Next() {
			if len(page) == pageItems {
				more = true
				return advances(from, page[len(page)-1].tag)
			}
			page = append(page, auditedTag{bytes.Clone(k), bytes.Clone(v)})
		}
		return nil
	})
	return page, more, err
}

// tagCount returns how many rows the table of invalidated tags says that it has, and the revision at which every
// tag counts as invalidated.
func (s *store) tagCount() (rows, floor uint64, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		if b := tx.Bucket(format.TagsBucket); b != nil {
			rows = b.Sequence()
		}
		floor = format.ReadUint64(tx.Bucket(format.MetaBucket).Get(format.MetaTagFloor))
		return nil
	})
	return rows, floor, err
}
