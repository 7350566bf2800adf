package store

import (
	"bytes"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/verify"
)

// AuditEntries returns a page of the entries of a bucket, beginning with key from, and whether more may follow. It
// proves records where they are, because a copy may need too much memory. A nil prove proves nothing.
func (s *Store) AuditEntries(id uint64, from []byte, prove verify.Prover) (page []verify.Entry, more bool, err error) {
	err = s.View(func(tx *bolt.Tx) error {
		b := entriesOf(tx, id)
		if b == nil {
			return nil
		}
		paging := pageOf(tx)
		expiry, c, size := tx.Bucket(format.ExpiryBucket), b.Cursor(), 0
		for k, v := c.Seek(from); k != nil; k, v = c.Next() {
			if len(page) == PageItems || size >= PageBytes {
				more = true
				return advances(from, page[len(page)-1].Key)
			}
			row, rec := format.SplitRow(v, k)
			e := verify.Entry{Key: bytes.Clone(k), Used: paging.Of(k, rec), Row: row}
			e.Stands = row != format.Never && row != format.UnknownRow && expiry.Get(format.ExpiryKey(row, id, k)) != nil
			if prove != nil {
				e.Header, e.Damage = prove(k, rec)
			}
			page = append(page, e)
			size += len(k) + len(v)
		}
		return nil
	})
	return page, more, err
}

// AuditRows returns a page of the expiry index, beginning with row from, and whether more may follow.
func (s *Store) AuditRows(from []byte) (page []verify.Row, more bool, err error) {
	err = s.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(format.ExpiryBucket).Cursor()
		for k, _ := c.Seek(from); k != nil; k, _ = c.Next() {
			if len(page) == PageItems {
				more = true
				return advances(from, page[len(page)-1].Raw)
			}
			r := verify.Row{Raw: bytes.Clone(k)}
			if row, id, key, ok := format.SplitExpiryKey(r.Raw); ok {
				r.ID, r.Key = id, key
				if b := entriesOf(tx, id); b != nil {
					stored := b.Get(key)
					at, _ := format.SplitRow(stored, key)
					r.Owned = stored != nil && at == row
				}
			}
			page = append(page, r)
		}
		return nil
	})
	return page, more, err
}

// AuditTags returns a page of the table of invalidated tags, beginning with tag from, and whether more may follow.
func (s *Store) AuditTags(from []byte) (page []verify.Tag, more bool, err error) {
	err = s.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(format.TagsBucket)
		if b == nil {
			return nil
		}
		c := b.Cursor()
		for k, v := c.Seek(from); k != nil; k, v = c.Next() {
			if len(page) == PageItems {
				more = true
				return advances(from, page[len(page)-1].Tag)
			}
			page = append(page, verify.Tag{Tag: bytes.Clone(k), Revision: bytes.Clone(v)})
		}
		return nil
	})
	return page, more, err
}

// TagCount returns how many rows the table of invalidated tags claims to have, and the revision up to which every tag
// counts as invalidated.
func (s *Store) TagCount() (rows, floor uint64, err error) {
	err = s.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket(format.TagsBucket); b != nil {
			rows = b.Sequence()
		}
		floor = format.ReadUint64(tx.Bucket(format.MetaBucket).Get(format.MetaTagFloor))
		return nil
	})
	return rows, floor, err
}

// advances returns an error if a page of keys that begins at from ends before from: the pages would never end.
func advances(from, last []byte) error {
	if bytes.Compare(last, from) < 0 {
		return fmt.Errorf("%w: %w", errs.ErrCorrupt, errKeyOrder)
	}
	return nil
}
