package engine

import (
	"bytes"
	"unsafe"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/keyrange"
	"github.com/keepcache/keepcache/internal/store"
)

// ScanEntry is an entry of a scan, expired and damaged ones included.
type ScanEntry struct {
	Key     string
	Header  format.Header
	Options []byte
	Value   []byte // nil in a scan without values
	Size    int    // of the value, in bytes
	Damage  error
	Expired bool // its deadline had been reached before the scan came to it
}

// Scan is what a scan walks over.
type Scan struct {
	Keys     keyrange.Range
	NoValues bool // leave out the values: they are not copied
}

// Scan hands what is stored under the keys of a range to fn, in its order, a page at a time and outside of any
// transaction, until fn returns false. A page is fn's until it returns.
//
// It merges the keys that are pinned when it begins into the pages of the file: a key that lives all the
// while is in one of the two, because what is unpinned is in the file.
func (e *Engine) Scan(at *Ref, scan Scan, fn func([]ScanEntry) bool) error {
	switch {
	case e.closed.Load():
		return errs.ErrClosed
	case !format.ValidName(at.Name):
		return errs.ErrInvalidName
	}
	ns := e.find(at)
	if ns == nil || scan.Keys.Empty() {
		return nil
	}
	// One id for the whole range: a Clear in the middle ends it, and entries set after it are not seen.
	id := ns.id.Load()
	if id == 0 {
		return nil
	}
	pinned := e.memory.PinnedKeys(id, scan.Keys)
	var stored, merged []ScanEntry // their room is used for each page
	rest := scan.Keys
	for more := true; more || len(pinned) > 0; {
		if e.closed.Load() {
			return errs.ErrClosed
		}
		asOf := format.Millis(e.clock.Now())
		stored = stored[:0]
		if more {
			var err error
			rest, more, err = e.store.Page(id, rest, func(key, record []byte) int {
				stored = append(stored, openStored(ns.sum, key, record, asOf, scan.NoValues))
				f := &stored[len(stored)-1]
				return len(f.Key) + len(f.Options) + len(f.Value) + entryOverhead
			})
			if err != nil {
				return err
			}
		}
		n := len(pinned) // how many pinned keys belong into this page
		switch {
		case more:
			n = rest.Index(pinned)
		case len(stored) == 0:
			n = min(n, store.PageItems)
		}
		page := stored[:0]
		if n > 0 {
			page = merged[:0]
		}
		page, err := e.merge(page, ns, id, stored, pinned[:n], asOf, &scan)
		if err != nil {
			return err
		}
		if n > 0 {
			merged = page
		}
		pinned = pinned[n:]
		if ns.id.Load() != id || !fn(page) {
			return nil
		}
	}
	return nil
}

// entryOverhead is about what an entry of a page takes beside its bytes.
const entryOverhead = 128

// openStored proves a record of the file and takes it apart. Key and record are part of the file: it keeps copies.
func openStored(sum uint32, key, record []byte, asOf int64, noValue bool) ScanEntry {
	if _, _, err := format.OpenStored(record, sum, unsafe.String(unsafe.SliceData(key), len(key))); err != nil {
		return ScanEntry{Key: string(key), Damage: err}
	}
	if noValue {
		f := StoredAs(string(key), record, 0, asOf)
		f.DropValue()
		return f
	}
	both := append(append(make([]byte, 0, len(key)+len(record)), key...), record...)
	return StoredAs(unsafe.String(unsafe.SliceData(both), len(key)), both[len(key):], 0, asOf)
}

// merge appends one page of a scan to page, of what the file has and of the pinned keys that belong to the page. Where
// memory knows a key it is right, and the file may be late. asOf is a moment before all of this was read. Without
// pinned keys, page may be the room of stored.
func (e *Engine) merge(
	page []ScanEntry, ns *namespace, id uint64, stored []ScanEntry, pinned []string, asOf int64, scan *Scan,
) ([]ScanEntry, error) {
	for len(stored) > 0 || len(pinned) > 0 {
		var f ScanEntry
		fromFile := false
		order := firstOf(stored, pinned, scan.Keys)
		if order <= 0 {
			f, fromFile, stored = stored[0], true, stored[1:]
		}
		if order >= 0 {
			// What the page says of a pinned key is late. If a commit has unpinned it meanwhile, the file knows now.
			f, fromFile, pinned = ScanEntry{Key: pinned[0]}, false, pinned[1:]
		}
		known := e.memory.Peek(e.memory.Hash(id, f.Key), id, f.Key)
		switch {
		case known.Known && known.Record == nil:
			continue // deleted
		case known.Known:
			if f = StoredAs(f.Key, known.Record, known.Slid, asOf); scan.NoValues {
				f.DropValue()
			}
		case !fromFile: // pinned when the scan began, and in the file by now
			record, err := e.store.Record(id, f.Key)
			if err != nil {
				return nil, err
			}
			if record == nil {
				continue
			}
			f = openStored(ns.sum, []byte(f.Key), record, asOf, scan.NoValues)
		}
		page = append(page, f)
	}
	return page, nil
}

// StoredAs takes apart a record that has been proved, of an entry that reads keep fresh until slid. asOf is a moment
// before it was read.
func StoredAs(key string, rec []byte, slid, asOf int64) ScanEntry {
	f := ScanEntry{Key: key, Header: format.ReadHeader(rec), Options: format.OptionBytes(rec), Value: format.Value(rec)}
	f.Size = len(f.Value)
	f.Header.Slide(slid)
	f.Expired = asOf >= f.Header.ExpiresAt
	return f
}

// DropValue leaves the value out, and keeps nothing of the record.
func (f *ScanEntry) DropValue() { f.Options, f.Value = bytes.Clone(f.Options), nil }

// firstOf compares the first key of the file with the first pinned one, in the order of a range. The end of a list
// comes after everything.
func firstOf(stored []ScanEntry, pinned []string, r keyrange.Range) int {
	switch {
	case len(pinned) == 0:
		return -1
	case len(stored) == 0:
		return 1
	}
	return r.Compare(stored[0].Key, pinned[0])
}
