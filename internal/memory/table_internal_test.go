package memory

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// TestTable compares a table with a map while it grows and shrinks. There are so few hashes that entries collide and
// wrap around the end.
func TestTable(t *testing.T) {
	for _, hashes := range []uint64{1, 3, 64, 1 << 40} {
		rng := rand.New(rand.NewPCG(1, hashes))
		tab := newTable()
		there := map[string]*entry{}
		for step := range 40_000 {
			most := 2 + step/20_000*(2-200) + 200 // many at first, few in the end
			key := strconv.Itoa(rng.IntN(most * 2))
			hash := ^uint64(0) - uint64(len(key))*7%hashes - uint64(key[0])%hashes
			e := tab.find(hash, 1, key)
			require.Same(t, there[key], e, "%s of %d hashes", key, hashes)
			require.Same(t, e, tab.fetch(hash, 1, key))
			require.Nil(t, tab.find(hash, 2, key))
			require.Nil(t, tab.fetch(hash, 2, key))
			switch {
			case e == nil && len(there) < most:
				e = &entry{id: 1, hash: hash, key: key}
				tab.insert(e)
				there[key] = e
			case e != nil && rng.IntN(2) == 0:
				// It is written again, with the key in front of the record, or with a key of its own and no record.
				joined := append([]byte(key), make([]byte, rng.IntN(2*maxPrefetch))...)
				e.key, e.stored = string(joined[:len(key)]), nil
				if rng.IntN(4) > 0 {
					e.key, e.stored = unsafe.String(&joined[0], len(key)), joined[len(key):]
				}
				tab.seek(hash, 1, key).setPrefetch()
			case e != nil:
				tab.remove(e)
				delete(there, key)
			}
			require.Equal(t, len(there), tab.used)
			require.LessOrEqual(t, 5*tab.used, 4*len(tab.slots))
			require.GreaterOrEqual(t, max(4*tab.used, minSlots), len(tab.slots))
		}
		n := 0
		for e := range tab.all {
			require.Same(t, there[e.key], e)
			n++
		}
		require.Len(t, there, n)
	}
}

// A record may lie right behind its key by chance, in an allocation of its own. A look-up finds it under the race
// detector too, which turns checkptr on.
func TestTable_Neighbours(t *testing.T) {
	const size = 96 // of all blocks, so that many follow each other without a gap
	blocks := make(map[uintptr][]byte)
	for range 4000 {
		block := make([]byte, size)
		blocks[uintptr(unsafe.Pointer(&block[0]))] = block
	}
	met := 0
	for at, key := range blocks {
		record, ok := blocks[at+size]
		if !ok {
			continue
		}
		met++
		tab := newTable()
		e := &entry{id: 1, hash: 1, key: unsafe.String(&key[0], size), stored: record}
		tab.insert(e)
		require.Equal(t, uint32(2*size), tab.seek(1, 1, e.key).prefetch)
		require.Same(t, e, tab.fetch(1, 1, e.key))
	}
	require.Positive(t, met)
}
