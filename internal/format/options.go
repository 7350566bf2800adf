package format

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
	optionETag     = 0x03 // 1 to keepcache.MaxETagBytes bytes, the loader's own
	optionRetry    = 0x04 // 8 bytes: not to be loaded again before, because the last load failed
	optionLifetime = 0x05 // 8 bytes: milliseconds that each read gives the entry anew, not 0
	optionNegative = 0x81 // empty: a loader found that there is no such thing; the value is null
	// 8 bytes: the revision as of which the tags hold, or 0 for the record's own; then each tag: its length (1 byte) and
	// it
	optionTags = 0x82
)

// Options are what a record says beyond its header, in its options. The zero value is a record without any.
// The slices point into the record.
type Options struct {
	Negative bool
	LoadedAt int64 // 0: it was not loaded
	RetryAt  int64
	Lifetime int64 // 0: reads do not prolong it
	ETag     []byte
	AsOf     uint64 // revision as of which the tags hold; 0 is the record's own
	Tags     Tags   // nil: none
}

// Since returns the revision as of which the tags of a record with the given revision hold.
func (t *Options) Since(revision uint64) uint64 {
	if t.AsOf != 0 {
		return t.AsOf
	}
	return revision
}

// Tags is a list of tags as a record holds it: each with its length before it.
type Tags []byte

// All yields the tags one by one; they point into the list.
func (l Tags) All() iter.Seq[[]byte] {
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

// Strings returns the tags in a slice of the caller's own, nil for none.
func (l Tags) Strings() (tags []string) {
	for tag := range l.All() {
		tags = append(tags, string(tag))
	}
	return tags
}

// ReadOptions reads options that CheckOptions has proved.
func ReadOptions(options []byte) (t Options) {
	for len(options) > 0 {
		kind, n := options[0], 3+int(binary.BigEndian.Uint16(options[1:]))
		data := options[3:n:n]
		options = options[n:]
		switch kind {
		case optionLoaded:
			t.LoadedAt = int64(binary.BigEndian.Uint64(data))
		case optionETag:
			t.ETag = data
		case optionRetry:
			t.RetryAt = int64(binary.BigEndian.Uint64(data))
		case optionLifetime:
			t.Lifetime = int64(binary.BigEndian.Uint64(data))
		case optionNegative:
			t.Negative = true
		case optionTags:
			t.AsOf, t.Tags = binary.BigEndian.Uint64(data), Tags(data[8:])
		}
	}
	return t
}

// AppendOptions appends the options to rec, which AppendHeader has just started.
func AppendOptions(rec []byte, t *Options) []byte {
	start := len(rec)
	time := func(kind byte, value int64) {
		if value != 0 {
			rec = binary.BigEndian.AppendUint64(append(rec, kind, 0, 8), uint64(value))
		}
	}
	time(optionLoaded, t.LoadedAt)
	if len(t.ETag) > 0 {
		rec = binary.BigEndian.AppendUint16(append(rec, optionETag), uint16(len(t.ETag)))
		rec = append(rec, t.ETag...)
	}
	time(optionRetry, t.RetryAt)
	time(optionLifetime, t.Lifetime)
	if t.Negative {
		rec = append(rec, optionNegative, 0, 0)
	}
	if len(t.Tags) > 0 {
		rec = binary.BigEndian.AppendUint16(append(rec, optionTags), uint16(8+len(t.Tags)))
		rec = append(binary.BigEndian.AppendUint64(rec, t.AsOf), t.Tags...)
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

// OptionBytes returns the options of a record whose checksum has been proved.
func OptionBytes(rec []byte) []byte {
	return rec[HeaderSize : HeaderSize+int(binary.BigEndian.Uint16(rec[33:]))]
}

// Frame returns room for a row and behind it a record, to be sealed when it is written.
func Frame(h Header, t *Options, value []byte) []byte {
	room := RowSize + HeaderSize + len(t.ETag) + len(t.Tags) + 64 + len(value) + TrailerSize
	stored := AppendHeader(slices.Grow([]byte(nil), room)[:RowSize], h)
	return AppendTrailer(append(AppendOptions(stored, t), value...))
}
