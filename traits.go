package keepcache

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
)

// The options of a record that have a meaning. Those with the highest bit set must be understood, because
// who does not would show what is to be hidden. Times are unix milliseconds.
const (
	optionLoaded   = 0x02 // 8 bytes: when a loader fetched the value, or found it unchanged
	optionETag     = 0x03 // 1 to MaxETagBytes bytes, the loader's own
	optionRetry    = 0x04 // 8 bytes: not to be loaded again before, because the last load failed
	optionLifetime = 0x05 // 8 bytes: milliseconds that each read gives the entry anew, not 0
	optionNegative = 0x81 // empty: a loader found that there is no such thing; the value is null
	optionTags     = 0x82 // 8 bytes: the revision as of which the tags hold, or 0 for the record's own; then each tag: its length (1 byte) and it
)

// traits are what a record says beyond its header, in its options. The zero value is a record without any.
// The slices point into the record.
type traits struct {
	negative bool
	loaded   int64 // 0: it was not loaded
	retry    int64
	lifetime int64 // 0: reads do not prolong it
	etag     []byte
	asOf     uint64  // revision as of which the tags hold; 0 is the record's own
	tags     tagList // nil: none
}

// since returns the revision as of which the tags of a record with the given revision hold.
func (t *traits) since(revision uint64) uint64 {
	if t.asOf != 0 {
		return t.asOf
	}
	return revision
}

// tagList is a list of tags as a record holds it: each with its length before it.
type tagList []byte

func (l tagList) all() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(l) > 0 {
			n := 1 + int(l[0])
			if !yield(l[1:n]) {
				return
			}
			l = l[n:]
		}
	}
}

// strings returns the tags in a slice of the caller's own, nil for none.
func (l tagList) strings() (tags []string) {
	for tag := range l.all() {
		tags = append(tags, string(tag))
	}
	return tags
}

// readTraits reads options that checkOptions has proved.
func readTraits(options []byte) (t traits) {
	for len(options) > 0 {
		kind, n := options[0], 3+int(binary.BigEndian.Uint16(options[1:]))
		data := options[3:n:n]
		options = options[n:]
		switch kind {
		case optionLoaded:
			t.loaded = int64(binary.BigEndian.Uint64(data))
		case optionETag:
			t.etag = data
		case optionRetry:
			t.retry = int64(binary.BigEndian.Uint64(data))
		case optionLifetime:
			t.lifetime = int64(binary.BigEndian.Uint64(data))
		case optionNegative:
			t.negative = true
		case optionTags:
			t.asOf, t.tags = binary.BigEndian.Uint64(data), tagList(data[8:])
		}
	}
	return t
}

// appendTraits appends the options to rec, which appendHeader has just started.
func appendTraits(rec []byte, t *traits) []byte {
	start := len(rec)
	time := func(kind byte, value int64) {
		if value != 0 {
			rec = binary.BigEndian.AppendUint64(append(rec, kind, 0, 8), uint64(value))
		}
	}
	time(optionLoaded, t.loaded)
	if len(t.etag) > 0 {
		rec = binary.BigEndian.AppendUint16(append(rec, optionETag), uint16(len(t.etag)))
		rec = append(rec, t.etag...)
	}
	time(optionRetry, t.retry)
	time(optionLifetime, t.lifetime)
	if t.negative {
		rec = append(rec, optionNegative, 0, 0)
	}
	if len(t.tags) > 0 {
		rec = binary.BigEndian.AppendUint16(append(rec, optionTags), uint16(8+len(t.tags)))
		rec = append(binary.BigEndian.AppendUint64(rec, t.asOf), t.tags...)
	}
	binary.BigEndian.PutUint16(rec[start-2:], uint16(len(rec)-start))
	return rec
}

// checkOption proves one option of a record.
func checkOption(kind byte, data []byte) error {
	ok := true
	switch kind {
	case optionLoaded, optionRetry, optionLifetime:
		ok = len(data) == 8 && data[0] < 0x80
	case optionETag:
		ok = len(data) > 0
	case optionNegative:
		ok = len(data) == 0
	case optionTags:
		ok = len(data) > 8
		for rest := data[min(8, len(data)):]; ok && len(rest) > 0; {
			if ok = rest[0] > 0 && int(rest[0]) < len(rest); ok {
				rest = rest[1+int(rest[0]):]
			}
		}
	default:
		if kind&optionMustRefuse != 0 {
			return fmt.Errorf("record has unknown option %#x", kind)
		}
	}
	if !ok {
		return errRecordOptions
	}
	return nil
}

// recordOptions returns the options of a record whose checksum has been proved.
func recordOptions(rec []byte) []byte {
	return rec[recordHeader : recordHeader+int(binary.BigEndian.Uint16(rec[33:]))]
}

// recordOf frames a record, to be sealed when it is written.
func recordOf(h header, t *traits, value []byte) []byte {
	room := rowSize + recordHeader + len(t.etag) + len(t.tags) + 64 + len(value) + recordTrailer
	stored := appendHeader(slices.Grow([]byte(nil), room)[:rowSize], h)
	return appendTrailer(append(appendTraits(stored, t), value...))
}

// state is what an entry is at a moment.
type state struct {
	fresh    bool // its deadline has not been reached
	live     bool // every operation sees it
	held     bool // it is live, stale or negative: GetOrLoad sees it. Not if a tag of it was invalidated
	negative bool
}

// stateOf judges an entry by its times and its options, as of now.
func (db *DB) stateOf(h *header, options []byte) state {
	now := int64(0)
	if h.freshUntil != never {
		now = db.clock.at(h.freshUntil, h.goneAt)
	}
	s := timely(now, h)
	if len(options) > 0 && s.held {
		s = db.regard(s, h, options)
	}
	return s
}

// timely judges an entry by its times alone.
func timely(now int64, h *header) state {
	fresh := now < h.freshUntil
	return state{fresh: fresh, live: fresh, held: now < h.goneAt}
}

// regard returns the state of an entry that is held as far as its times say, with regard to its options.
func (db *DB) regard(s state, h *header, options []byte) state {
	t := readTraits(options)
	if db.tags.invalidated(t.tags) >= t.since(h.revision) && len(t.tags) > 0 {
		return state{fresh: s.fresh}
	}
	if t.negative {
		s.negative, s.live = true, false
	}
	return s
}
