package store

import (
	"maps"
	"slices"

	"github.com/keepcache/keepcache/internal/cost"
	bolt "go.etcd.io/bbolt"
)

// ledger collects how a transaction changes the usage of each id, and the keys that it changes if a compaction tracks
// them. Every change of an entry or its expiry row goes through it.
type ledger struct {
	page      cost.Paging
	deltas    map[uint64]cost.Usage
	dirtyKeys *dirtyKeys // nil unless a compaction is running
}

// makeLedger returns an empty ledger for a file with the given page size.
func makeLedger(page cost.Paging) *ledger {
	return &ledger{page: page, deltas: make(map[uint64]cost.Usage)}
}

func (l *ledger) add(id uint64, key, record []byte) {
	l.deltas[id] = l.deltas[id].Plus(l.page.Of(key, record))
	l.markDirty(id, key)
	if l.dirtyKeys != nil {
		l.dirtyKeys.bytes += int64(len(record))
	}
}

func (l *ledger) remove(id uint64, key, record []byte) {
	l.deltas[id] = l.deltas[id].Minus(l.page.Of(key, record))
	l.markDirty(id, key)
}

// markDirty records that a key has changed.
func (l *ledger) markDirty(id uint64, key []byte) {
	if l.dirtyKeys != nil {
		l.dirtyKeys.add(id, key)
	}
}

// flush adds the collected changes to the file's usage table.
func (l *ledger) flush(tx *bolt.Tx) error {
	t, err := OpenUsage(tx)
	for _, id := range slices.Sorted(maps.Keys(l.deltas)) { // or each new id would move those that follow it
		delta := l.deltas[id]
		if err != nil {
			return err
		}
		if delta != (cost.Usage{}) {
			err = t.Put(id, t.get(id).Plus(delta))
		}
	}
	return err
}

// dirtyKeys are the keys that changed since a compaction last took them.
type dirtyKeys struct {
	keys  map[dirtyKey]struct{}
	bytes int64 // of the records put under them
	max   int   // with so many keys the next change waits until the compaction has taken them

	taken chan struct{} // closed and replaced when the compaction has taken the keys
}

type dirtyKey struct {
	id  uint64
	key string
}

func newDirtyKeys(most int) *dirtyKeys {
	return &dirtyKeys{keys: make(map[dirtyKey]struct{}), max: most, taken: make(chan struct{})}
}

// wake wakes the changes that wait. It does nothing if n is nil.
func (n *dirtyKeys) wake() {
	if n != nil {
		close(n.taken)
		n.taken = make(chan struct{})
		n.bytes = 0
	}
}

func (n *dirtyKeys) add(id uint64, key []byte) { n.keys[dirtyKey{id, string(key)}] = struct{}{} }

// full reports whether a change has to wait.
func (n *dirtyKeys) full() bool {
	return n != nil && (len(n.keys) >= n.max || n.bytes >= maxDirtyBytes)
}
