package keepcache

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// What is no record has no checksum. Where damage to it would cost more than what was damaged, it is recognised when
// the file is opened, and put right.

// mostNumber bounds ids and revisions: those beyond it nobody has given out, and they must not wrap around.
const mostNumber = 1 << 62

// checkNumber returns an error for an id that nobody has given out.
func checkNumber(id uint64) error {
	if id >= mostNumber {
		return fmt.Errorf("%w: a bucket has id %d", ErrCorrupt, id)
	}
	return nil
}

// names is table, put right: no two names have one id, and the highest id is above all that the file holds. An id
// that two buckets have, or that is given out twice, would show the entries of one in the other.
func (s *store) names() (ids map[string]uint64, retired []uint64, highest uint64, err error) {
	if ids, retired, highest, err = s.table(); err != nil {
		return nil, nil, 0, err
	}
	owners := make(map[uint64]string, len(ids))
	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(ids)) {
		id := ids[name]
		highest = max(highest, id)
		other, taken := owners[id]
		if taken {
			var theirs bool
			if theirs, err = s.sealedFor(id, name); err != nil {
				return nil, nil, 0, err
			}
			if !theirs {
				name, other = other, name
			}
			wrong = append(wrong, other)
			delete(ids, other)
		}
		owners[id] = name
	}
	for _, id := range retired {
		highest = max(highest, id)
	}
	if err := checkNumber(highest); err != nil {
		return nil, nil, 0, err
	}
	if len(wrong) > 0 && !s.readOnly {
		err = s.update(func(tx *bolt.Tx) error {
			for _, name := range wrong {
				if err := tx.Bucket(bucketsBucket).Delete([]byte(name)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return ids, retired, highest, err
}

// sealedFor reports whether a record with the given id is sealed for a bucket of that name.
func (s *store) sealedFor(id uint64, name string) (bool, error) {
	items, _, err := s.page(id, nil, nil)
	sum := nameSum(name)
	return slices.ContainsFunc(items, func(i item) bool {
		_, _, err := openRecord(i.record, sum, string(i.key))
		return err == nil
	}), err
}

// plausible reports whether the counts of a file of so many bytes can be true. Entries are evicted by them, so that a
// damaged one could cost all that is in the file.
func plausible(used map[uint64]usage, file int64) bool {
	sum := int64(0)
	for _, u := range used {
		if u.entries < 0 || u.bytes < 0 || u.entries > u.bytes || u.bytes > file {
			return false
		}
		if sum += u.bytes; sum > file {
			return false
		}
	}
	return true
}

// mendCounts counts all entries anew if the counts that the file keeps cannot be true.
func (s *store) mendCounts() error {
	sound := true
	err := s.view(func(tx *bolt.Tx) error {
		used, err := usedIn(tx)
		sound = plausible(used, tx.Size())
		return err
	})
	if err != nil || sound {
		return err
	}
	return s.update(func(tx *bolt.Tx) error {
		counted := make(map[uint64]usage)
		w := forwards{tx: tx}
		for w.seek(placed{}); w.k != nil; w.next() {
			_, rec := splitRow(w.v, w.k)
			u := counted[w.id]
			counted[w.id] = usage{u.entries + 1, u.bytes + int64(len(w.k)+len(rec))}
		}
		if err := tx.DeleteBucket(usageBucket); err != nil {
			return err
		}
		b, err := tx.CreateBucket(usageBucket)
		if err != nil {
			return err
		}
		for id, u := range counted {
			row := binary.BigEndian.AppendUint64(encodeUint64(uint64(u.entries)), uint64(u.bytes))
			if err := b.Put(encodeUint64(id), row); err != nil {
				return err
			}
		}
		return nil
	})
}
