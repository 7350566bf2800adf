package store

import (
	"bytes"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/format"
)

// usageTable is where the file keeps the usage of each id.
type usageTable struct {
	page        cost.Paging
	used, costs *bolt.Bucket
}

// OpenUsage opens it to be changed.
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

// Put stores the usage of an id, but no costs that are guessed, and nothing for an id without entries.
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
	var row, costs []byte // of the next costs: both tables are in the same order
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

// used returns the usage of each id, and under 0, which no bucket has, what the buckets themselves need.
func (s *Store) used(tx *bolt.Tx) (map[uint64]cost.Usage, error) {
	used, err := usedIn(tx)
	page, own := pageOf(tx), s.named.Load()
	for _, u := range used {
		own += page.Bucket(u)
	}
	used[0] = cost.Usage{Leaf: own}
	return used, err
}

// measured is how large the file is and what is in it, as of a transaction.
type measured struct {
	db   *bolt.DB
	txid int
	file int64
	cost int64 // without the names of buckets
	all  int64 // entries
}

// Measure returns the size of the file and what entries and buckets need of it. Where the file has not changed it knows.
func (s *Store) Measure() (file, need int64, err error) {
	err = s.View(func(tx *bolt.Tx) error {
		m := s.measured.Load()
		if m == nil || m.db != tx.DB() || m.txid != tx.ID() {
			m = &measured{db: tx.DB(), txid: tx.ID(), file: tx.Size()}
			page := pageOf(tx)
			if err := eachUsage(tx, func(_ uint64, u cost.Usage) {
				m.cost += u.Cost() + page.Bucket(u)
				m.all += u.Entries
			}); err != nil {
				return err
			}
			s.measured.Store(m)
		}
		file, need = m.file, m.cost+s.named.Load()
		return nil
	})
	return file, need, err
}

// Scattered returns what the pages of a commit are estimated by: nothing yet. Its rows come in together, at the end of those of
// their time.
func (s *Store) Scattered() cost.Scattered {
	p := cost.Scattered{Page: s.Paging()}
	if _, _, err := s.Measure(); err == nil {
		p.Among = s.measured.Load().all
	}
	return p
}

// pageOf returns the size of the pages of a file.
func pageOf(tx *bolt.Tx) cost.Paging { return cost.Paging(tx.DB().Info().PageSize) }

// SizeWith is Size with the usage as it will be when what is pending is committed. The sample was taken before: an
// entry that has been committed since is found in the file, and changes nothing.
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
