package store

import (
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/format"
)

// position is a position among all entries of the file.
type position struct {
	id  uint64
	key []byte
}

// walker walks over the entries of a file, or of one bucket, and wraps around at the end.
type walker struct {
	tx   *bolt.Tx
	only uint64

	cursor *bolt.Cursor
	id     uint64 // of the next entry
	k, v   []byte // of the same; k is nil if there is no entry at all
}

// seek moves to the first entry at or after a position. If there is none, it wraps around to the first of all.
func (w *walker) seek(at position) {
	if w.only != 0 {
		at.id = w.only
	}
	w.enter(at)
	if w.k == nil {
		w.enter(position{id: w.only})
	}
}

// enter looks for the first entry at or after a position, in this bucket and those that follow.
func (w *walker) enter(at position) {
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
		w.seek(position{id: w.id + 1})
	}
}

// scanner walks over all entries once, in order.
type scanner struct {
	tx     *bolt.Tx
	ids    *bolt.Cursor
	cursor *bolt.Cursor
	id     uint64
	k, v   []byte
}

// seek moves to the first entry at or after a position.
func (w *scanner) seek(at position) {
	w.ids = w.tx.Bucket(format.EntriesBucket).Cursor()
	id, _ := w.ids.Seek(format.Uint64(at.id))
	w.enter(id)
	if id != nil && w.id == at.id && at.key != nil {
		if w.k, w.v = w.cursor.Seek(at.key); w.k == nil {
			w.next()
		}
	}
}

func (w *scanner) enter(id []byte) {
	for w.k = nil; id != nil && w.k == nil; {
		w.id = format.ReadUint64(id)
		w.cursor = w.tx.Bucket(format.EntriesBucket).Bucket(id).Cursor()
		if w.k, w.v = w.cursor.First(); w.k == nil {
			id, _ = w.ids.Next()
		}
	}
}

func (w *scanner) next() {
	if w.cursor != nil && w.k != nil {
		w.k, w.v = w.cursor.Next()
	}
	if w.k == nil {
		id, _ := w.ids.Next()
		w.enter(id)
	}
}
