package cost

import "strings"

// pendingLook bounds how many pinned keys Stats looks up in the file, at about a microsecond each. With more than that
// pinned, it looks at a sample.
const pendingLook = 8192

// pendingEach is how many keys of each bucket are in a sample at the least, if the bucket has as many.
const pendingEach = 16

// pendingMost bounds a sample in memory where there are very many buckets; what goes beyond it is left out.
const pendingMost = 4 * pendingLook

// Pending is a sample of what the file does not have yet: all of it up to pendingLook keys.
type Pending struct {
	Keys   map[uint64][]pendingKey // by bucket id
	counts map[uint64]int          // of all keys, in the sample or not
	every  int                     // one key in so many is in the sample
	seen   int
	taken  int
}

type pendingKey struct {
	key    string
	record int // bytes; 0: the key is removed
}

// NewPending returns an empty sample for a known number of keys.
func NewPending(total int) *Pending {
	return &Pending{
		Keys:   make(map[uint64][]pendingKey),
		counts: make(map[uint64]int),
		every:  max(1, (total+pendingLook-1)/pendingLook),
	}
}

// Add counts a key and takes it into the sample if its turn has come.
func (p *Pending) Add(id uint64, key string, record int) {
	p.seen++
	p.counts[id]++
	if (p.seen%p.every == 0 || p.counts[id] <= pendingEach) && p.taken < pendingMost {
		p.taken++
		p.Keys[id] = append(p.Keys[id], pendingKey{strings.Clone(key), record})
	}
}

// Change returns by how much the usage of a bucket changes when its keys are committed. filed returns the bytes of key
// and record that the file has under a key, or 0.
func (p *Pending) Change(id uint64, filed func(key string) (int64, error)) (u Usage, err error) {
	for _, k := range p.Keys[id] {
		old, err := filed(k.key)
		if err != nil {
			return Usage{}, err
		}
		if old > 0 {
			u.Entries--
			u.Bytes -= old
		}
		if k.record > 0 {
			u.Entries++
			u.Bytes += int64(len(k.key) + k.record)
		}
	}
	if n, all := len(p.Keys[id]), p.counts[id]; n < all {
		u.Entries = int64(float64(u.Entries) * float64(all) / float64(n))
		u.Bytes = int64(float64(u.Bytes) * float64(all) / float64(n))
	}
	return u, nil
}
