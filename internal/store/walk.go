package store

import (
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/format"
)

// placed is a place among all entries of the file.
type placed struct {
	id  uint64
	key []byte
}

// walker walks round and round over the entries of a file, or of one bucket.
type walker struct {
	tx   *bolt.Tx
	only uint64

	cursor *bolt.Cursor
	id     uint64 // of the entry that comes next
	k, v   []byte // of the same; k is nil if there is no entry at all
}

// seek puts the walker on the first entry at or after a place; if there is none, on the first of all.
func (w *walker) seek(at placed) {
	if w.only != 0 {
		at.id = w.only
	}
	w.enter(at)
	if w.k == nil {
		w.enter(placed{id: w.only})
	}
}

// enter looks for the first entry at or after a place, in this bucket and the ones that follow.
func (w *walker) enter(at placed) {
	w.k = nil
	ids := w.tx.Bucket(format.EntriesBucket).Cursor()
	for id, _ := ids.Seek(format.Uint64(at.id)); id != nil && w.k == nil; id, _ = ids.Next() {
		if w.id = format.ReadUint64(id); w.only != 0 && w.id != w.only {
			break
		}
		w.cursor = w.tx.Bucket(format.EntriesBucket).Bucket(id).Cursor()
		if w.id == at.id && at.key != nil {
			w.k, w.v = w.cursor.Seek(at.key)
		} else {
			w.k, w.v = w.cursor.First()
		}
	}
}

func (w *walker) next() {
	if w.k, w.v = w.cursor.Next(); w.k == nil {
		w.seek(placed{id: w.id + 1})
	}
}

// forwards walks over all entries once, in their order.
type forwards struct {
	tx     *bolt.Tx
	ids    *bolt.Cursor
	cursor *bolt.Cursor
	id     uint64
	k, v   []byte
}

// seek goes to the first entry at or after a place.
func (w *forwards) seek(at placed) {
	w.ids = w.tx.Bucket(format.EntriesBucket).Cursor()
	id, _ := w.ids.Seek(format.Uint64(at.id))
	w.enter(id)
	if id != nil && w.id == at.id && at.key != nil {
		if w.k, w.v = w.cursor.Seek(at.key); w.k == nil {
			w.next()
		}
	}
}

func (w *forwards) enter(id []byte) {
	for w.k = nil; id != nil && w.k == nil; {
		w.id = format.ReadUint64(id)
		w.cursor = w.tx.Bucket(format.EntriesBucket).Bucket(id).Cursor()
		if w.k, w.v = w.cursor.First(); w.k == nil {
			id, _ = w.ids.Next()
		}
	}
}

func (w *forwards) next() {
	if w.cursor != nil && w.k != nil {
		w.k, w.v = w.cursor.Next()
	}
	if w.k == nil {
		id, _ := w.ids.Next()
		w.enter(id)
	}
}
