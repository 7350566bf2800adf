package keepcache

import (
	"strings"

	"github.com/keepcache/keepcache/internal/pagetree"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
	bolt "go.etcd.io/bbolt"
)

// pendingLook bounds how many pinned keys Stats looks up in the file, at about a microsecond each. With more than that
// pinned, it looks at a sample.
const pendingLook = 8192

// pendingEach is how many keys of each bucket are in a sample at the least, if the bucket has as many.
const pendingEach = 16

// pendingMost bounds a sample in memory where there are very many buckets; what goes beyond it is left out.
const pendingMost = 4 * pendingLook

// pending is a sample of what the file does not have yet: all of it up to pendingLook keys.
type pending struct {
	keys   map[uint64][]pendingKey // by bucket id
	counts map[uint64]int          // of all keys, in the sample or not
	every  int                     // one key in so many is in the sample
	seen   int
	taken  int
}

type pendingKey struct {
	key    string
	record int // bytes; 0: the key is removed
}

// newPending returns an empty sample for a known number of keys.
func newPending(total int) *pending {
	return &pending{
		keys:   make(map[uint64][]pendingKey),
		counts: make(map[uint64]int),
		every:  max(1, (total+pendingLook-1)/pendingLook),
	}
}

// add counts a key and takes it into the sample if its turn has come.
func (p *pending) add(id uint64, key string, record int) {
	p.seen++
	p.counts[id]++
	if (p.seen%p.every == 0 || p.counts[id] <= pendingEach) && p.taken < pendingMost {
		p.taken++
		p.keys[id] = append(p.keys[id], pendingKey{strings.Clone(key), record})
	}
}

// change returns by how much the usage of a bucket changes when its keys are committed. filed returns the bytes of key
// and record that the file has under a key, or 0.
func (p *pending) change(id uint64, filed func(key string) (int64, error)) (u usage, err error) {
	for _, k := range p.keys[id] {
		old, err := filed(k.key)
		if err != nil {
			return usage{}, err
		}
		if old > 0 {
			u.entries--
			u.bytes -= old
		}
		if k.record > 0 {
			u.entries++
			u.bytes += int64(len(k.key) + k.record)
		}
	}
	if n, all := len(p.keys[id]), p.counts[id]; n < all {
		u.entries = int64(float64(u.entries) * float64(all) / float64(n))
		u.bytes = int64(float64(u.bytes) * float64(all) / float64(n))
	}
	return u, nil
}

// pendingIn returns a sample of the pinned entries.
func pendingIn(m *memory.Tier) *pending {
	s := newPending(m.PinnedEntries())
	m.EachPinned(func(p *memory.Pin) { s.add(p.ID, p.Key, len(format.RecordIn(p.Stored))) })
	return s
}

// sizeWith is size with the usage as it will be when what is pending is committed. The sample was taken before: an entry
// that has been committed since is found in the file, and changes nothing.
func (s *store) sizeWith(p *pending) (file int64, used map[uint64]usage, err error) {
	err = s.view(func(tx *bolt.Tx) (err error) {
		file = tx.Size()
		if used, err = s.used(tx); err != nil {
			return err
		}
		for id := range p.keys {
			b := entriesOf(tx, id)
			change, err := p.change(id, func(key string) (int64, error) {
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
			used[id] = used[id].after(change)
		}
		return nil
	})
	return file, used, err
}

// after returns the usage after a change, but what it costs as it is. It is never negative: the change may be an estimate.
func (u usage) after(change usage) usage {
	u.entries, u.bytes = max(u.entries+change.entries, 0), max(u.bytes+change.bytes, 0)
	return u
}

// pending returns a sample of what the journal has above the mark.
func (t *tail) pending(mark uint64) *pending {
	p := newPending(len(t.entries))
	for at, e := range t.entries {
		if e.revision > mark {
			p.add(at.id, at.key, e.size)
		}
	}
	return p
}

// change is pending.change beside the process that has the file open.
func (v *liveView) change(p *pending, id uint64) (usage, error) {
	if len(p.keys[id]) == 0 {
		return usage{}, nil
	}
	entries, err := v.entries(id)
	if err != nil {
		return usage{}, err
	}
	return p.change(id, func(key string) (size int64, err error) {
		// Get would read the value too.
		err = entries.Scan([]byte(key), func(e *pagetree.Element) (bool, error) {
			if string(e.Key) == key {
				size = int64(len(key)) + max(e.Size()-format.RowSize, 0)
			}
			return false, nil
		})
		return size, err
	})
}
