package cost

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/keepcache/keepcache/internal/format"
)

// Usage is what the entries of one bucket amount to, expired ones that the sweeper has not reached included.
type Usage struct {
	Entries int64
	Bytes   int64 // of keys and records
	Leaf    int64 // bytes of the file that they need in their bucket
	Row     int64 // bytes of the file that their rows need in the expiry index
	Guessed bool  // the last two are an estimate: an older keepcache has changed the file
}

// Cost is what entries need of the file, as budgets count it.
func (u Usage) Cost() int64 { return u.Leaf + u.Row }

func (u Usage) Plus(v Usage) Usage {
	return Usage{u.Entries + v.Entries, u.Bytes + v.Bytes, u.Leaf + v.Leaf, u.Row + v.Row, u.Guessed || v.Guessed}
}

func (u Usage) Minus(v Usage) Usage {
	return Usage{u.Entries - v.Entries, u.Bytes - v.Bytes, u.Leaf - v.Leaf, u.Row - v.Row, u.Guessed || v.Guessed}
}

// After returns the usage after a change, but what it costs as it is. It is never negative: the change may be an
// estimate.
func (u Usage) After(change Usage) Usage {
	u.Entries, u.Bytes = max(u.Entries+change.Entries, 0), max(u.Bytes+change.Bytes, 0)
	return u
}

// costRow is the length of a row of bucket costs.
const costRow = 20

// costSum returns the check of a row: over the id, the row of its usage and the costs. An older keepcache changes the
// usage and not the costs, which are void then.
func costSum(id, used, costs []byte) uint32 {
	sum := crc32.Update(0, format.Castagnoli, id)
	sum = crc32.Update(sum, format.Castagnoli, used)
	return crc32.Update(sum, format.Castagnoli, costs[:costRow-4])
}

// UsageRow returns the row of bucket usage.
func (u Usage) UsageRow() []byte {
	return binary.BigEndian.AppendUint64(format.Uint64(uint64(u.Entries)), uint64(u.Bytes))
}

// CostsRow returns the row of bucket costs.
func (u Usage) CostsRow(id []byte) []byte {
	row := make([]byte, 0, costRow)
	row = binary.BigEndian.AppendUint64(row, uint64(u.Leaf))
	row = binary.BigEndian.AppendUint64(row, uint64(u.Row))
	return binary.BigEndian.AppendUint32(row, costSum(id, u.UsageRow(), append(row, 0, 0, 0, 0)))
}

// ReadUsage reads the rows of an id in both tables. Where there are no costs, or void ones, they are estimated.
func (p Paging) ReadUsage(id, used, costs []byte) (u Usage) {
	if len(used) != 16 {
		return Usage{}
	}
	u.Entries, u.Bytes = int64(binary.BigEndian.Uint64(used)), int64(binary.BigEndian.Uint64(used[8:]))
	switch {
	case len(costs) == costRow && binary.BigEndian.Uint32(costs[costRow-4:]) == costSum(id, used, costs):
		u.Leaf, u.Row = int64(binary.BigEndian.Uint64(costs)), int64(binary.BigEndian.Uint64(costs[8:]))
	case u.Entries > 0 && u.Bytes >= u.Entries:
		each := min(u.Bytes/u.Entries, format.MaxValueBytes)
		key := min(usualKey, each)
		u.Leaf, u.Row = u.Entries*p.Entry(int(key), int(each-key)), u.Entries*p.Row(int(key))
		u.Guessed = true
	case u.Entries != 0:
		u.Guessed = true
	}
	return u
}

// usualKey is how long keys are taken to be where only the sum of keys and records is known.
const usualKey = 32

// Sum adds up the usage of all ids.
func Sum(used map[uint64]Usage) (all Usage) {
	for _, u := range used {
		all = all.Plus(u)
	}
	return all
}
