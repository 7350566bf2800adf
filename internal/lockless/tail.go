package lockless

import (
	"bytes"
	"errors"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/keyrange"
	"github.com/keepcache/keepcache/internal/memory"
)

// tail is what the journal has beyond the file, as far as one operation needs it: the puts and deletes of one bucket,
// or of one key in it, and all operations on names and tags. It is for one goroutine.
//
// It grows with the journal. Operations already read stay valid, because the journal only appends. Whether one counts
// is decided when it is used: operations up to the file's mark are in the file, and may be outdated.
type tail struct {
	bucket  string // if empty, no entries are kept
	onlyKey string // the only key to keep; if empty, every key in the range
	keys    keyrange.Range
	all     bool // keep the entries of every bucket; each try starts over
	sizes   bool // keep only the sizes of records

	identity [16]byte
	base     uint64 // id of the bucket in the file
	seen     uint64 // everything up to it and above the mark has been read

	names    map[string]nameID
	tags     map[string]uint64 // revision of the latest invalidation
	entries  map[entryID]tailEntry
	bytes    int64 // of entries
	logBytes int64 // of the log records read; exact if all is set

	sorted   []string // keys of the bucket with id sortedID; nil if they must be sorted again
	sortedID uint64
}

type nameID struct {
	id       uint64
	revision uint64
}

// entryID identifies an entry of the file.
type entryID struct {
	id  uint64
	key string
}

type tailEntry struct {
	record   []byte // nil: deleted, or not kept
	size     int    // of the record; 0: deleted
	revision uint64
}

// maxTailBytes bounds the memory for what a range keeps of the journal, in bytes.
const maxTailBytes = 512 << 20

var errTailTooLarge = errors.New("the journal has too many writes that the file does not have yet")

// newTail returns an empty tail for the entries of a bucket.
func newTail(bucket string) *tail {
	t := &tail{bucket: bucket}
	t.reset([16]byte{}, 0, 0)
	return t
}

// reset empties the tail. It then begins after mark.
func (t *tail) reset(identity [16]byte, base, mark uint64) {
	t.identity, t.base, t.seen = identity, base, mark
	t.names = make(map[string]nameID)
	t.tags = make(map[string]uint64)
	t.entries = make(map[entryID]tailEntry)
	t.bytes, t.logBytes, t.sorted = 0, 0, nil
}

// follows reports whether the tail still has the entries of the bucket, whose id in the file is base now. It reports
// false if the bucket was created or cleared by a write that is not in the journal.
func (t *tail) follows(base uint64) bool {
	if n, named := t.names[t.bucket]; named && n.id == base {
		t.base = base // a commit has brought the name into the file
	}
	return t.base == base
}

// id returns the id whose entries are kept.
func (t *tail) id() uint64 {
	if n, named := t.names[t.bucket]; named {
		return n.id
	}
	return t.base
}

// take adds the operations of one log record.
func (t *tail) take(first, _ uint64, record []byte) error {
	t.logBytes += int64(len(record))
	return format.EachOp(first, record, func(o format.Op, revision uint64) error {
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
	at := entryID{o.ID, o.Key}
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
	if t.bytes > maxTailBytes {
		return errTailTooLarge
	}
	t.entries[at] = e
	return nil
}

// wants reports whether an operation is on one of the keys to keep.
func (t *tail) wants(o *format.Op) bool {
	return t.bucket != "" && o.ID == t.id() && (t.onlyKey == "" || o.Key == t.onlyKey) &&
		t.keys.Contains(o.Key)
}

// find returns what the journal has of a key above the mark. A nil record is a tombstone.
func (t *tail) find(id uint64, key string, mark uint64) (record []byte, known bool) {
	e, known := t.entries[entryID{id, key}]
	if !known || e.revision <= mark {
		return nil, false
	}
	return e.record, true
}

// expiring adds the entries of the given buckets that expire first to rows.
func (t *tail) expiring(n int, names map[uint64]string, mark uint64, rows *engine.ExpiringRows) {
	for at, e := range t.entries {
		if e.record != nil && e.revision > mark && names[at.id] != "" {
			rows.Add(n, format.StaleUntil(e.record), at.id, at.key)
		}
	}
}

// keysIn returns the kept keys of a bucket that are in what is left of the range, in its order.
func (t *tail) keysIn(id uint64, rest keyrange.Range) []string {
	if t.sorted == nil || t.sortedID != id {
		t.sorted, t.sortedID = make([]string, 0, len(t.entries)), id
		for at := range t.entries {
			if at.id == id {
				t.sorted = append(t.sorted, at.key)
			}
		}
		t.keys.Sort(t.sorted)
	}
	return t.sorted[rest.Index(t.sorted):]
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
