package store

import (
	"maps"
	"slices"

	"github.com/keepcache/keepcache/internal/cost"
	bolt "go.etcd.io/bbolt"
)

// ledger gathers by how much a transaction changes the usage of each id, and which keys it changes where
// somebody wants to know. Each change of an entry or of its expiry row goes through it.
type ledger struct {
	page   cost.Paging
	deltas map[uint64]cost.Usage
	noted  *notes // nil where nobody wants to know
}

// newLedger returns an empty ledger for a transaction in a file with such pages.
func newLedger(page cost.Paging) *ledger {
	return &ledger{page: page, deltas: make(map[uint64]cost.Usage)}
}

func (l *ledger) add(id uint64, key, record []byte) {
	l.deltas[id] = l.deltas[id].Plus(l.page.Of(key, record))
	l.note(id, key)
	if l.noted != nil {
		l.noted.bytes += int64(len(record))
	}
}

func (l *ledger) remove(id uint64, key, record []byte) {
	l.deltas[id] = l.deltas[id].Minus(l.page.Of(key, record))
	l.note(id, key)
}

// note says that a key has changed.
func (l *ledger) note(id uint64, key []byte) {
	if l.noted != nil {
		l.noted.add(id, key)
	}
}

// enter books what l has gathered.
func (l *ledger) enter(tx *bolt.Tx) error {
	t, err := OpenUsage(tx)
	for _, id := range slices.Sorted(maps.Keys(l.deltas)) { // or each new one would move all that came before it
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

// notes are the keys that changed since a compaction last looked.
type notes struct {
	keys  map[noteKey]struct{}
	bytes int64 // of the records put under them
	most  int   // keys for which the next change waits until the compaction has looked

	looked chan struct{} // closed, and replaced, when it has
}

type noteKey struct {
	id  uint64
	key string
}

func newNotes(most int) *notes {
	return &notes{keys: make(map[noteKey]struct{}), most: most, looked: make(chan struct{})}
}

// look lets the changes go on that wait, if there are notes.
func (n *notes) look() {
	if n != nil {
		close(n.looked)
		n.looked = make(chan struct{})
		n.bytes = 0
	}
}

func (n *notes) add(id uint64, key []byte) { n.keys[noteKey{id, string(key)}] = struct{}{} }

// full reports whether a change has to wait.
func (n *notes) full() bool { return n != nil && (len(n.keys) >= n.most || n.bytes >= notesBytes) }
