// Package recency remembers, in a table of bounded size, how lately and how often keys were used. A key has a
// score that each use raises and that halves with time, as in LRFU (Lee and others, "LRFU: a spectrum of
// policies that subsumes the least recently used and least frequently used policies", 2001). Time is
// counted in uses, so that nothing ages while nothing happens.
package recency

import (
	"math"
	"sync/atomic"
)

// Table is a table of scores. All methods may be called from any goroutine.
//
// It is an array of sets of ways, as a processor's cache is: the hash of a key names a set, in which the
// key has a slot if it was used lately enough. A use that needs no change of the slot, because the key was
// used in this tick already, writes nothing: many readers of one hot key do not hinder each other.
type Table struct {
	// a power of two; each has tag (8 bits), score (8 bits), tick of the last use (16 bits)
	slots atomic.Pointer[[]atomic.Uint32]
	most  int64 // slots

	tick  atomic.Uint32
	count atomic.Uint32 // uses counted in this tick
	every atomic.Uint32 // uses that a tick has
}

const (
	ways = 4 // 16 bytes, so that a set lies within one line of the processor's cache

	// unit is the score of one use. Scores are eighths of a use, up to 31.9: a key used in every tick comes to 23.6.
	unit = 8

	// halving is how many ticks it takes for a score to halve.
	halving = 16

	// ticksPerTurn is how many ticks pass while as many keys are used as the store has. With halving it sets
	// the balance of lately and often.
	ticksPerTurn = 8

	leastSlots = 256
	slotBytes  = 4

	// slotsPerKey is how many slots a table grows to for each key: then hardly any set lacks one.
	slotsPerKey = 2
	leastEvery  = 8
)

// decay holds 2^(-age/halving), in 65536ths, for ages after which something is left of the highest score.
var decay = func() (d [halving * 9]uint32) {
	for age := range d {
		d[age] = uint32(65536 * math.Exp2(-float64(age)/halving))
	}
	return d
}()

// New returns an empty table, which grows to at most the given bytes.
func New(bytes int64) *Table {
	t := &Table{most: leastSlots}
	for t.most <= bytes/2/slotBytes {
		t.most *= 2
	}
	slots := make([]atomic.Uint32, leastSlots)
	t.slots.Store(&slots)
	t.tick.Store(1)
	t.SetKeys(0)
	return t
}

// Bytes returns the size of the table in bytes.
func (t *Table) Bytes() int64 { return int64(len(*t.slots.Load())) * slotBytes }

// SetKeys says how many keys the store has, on which it depends how fast scores fade and how large the table is. Only
// one goroutine at a time may call it. A use that is counted while the table grows may be lost.
func (t *Table) SetKeys(n int64) {
	t.every.Store(uint32(min(max(n/ticksPerTurn, leastEvery), 1<<30)))
	old := *t.slots.Load()
	size := int64(len(old))
	for size < t.most && size < slotsPerKey*n {
		size *= 2
	}
	if size == int64(len(old)) {
		return
	}
	// A set's keys go to as many sets as the table has grown times; which to which is not known, and a slot too many
	// fades.
	slots := make([]atomic.Uint32, size)
	for i := range slots {
		slots[i].Store(old[i&(len(old)-1)].Load())
	}
	t.slots.Store(&slots)
}

// Use counts a use of the key with the given hash.
func (t *Table) Use(hash uint64) {
	set, tag := t.set(hash)
	tick := t.tick.Load()
	victim, least := 0, uint32(math.MaxUint32)
	for i := range set {
		slot := set[i].Load()
		if slot>>24 == tag && slot != 0 {
			if slot&0xFFFF == tick&0xFFFF {
				return
			}
			score := min(faded(slot, tick)+unit, 255)
			set[i].Store(tag<<24 | score<<16 | tick&0xFFFF) // a lost race costs one use
			t.advance()
			return
		}
		if score := faded(slot, tick); score < least {
			victim, least = i, score
		}
	}
	set[victim].Store(tag<<24 | unit<<16 | tick&0xFFFF)
	t.advance()
}

// Score returns how much the key with the given hash was used, or 0 if nothing is known of it.
func (t *Table) Score(hash uint64) uint32 {
	set, tag := t.set(hash)
	tick := t.tick.Load()
	for i := range set {
		if slot := set[i].Load(); slot>>24 == tag && slot != 0 {
			return fade((slot>>16&0xFF)<<8, age(slot, tick))
		}
	}
	return 0
}

func (t *Table) set(hash uint64) (set []atomic.Uint32, tag uint32) {
	hash *= 0x9E3779B97F4A7C15
	slots := *t.slots.Load()
	at := (hash >> 20 & uint64(len(slots)/ways-1)) * ways
	return slots[at : at+ways : at+ways], uint32(hash >> 56)
}

// faded returns what is left of a slot's score.
func faded(slot, tick uint32) uint32 { return fade(slot>>16&0xFF, age(slot, tick)) }

func age(slot, tick uint32) uint32 { return (tick - slot) & 0xFFFF }

func fade(score, age uint32) uint32 {
	if age >= uint32(len(decay)) {
		return 0
	}
	return uint32(uint64(score) * uint64(decay[age]) >> 16)
}

func (t *Table) advance() {
	if t.count.Add(1) >= t.every.Load() {
		t.count.Store(0)
		t.tick.Add(1)
	}
}
