package keepcache

import (
	"encoding/binary"

	bolt "go.etcd.io/bbolt"
)

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
