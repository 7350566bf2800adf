package keepcache

import (
	"fmt"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// tagRows returns the invalidated tags and the revision at which every tag counts as invalidated.
func (s *store) tagRows() (rows map[string]uint64, floor uint64, err error) {
	rows = make(map[string]uint64)
	err = s.view(func(tx *bolt.Tx) error {
		floor = decodeUint64(tx.Bucket(metaBucket).Get(metaTagFloor))
		return readTagRows(tx.Bucket(tagsBucket), rows)
	})
	return rows, floor, err
}

// readTagRows reads the table of tags, which nil is an empty one of, into rows.
func readTagRows(b *bolt.Bucket, rows map[string]uint64) error {
	if b == nil {
		return nil
	}
	return b.ForEach(func(tag, revision []byte) error {
		if len(revision) != 8 || len(tag) > MaxTagBytes {
			return fmt.Errorf("%w: the table of tags has a malformed row", ErrCorrupt)
		}
		rows[string(tag)] = decodeUint64(revision)
		return nil
	})
}

// putTags enters the invalidations among names. They go in by the order of the tags, because bbolt's nodes are
// slices that grow without bound within a transaction. When there are too many rows it forgets the older half,
// and has every tag count as invalidated with them.
func putTags(tx *bolt.Tx, names []naming) error {
	fresh := make(map[string]uint64)
	for _, n := range names {
		if n.tag {
			fresh[n.name] = max(fresh[n.name], n.revision)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	b, err := tx.CreateBucketIfNotExists(tagsBucket)
	if err != nil {
		return err
	}
	if b.Sequence()+uint64(len(fresh)) > mostTagRows {
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
		if err := b.Put([]byte(tag), encodeUint64(max(fresh[tag], decodeUint64(old)))); err != nil {
			return err
		}
	}
	return b.SetSequence(b.Sequence() + added)
}

// foldTagRows adds the rows of b to fresh, takes the older half out, and returns an empty bucket for the rest.
func foldTagRows(tx *bolt.Tx, b *bolt.Bucket, fresh map[string]uint64) (*bolt.Bucket, error) {
	rows := make(map[string]uint64)
	if err := readTagRows(b, rows); err != nil {
		return nil, err
	}
	for tag, revision := range rows {
		fresh[tag] = max(fresh[tag], revision)
	}
	meta := tx.Bucket(metaBucket)
	floor := max(foldTags(fresh), decodeUint64(meta.Get(metaTagFloor)))
	if err := meta.Put(metaTagFloor, encodeUint64(floor)); err != nil {
		return nil, err
	}
	if err := tx.DeleteBucket(tagsBucket); err != nil {
		return nil, err
	}
	return tx.CreateBucket(tagsBucket)
}
