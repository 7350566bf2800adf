package lockless

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
)

// tail is what the journal has beyond the file, as far as one operation needs it: the outcomes of one bucket, or
// of one key in it, and all that are about names and tags. It is for one goroutine.
//
// It grows as the journal does: what was read once was written once and stays true. Whether an outcome counts, the
// mark of the file says when it is used: where that has passed it, the file knows better.
type tail struct {
	bucket string // empty: no entries are kept
	only   string // the one key that is kept; empty: every key with the prefix
	prefix string
	all    bool // the entries of every bucket are kept; each try begins anew
	sizes  bool // only the sizes of records are kept

	identity [16]byte
	base     uint64 // id of the bucket in the file
	seen     uint64 // everything up to it and above the mark has been taken

	names   map[string]nameID
	tags    map[string]uint64 // revision of the last invalidation
	entries map[rowID]tailEntry
	bytes   int64 // of entries
	pieces  int64 // bytes of the pieces taken, exact where all is set

	sorted []string // keys of entries of the bucket with id forID; nil if they have to be sorted anew
	forID  uint64
}

type nameID struct {
	id       uint64
	revision uint64
}

// rowID names a key within the file.
type rowID struct {
	id  uint64
	key string
}

type tailEntry struct {
	record   []byte // nil: removed, or not kept
	size     int    // of the record; 0: removed
	revision uint64
}

// tailMost bounds the memory for what a range keeps of the journal, in bytes.
const tailMost = 512 << 20

var errTailTooLarge = errors.New("the journal has too much that the file does not have yet")

// newTail returns an empty tail for the entries of a bucket.
func newTail(bucket string) *tail {
	t := &tail{bucket: bucket}
	t.reset([16]byte{}, 0, 0)
	return t
}

// reset forgets everything and begins behind mark.
func (t *tail) reset(identity [16]byte, base, mark uint64) {
	t.identity, t.base, t.seen = identity, base, mark
	t.names = make(map[string]nameID)
	t.tags = make(map[string]uint64)
	t.entries = make(map[rowID]tailEntry)
	t.bytes, t.pieces, t.sorted = 0, 0, nil
}

// follows reports whether the tail has the entries of the bucket whose id in the file is base by now. It does not
// where the bucket came or was cleared by a write that is in no journal.
func (t *tail) follows(base uint64) bool {
	if n, named := t.names[t.bucket]; named && n.id == base {
		t.base = base // a commit has taken the name into the file
	}
	return t.base == base
}

// id returns the id under which entries are kept.
func (t *tail) id() uint64 {
	if n, named := t.names[t.bucket]; named {
		return n.id
	}
	return t.base
}

// take takes the outcomes of one piece in.
func (t *tail) take(first, _ uint64, piece []byte) error {
	t.pieces += int64(len(piece))
	return format.EachOp(first, piece, func(o format.Op, revision uint64) error {
		switch o.Kind {
		case format.OpBucket:
			if t.bucket != "" && o.Key != t.bucket {
				return nil
			}
			if n := t.names[o.Key]; revision >= n.revision {
				t.names[o.Key] = nameID{o.ID, revision}
			}
		case format.OpInvalidate:
			t.tags[o.Key] = max(t.tags[o.Key], revision)
		case format.OpPut, format.OpDelete:
			return t.keep(&o, revision)
		}
		return nil
	})
}

func (t *tail) keep(o *format.Op, revision uint64) error {
	if !t.all && !t.wants(o) {
		return nil
	}
	at := rowID{o.ID, o.Key}
	old, known := t.entries[at]
	if known && old.revision >= revision {
		return nil
	}
	if !known {
		t.sorted = nil
	}
	e := tailEntry{size: len(o.Record), revision: revision}
	if !t.sizes {
		e.record = bytes.Clone(o.Record)
	}
	t.bytes += int64(len(e.record)-len(old.record)) + memory.EntryOverhead
	if t.bytes > tailMost {
		return errTailTooLarge
	}
	t.entries[at] = e
	return nil
}

// wants reports whether an outcome is about one of the keys that are kept.
func (t *tail) wants(o *format.Op) bool {
	return t.bucket != "" && o.ID == t.id() && (t.only == "" || o.Key == t.only) && strings.HasPrefix(o.Key, t.prefix)
}

// find returns what the journal has of a key, if it has anything that the file may not have.
func (t *tail) find(id uint64, key string, mark uint64) (record []byte, known bool) {
	e, known := t.entries[rowID{id, key}]
	if !known || e.revision <= mark {
		return nil, false
	}
	return e.record, true
}

// soonest adds the entries of the given buckets that end first to rows.
func (t *tail) soonest(n int, names map[uint64]string, mark uint64, rows *engine.SoonestRows) {
	for at, e := range t.entries {
		if e.record != nil && e.revision > mark && names[at.id] != "" {
			rows.Add(n, format.StaleUntil(e.record), at.id, at.key)
		}
	}
}

// keys returns the keys that are kept of a bucket, from one on, in their order.
func (t *tail) keys(id uint64, from string) []string {
	if t.sorted == nil || t.forID != id {
		t.sorted, t.forID = make([]string, 0, len(t.entries)), id
		for at := range t.entries {
			if at.id == id {
				t.sorted = append(t.sorted, at.key)
			}
		}
		slices.Sort(t.sorted)
	}
	i, _ := slices.BinarySearch(t.sorted, from)
	return t.sorted[i:]
}

// pending returns a sample of what the journal has above the mark.
func (t *tail) pending(mark uint64) *cost.Pending {
	p := cost.NewPending(len(t.entries))
	for at, e := range t.entries {
		if e.revision > mark {
			p.Add(at.id, at.key, e.size)
		}
	}
	return p
}
