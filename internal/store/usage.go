package store

import (
	"bytes"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/format"
)

// usageTable is the file's table of the usage of each id.
type usageTable struct {
	page        cost.Paging
	used, costs *bolt.Bucket
}

// OpenUsage opens the table for writing.
func OpenUsage(tx *bolt.Tx) (t usageTable, err error) {
	t = usageTable{page: pageOf(tx), used: tx.Bucket(format.UsageBucket)}
	if t.costs, err = tx.CreateBucketIfNotExists(format.CostsBucket); err == nil {
		t.used.FillPercent, t.costs.FillPercent = cost.FillPercent, cost.FillPercent // ids rise, and rows do not grow
	}
	return t, err
}

func (t usageTable) get(id uint64) cost.Usage {
	key := format.Uint64(id)
	return t.page.ReadUsage(key, t.used.Get(key), t.costs.Get(key))
}

// Put stores the usage of an id. It stores no guessed costs, and nothing for an id without entries.
func (t usageTable) Put(id uint64, u cost.Usage) error {
	if u.Entries == 0 {
		return t.remove(id)
	}
	key := format.Uint64(id)
	if err := t.used.Put(key, u.UsageRow()); err != nil {
		return err
	}
	if u.Guessed {
		return t.costs.Delete(key)
	}
	return t.costs.Put(key, u.CostsRow(key))
}

func (t usageTable) remove(id uint64) error {
	key := format.Uint64(id)
	if err := t.used.Delete(key); err != nil {
		return err
	}
	return t.costs.Delete(key)
}

// eachUsage calls fn with the usage of each id.
func eachUsage(tx *bolt.Tx, fn func(id uint64, u cost.Usage)) error {
	page := pageOf(tx)
	var row, costs []byte // the next row of costs: both tables have the same order
	next := func() ([]byte, []byte) { return nil, nil }
	if b := tx.Bucket(format.CostsBucket); b != nil {
		c := b.Cursor()
		row, costs = c.First()
		next = c.Next
	}
	return tx.Bucket(format.UsageBucket).ForEach(func(id, own []byte) error {
		for row != nil && bytes.Compare(row, id) < 0 {
			row, costs = next()
		}
		var theirs []byte
		if bytes.Equal(row, id) {
			theirs = costs
		}
		fn(format.ReadUint64(id), page.ReadUsage(id, own, theirs))
		return nil
	})
}

// usedIn returns the usage of each id.
func usedIn(tx *bolt.Tx) (map[uint64]cost.Usage, error) {
	used := make(map[uint64]cost.Usage)
	return used, eachUsage(tx, func(id uint64, u cost.Usage) { used[id] = u })
}

// used returns the usage of each id. Under 0, which is no bucket's id, it returns what the buckets themselves need.
func (s *Store) used(tx *bolt.Tx) (map[uint64]cost.Usage, error) {
	used, err := usedIn(tx)
	page, own := pageOf(tx), s.nameBytes.Load()
	for _, u := range used {
		own += page.Bucket(u)
	}
	used[0] = cost.Usage{Leaf: own}
	return used, err
}

// measured is the result of Measure, as of a transaction.
type measured struct {
	db      *bolt.DB
	txid    int
	file    int64
	cost    int64 // without the names of buckets
	entries int64
}

// Measure returns the size of the file and what entries and buckets need of it. It reads nothing if the file has not
// changed.
func (s *Store) Measure() (file, need int64, err error) {
	err = s.View(func(tx *bolt.Tx) error {
		m := s.measured.Load()
		if m == nil || m.db != tx.DB() || m.txid != tx.ID() {
			m = &measured{db: tx.DB(), txid: tx.ID(), file: tx.Size()}
			page := pageOf(tx)
			if err := eachUsage(tx, func(_ uint64, u cost.Usage) {
				m.cost += u.Cost() + page.Bucket(u)
				m.entries += u.Entries
			}); err != nil {
				return err
			}
			s.measured.Store(m)
		}
		file, need = m.file, m.cost+s.nameBytes.Load()
		return nil
	})
	return file, need, err
}

// Scattered returns an empty estimate of the pages of a commit. New expiry rows go in together, at the end of the
// index.
func (s *Store) Scattered() cost.Scattered {
	p := cost.Scattered{Page: s.Paging()}
	if _, _, err := s.Measure(); err == nil {
		p.Among = s.measured.Load().entries
	}
	return p
}

// pageOf returns the page size of a file.
func pageOf(tx *bolt.Tx) cost.Paging { return cost.Paging(tx.DB().Info().PageSize) }

// SizeWith is Size, with the usage as it will be when p is committed. An entry of p that has been committed meanwhile
// is found in the file and changes nothing.
func (s *Store) SizeWith(p *cost.Pending) (file int64, used map[uint64]cost.Usage, err error) {
	err = s.View(func(tx *bolt.Tx) (err error) {
		file = tx.Size()
		if used, err = s.used(tx); err != nil {
			return err
		}
		for id := range p.Keys {
			b := entriesOf(tx, id)
			change, err := p.Change(id, func(key string) (int64, error) {
				if b == nil {
					return 0, nil
				}
				if stored := b.Get([]byte(key)); stored != nil {
					return int64(len(key) + len(format.RecordIn(stored))), nil
				}
				return 0, nil
			})
			if err != nil {
				return err
			}
			used[id] = used[id].After(change)
		}
		return nil
	})
	return file, used, err
}
