package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// data makes keys and values. Entry i has a key of 16 hex digits, in no order of i, and values that cannot be
// compressed and prove that they belong to it.
type data struct {
	keys []string // of entries 0 to n-1
	size int      // of a value
	pool []byte
}

// leastValue is room for what check looks at.
const leastValue = 24

// ttl is the lifetime of entries where the workload is not about lifetimes.
const ttl = time.Hour

func newData(n, size int) *data {
	d := &data{keys: make([]string, n), size: max(size, leastValue)}
	for i := range d.keys {
		d.keys[i] = keyOf(i)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	d.pool = make([]byte, 1<<20+d.size)
	for i := 0; i+8 <= len(d.pool); i += 8 {
		binary.LittleEndian.PutUint64(d.pool[i:], rng.Uint64())
	}
	return d
}

// keyOf returns the key of entry i, for any i.
func keyOf(i int) string { return keyText(mix(uint64(i))) }

func keyText(n uint64) string {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], n)
	var text [16]byte
	hex.Encode(text[:], raw[:])
	return string(text[:])
}

// mix is a bijection that scatters its argument (Stafford's variant 13 of the finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// absent returns the key of an entry that never exists.
func absent(i int) string { return keyText(mix(uint64(i) + 1<<40)) }

// value writes the value of entry i, in the given version, into buf and returns it.
func (d *data) value(buf []byte, i int, version uint32) []byte {
	buf = buf[:d.size]
	at := (uint64(i)*7919 + uint64(version)*104729) & (1<<20 - 1)
	copy(buf, d.pool[at:])
	binary.LittleEndian.PutUint64(buf, uint64(i))
	binary.LittleEndian.PutUint32(buf[8:], version)
	binary.LittleEndian.PutUint64(buf[d.size-8:], mix(uint64(i))^uint64(version))
	return buf
}

// check proves that value is one of entry i, and returns its version.
func (d *data) check(value []byte, i int) (version uint32, err error) {
	if len(value) != d.size {
		return 0, fmt.Errorf("value of entry %d has %d bytes, not %d", i, len(value), d.size)
	}
	version = binary.LittleEndian.Uint32(value[8:])
	if binary.LittleEndian.Uint64(value) != uint64(i) ||
		binary.LittleEndian.Uint64(value[d.size-8:]) != mix(uint64(i))^uint64(version) {
		return 0, fmt.Errorf("value of entry %d is not what was set", i)
	}
	return version, nil
}

// logical returns how many bytes the keys and values of n entries have.
func (d *data) logical(n int) float64 { return float64(n) * float64(16+d.size) }

// draws returns n entries as a Zipf distribution has them (s = 1.01): a few of them again and again.
func (d *data) draws(seed, n int) []uint32 {
	rng := rand.New(rand.NewPCG(uint64(seed), 3))
	zipf := rand.NewZipf(rng, 1.01, 1, uint64(len(d.keys)-1))
	drawn := make([]uint32, n)
	for i := range drawn {
		drawn[i] = uint32(zipf.Uint64())
	}
	return drawn
}

// request is an entry that is to be read or written, and its key.
type request struct {
	key   string
	entry int
}

// requests returns one request for each of the entries, in their order, and with the keys in that order in memory. So a
// key is at hand when its turn comes, as it is for a caller who has just made it: what is measured is the cache and not
// the way to a key that lies somewhere.
func (d *data) requests(entries []uint32) []request {
	all := make([]request, len(entries))
	var text strings.Builder
	text.Grow(16 * len(entries))
	for i, e := range entries {
		at := text.Len()
		text.WriteString(d.keys[e])
		all[i] = request{text.String()[at:], int(e)}
	}
	return all
}

// shuffled returns the numbers from first to last-1 in random order.
func shuffled(seed, first, last int) []uint32 {
	rng := rand.New(rand.NewPCG(uint64(seed), 4))
	drawn := make([]uint32, last-first)
	for i := range drawn {
		drawn[i] = uint32(first + i)
	}
	rng.Shuffle(len(drawn), func(i, j int) { drawn[i], drawn[j] = drawn[j], drawn[i] })
	return drawn
}

// batch returns a batch of the given entries.
func (d *data) batch(entries []uint32, version uint32) *Batch {
	keys, values := make([]string, len(entries)), make([][]byte, len(entries))
	for k, i := range entries {
		keys[k] = keyOf(int(i))
		values[k] = d.value(make([]byte, d.size), int(i), version)
	}
	return newBatch(keys, values)
}

// fillBatch is how many entries fill sets at a time.
const fillBatch = 1000

// fill sets entries first to last-1, in the order of their keys: that is the quickest for each peer, and the
// workloads that want another order bring it about themselves.
func (d *data) fill(p Peer, first, last int, lifetime func() time.Duration) error {
	entries := make([]uint32, last-first)
	for i := range entries {
		entries[i] = uint32(first + i)
	}
	slices.SortFunc(entries, func(a, b uint32) int {
		x, y := mix(uint64(a)), mix(uint64(b))
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	for chunk := range slices.Chunk(entries, fillBatch) {
		if err := p.SetMany(d.batch(chunk, 0), lifetime()); err != nil {
			return err
		}
	}
	return p.Settle()
}

func hour() time.Duration { return ttl }
