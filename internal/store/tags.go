package store

import (
	"bytes"
	"errors"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/format"
)

// TagRows returns the invalidated tags and the revision at which every tag counts as invalidated. Malformed rows,
// which only damage makes, are removed, except where the file is open for reading only. They may have been for any
// tag, so with one every tag counts as invalidated: that costs what has tags, and gives nobody a value too many.
func (s *Store) TagRows() (rows map[string]uint64, floor uint64, err error) {
	var damaged [][]byte
	rows = make(map[string]uint64)
	err = s.View(func(tx *bolt.Tx) error {
		floor = format.ReadUint64(tx.Bucket(format.MetaBucket).Get(format.MetaTagFloor))
		if damaged = readTagRows(tx.Bucket(format.TagsBucket), rows); len(damaged) > 0 {
			_, floor = revisionsIn(tx)
		}
		return nil
	})
	if err != nil || len(damaged) == 0 || s.readOnly {
		return rows, floor, err
	}
	err = s.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(format.TagsBucket)
		for _, tag := range damaged {
			if err := b.Delete(tag); err != nil {
				return err
			}
		}
		return errors.Join(b.SetSequence(uint64(len(rows))),
			tx.Bucket(format.MetaBucket).Put(format.MetaTagFloor, format.Uint64(floor)))
	})
	return rows, floor, err
}

// readTagRows reads the table of tags, which nil is an empty one of, into rows, and returns the keys of rows that
// are malformed.
func readTagRows(b *bolt.Bucket, rows map[string]uint64) (damaged [][]byte) {
	if b == nil {
		return nil
	}
	c := b.Cursor()
	for tag, revision := c.First(); tag != nil; tag, revision = c.Next() {
		if len(revision) == 8 && format.ValidName(string(tag)) {
			rows[string(tag)] = format.ReadUint64(revision)
		} else {
			damaged = append(damaged, bytes.Clone(tag))
		}
	}
	return damaged
}

// putTags enters the invalidations among names. They go in by the order of the tags, because bbolt's nodes are
// slices that grow without bound within a transaction. When there are too many rows it forgets the older half,
// and has every tag count as invalidated with them.
func putTags(tx *bolt.Tx, names []NameOp) error {
	fresh := make(map[string]uint64)
	for _, n := range names {
		if n.Tag {
			fresh[n.Name] = max(fresh[n.Name], n.Revision)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	b, err := tx.CreateBucketIfNotExists(format.TagsBucket)
	if err != nil {
		return err
	}
	if b.Sequence()+uint64(len(fresh)) > MaxTagRows {
		if b, err = foldTagRows(tx, b, fresh); err != nil {
			return err
		}
	}
	added := uint64(0)
	for _, tag := range slices.Sorted(maps.Keys(fresh)) {
		old := b.Get([]byte(tag))
		if old == nil {
			added++
		}
		if err := b.Put([]byte(tag), format.Uint64(max(fresh[tag], format.ReadUint64(old)))); err != nil {
			return err
		}
	}
	return b.SetSequence(b.Sequence() + added)
}

// foldTagRows adds the rows of b to fresh, takes the older half out, and returns an empty bucket for the rest.
func foldTagRows(tx *bolt.Tx, b *bolt.Bucket, fresh map[string]uint64) (*bolt.Bucket, error) {
	rows := make(map[string]uint64)
	damaged := readTagRows(b, rows)
	for tag, revision := range rows {
		fresh[tag] = max(fresh[tag], revision)
	}
	meta := tx.Bucket(format.MetaBucket)
	floor := max(FoldTags(fresh), format.ReadUint64(meta.Get(format.MetaTagFloor)))
	if len(damaged) > 0 {
		_, last := revisionsIn(tx)
		floor = max(floor, last)
	}
	if err := meta.Put(format.MetaTagFloor, format.Uint64(floor)); err != nil {
		return nil, err
	}
	if err := tx.DeleteBucket(format.TagsBucket); err != nil {
		return nil, err
	}
	return tx.CreateBucket(format.TagsBucket)
}

// MaxTagRows bounds the table of invalidated tags, which takes about 100 bytes a row in memory and in the file.
// When it is passed the older half is forgotten, and what was tagged before the forgotten invalidations counts as
// invalidated whatever its tags: for a cache that is a miss too many, and never a value too many.
const MaxTagRows = 65_536

// FoldTags takes the older half out of rows and returns the latest revision that it took out.
func FoldTags(rows map[string]uint64) (floor uint64) {
	revisions := slices.Sorted(maps.Values(rows))
	floor = revisions[len(revisions)/2]
	maps.DeleteFunc(rows, func(_ string, revision uint64) bool { return revision <= floor })
	return floor
}
