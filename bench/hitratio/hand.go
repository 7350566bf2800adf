package hitratio

import (
	"math/bits"
	"slices"

	"github.com/keepcache/keepcache/internal/recency"
)

// Hand is what the byte budget does, candidate (b): a hand walks the keys in their order, looks at a run of
// neighbours, and evicts those of the run that were used least, by a table of scores of fixed size.
type Hand struct {
	capacity int
	Run      int // neighbours looked at
	Victims  int // of them evicted
	batch    int // keys stored between two evictions, as a commit does

	table   *recency.Table
	low     recency.Quantile
	present []uint64 // a bit a key
	written []uint32 // when, a key
	clock   uint32
	count   int
	fresh   []uint32 // stored since the last eviction
	hand    uint32
	passed  int // keys looked at since one was evicted
}

// NewHand returns an empty cache for keys below the given number.
func NewHand(capacity int, keys uint32, tableBytes int64) *Hand {
	h := &Hand{
		capacity: capacity, Run: 64, Victims: 16, batch: max(capacity/64, 1),
		table:   recency.New(tableBytes),
		present: make([]uint64, keys/64+1),
		written: make([]uint32, keys),
	}
	h.table.SetKeys(int64(capacity))
	return h
}

// Access implements Policy.
func (h *Hand) Access(key uint32) bool {
	h.table.Use(mix(key))
	if h.has(key) {
		return true
	}
	h.present[key/64] |= 1 << (key % 64)
	h.clock++
	h.written[key] = h.clock
	h.count++
	if h.fresh = append(h.fresh, key); len(h.fresh) >= h.batch {
		for h.count > h.capacity {
			h.evict()
		}
		h.fresh = h.fresh[:0]
	}
	return false
}

func mix(key uint32) uint64 {
	x := (uint64(key) + 1) * 0xBF58476D1CE4E5B9
	return (x ^ x>>31) * 0x94D049BB133111EB
}

func (h *Hand) has(key uint32) bool { return h.present[key/64]>>(key%64)&1 != 0 }

func (h *Hand) evict() {
	type seen struct{ key, score uint32 }
	var run []seen
	for range min(h.Run, h.count) {
		key := h.next()
		if h.written[key]+uint32(len(h.fresh)) <= h.clock { // never what was just stored
			run = append(run, seen{key, h.table.Score(mix(key))})
		}
	}
	slices.SortFunc(run, func(a, b seen) int {
		if a.score != b.score {
			return int(a.score) - int(b.score)
		}
		return int(h.written[a.key]) - int(h.written[b.key])
	})
	scores := make([]uint32, len(run))
	for i, s := range run {
		scores[i] = s.score
	}
	n := h.low.Pick(scores, float64(h.Victims)/float64(h.Run))
	if h.passed += len(run); n > 0 {
		h.passed = 0
	} else if h.passed >= h.count {
		n = min(h.Victims, len(run)) // all are alike
	}
	for _, s := range run[:n] {
		if h.count <= h.capacity {
			return
		}
		h.present[s.key/64] &^= 1 << (s.key % 64)
		h.count--
	}
}

// next returns the next key that is there, round and round.
func (h *Hand) next() uint32 {
	at := h.hand / 64
	word := h.present[at] >> (h.hand % 64) << (h.hand % 64)
	for word == 0 {
		at = (at + 1) % uint32(len(h.present))
		word = h.present[at]
	}
	key := at*64 + uint32(bits.TrailingZeros64(word))
	h.hand = (key + 1) % uint32(len(h.present)*64)
	return key
}
