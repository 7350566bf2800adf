package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/keyrange"
)

// Only records have checksums. If damage to something else would cost more than the damaged part itself, it is
// recognised and repaired when the file is opened.

// maxNumber bounds ids and revisions. Larger ones were never assigned, and numbers must not overflow.
const maxNumber = 1 << 62

// checkNumber returns an error for an id that was never assigned.
func checkNumber(id uint64) error {
	if id >= maxNumber {
		return fmt.Errorf("%w: a bucket has id %d", errs.ErrCorrupt, id)
	}
	return nil
}

// Names is Table, but repaired: each id has one name, and highest is not below any id in the file. An id that two
// buckets have, or that is assigned twice, would show the entries of one bucket in the other.
func (s *Store) Names() (ids map[string]uint64, retired []uint64, highest uint64, err error) {
	if ids, retired, highest, err = s.Table(); err != nil {
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
	s.countNames(ids)
	if err := checkNumber(highest); err != nil {
		return nil, nil, 0, err
	}
	if len(wrong) > 0 && !s.readOnly {
		err = s.Update(func(tx *bolt.Tx) error {
			for _, name := range wrong {
				if err := tx.Bucket(format.BucketsBucket).Delete([]byte(name)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return ids, retired, highest, err
}

// countNames computes how much of the file the names of buckets need.
func (s *Store) countNames(ids map[string]uint64) {
	page, named := s.Paging(), int64(0)
	for name := range ids {
		named += page.Name(len(name))
	}
	s.nameBytes.Store(named)
}

// sealedFor reports whether any of the first records with the given id is sealed for a bucket of that name.
func (s *Store) sealedFor(id uint64, name string) (bool, error) {
	sum, sealed := format.BucketSum(name), false
	_, _, err := s.Page(id, keyrange.Range{}, func(key, record []byte) int {
		_, _, err := format.Open(record, sum, string(key))
		sealed = sealed || err == nil
		return len(key) + len(record)
	})
	return sealed, err
}

// plausible reports whether the usage counts can be true for a file of so many bytes. Eviction relies on them, so a
// damaged count could cost the whole contents.
func plausible(used map[uint64]cost.Usage, file int64) bool {
	sum := int64(0)
	for _, u := range used {
		if u.Entries < 0 || u.Bytes < 0 || u.Entries > u.Bytes || u.Bytes > file || u.Leaf < 0 || u.Row < 0 {
			return false
		}
		if sum += u.Bytes; sum > file {
			return false
		}
	}
	return true
}

// repairCounts counts all entries again if the counts in the file cannot be true, or if they lack the costs because an
// older version has changed the file. update is the handle's, or the store's if it has the handle already.
func (h *Handle) repairCounts(update func(func(*bolt.Tx) error) error) error {
	sound, guessed := true, false
	err := h.view(func(tx *bolt.Tx) error {
		used, err := usedIn(tx)
		sound, guessed = plausible(used, tx.Size()), cost.Sum(used).Guessed
		return err
	})
	if err != nil || sound && !guessed {
		return err
	}
	err = update(recount)
	if sound && h.Err() == nil {
		return nil // an estimate is good enough, for example on a full disk
	}
	return err
}

// recount counts all entries again.
func recount(tx *bolt.Tx) error {
	counted, page := make(map[uint64]cost.Usage), pageOf(tx)
	w := scanner{tx: tx}
	for w.seek(position{}); w.k != nil; w.next() {
		counted[w.id] = counted[w.id].Plus(page.Of(w.k, format.RecordIn(w.v)))
	}
	if err := tx.DeleteBucket(format.UsageBucket); err != nil {
		return err
	}
	if err := tx.DeleteBucket(format.CostsBucket); err != nil && !errors.Is(err, berrors.ErrBucketNotFound) {
		return err
	}
	if _, err := tx.CreateBucket(format.UsageBucket); err != nil {
		return err
	}
	t, err := OpenUsage(tx)
	for id, u := range counted {
		if err == nil {
			err = t.Put(id, u)
		}
	}
	return err
}
