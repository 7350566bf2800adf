package keepcache

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/format"
)

// costRow is the length of a row of bucket costs.
const costRow = 20

// costSum returns the check of a row: over the id, the row of its usage and the costs. An older keepcache changes the
// usage and not the costs, which are void then.
func costSum(id, used, costs []byte) uint32 {
	sum := crc32.Update(0, format.Castagnoli, id)
	sum = crc32.Update(sum, format.Castagnoli, used)
	return crc32.Update(sum, format.Castagnoli, costs[:costRow-4])
}

// usageRow returns the row of bucket usage.
func (u usage) usageRow() []byte {
	return binary.BigEndian.AppendUint64(format.Uint64(uint64(u.entries)), uint64(u.bytes))
}

// costsRow returns the row of bucket costs.
func (u usage) costsRow(id []byte) []byte {
	row := make([]byte, 0, costRow)
	row = binary.BigEndian.AppendUint64(row, uint64(u.leaf))
	row = binary.BigEndian.AppendUint64(row, uint64(u.row))
	return binary.BigEndian.AppendUint32(row, costSum(id, u.usageRow(), append(row, 0, 0, 0, 0)))
}

// readUsage reads the rows of an id in both tables. Where there are no costs, or void ones, they are estimated.
func (p paging) readUsage(id, used, costs []byte) (u usage) {
	if len(used) != 16 {
		return usage{}
	}
	u.entries, u.bytes = int64(binary.BigEndian.Uint64(used)), int64(binary.BigEndian.Uint64(used[8:]))
	switch {
	case len(costs) == costRow && binary.BigEndian.Uint32(costs[costRow-4:]) == costSum(id, used, costs):
		u.leaf, u.row = int64(binary.BigEndian.Uint64(costs)), int64(binary.BigEndian.Uint64(costs[8:]))
	case u.entries > 0 && u.bytes >= u.entries:
		each := min(u.bytes/u.entries, formatMaxValueBytes)
		key := min(usualKey, each)
		u.leaf, u.row = u.entries*p.entry(int(key), int(each-key)), u.entries*p.row(int(key))
		u.guessed = true
	case u.entries != 0:
		u.guessed = true
	}
	return u
}

// usualKey is how long keys are taken to be where only the sum of keys and records is known.
const usualKey = 32

// usageTable is where the file keeps the usage of each id.
type usageTable struct {
	page        paging
	used, costs *bolt.Bucket
}

// openUsage opens it to be changed.
func openUsage(tx *bolt.Tx) (t usageTable, err error) {
	t = usageTable{page: pageOf(tx), used: tx.Bucket(format.UsageBucket)}
	if t.costs, err = tx.CreateBucketIfNotExists(format.CostsBucket); err == nil {
		t.used.FillPercent, t.costs.FillPercent = copyPercent, copyPercent // ids rise, and rows do not grow
	}
	return t, err
}

func (t usageTable) get(id uint64) usage {
	key := format.Uint64(id)
	return t.page.readUsage(key, t.used.Get(key), t.costs.Get(key))
}

// put stores the usage of an id, but no costs that are guessed, and nothing for an id without entries.
func (t usageTable) put(id uint64, u usage) error {
	if u.entries == 0 {
		return t.remove(id)
	}
	key := format.Uint64(id)
	if err := t.used.Put(key, u.usageRow()); err != nil {
		return err
	}
	if u.guessed {
		return t.costs.Delete(key)
	}
	return t.costs.Put(key, u.costsRow(key))
}

func (t usageTable) remove(id uint64) error {
	key := format.Uint64(id)
	if err := t.used.Delete(key); err != nil {
		return err
	}
	return t.costs.Delete(key)
}

// eachUsage calls fn with the usage of each id.
func eachUsage(tx *bolt.Tx, fn func(id uint64, u usage)) error {
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
		fn(format.ReadUint64(id), page.readUsage(id, own, theirs))
		return nil
	})
}

// usedIn returns the usage of each id.
func usedIn(tx *bolt.Tx) (map[uint64]usage, error) {
	used := make(map[uint64]usage)
	return used, eachUsage(tx, func(id uint64, u usage) { used[id] = u })
}

// used returns the usage of each id, and under 0, which no bucket has, what the buckets themselves need.
func (s *store) used(tx *bolt.Tx) (map[uint64]usage, error) {
	used, err := usedIn(tx)
	page, own := pageOf(tx), s.named.Load()
	for _, u := range used {
		own += page.bucket(u)
	}
	used[0] = usage{leaf: own}
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

// measure returns the size of the file and what entries and buckets cost. Where the file has not changed it knows.
func (s *store) measure() (file, cost int64, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		m := s.measured.Load()
		if m == nil || m.db != tx.DB() || m.txid != tx.ID() {
			m = &measured{db: tx.DB(), txid: tx.ID(), file: tx.Size()}
			page := pageOf(tx)
			if err := eachUsage(tx, func(_ uint64, u usage) {
				m.cost += u.cost() + page.bucket(u)
				m.all += u.entries
			}); err != nil {
				return err
			}
			s.measured.Store(m)
		}
		file, cost = m.file, m.cost+s.named.Load()
		return nil
	})
	return file, cost, err
}

// scattered returns what the pages of a commit are estimated by: nothing yet. Its rows come in together, at the end of those of
// their time.
func (s *store) scattered() scattered {
	p := scattered{page: s.paging()}
	if _, _, err := s.measure(); err == nil {
		p.among = s.measured.Load().all
	}
	return p
}

// sum adds up what used returned.
func sum(used map[uint64]usage) (all usage) {
	for _, u := range used {
		all = all.plus(u)
	}
	return all
}

// pageOf returns the size of the pages of a file.
func pageOf(tx *bolt.Tx) paging { return paging(tx.DB().Info().PageSize) }
