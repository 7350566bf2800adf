package engine

import (
	"bytes"
	"slices"
	"strings"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/store"
)

// ScanEntry is an entry of a scan, expired and damaged ones included.
type ScanEntry struct {
	Key     string
	Header  format.Header
	Options []byte
	Value   []byte
	Damage  error
	Expired bool // its deadline had been reached before the scan came to it
}

// Scan hands what is stored under keys that begin with prefix and are not less than first to fn, in the order of the keys, a page at a
// time and outside of any transaction, until fn returns false.
//
// It merges the keys that are pinned when it begins into the pages of the file: a key that lives all the
// while is in one of the two, because what is unpinned is in the file.
func (e *Engine) Scan(at *Ref, first, prefix string, fn func([]ScanEntry) bool) error {
	switch {
	case e.closed.Load():
		return errs.ErrClosed
	case !format.ValidName(at.Name):
		return errs.ErrInvalidName
	}
	ns := e.find(at)
	if ns == nil {
		return nil
	}
	// One id for the whole range: a Clear in the middle ends it, and entries set after it are not seen.
	id := ns.id.Load()
	if id == 0 {
		return nil
	}
	pinned := e.memory.PinnedKeys(id, first, prefix)
	from := []byte(first)
	for more := true; more || len(pinned) > 0; {
		if e.closed.Load() {
			return errs.ErrClosed
		}
		asOf := format.Millis(e.clock.Now())
		var items []store.Item
		var err error
		if more {
			if items, more, err = e.store.Page(id, from, []byte(prefix)); err != nil {
				return err
			}
		}
		if n := len(items); n > 0 {
			// The least key after the last one is that key with a zero byte.
			from = append(bytes.Clone(items[n-1].Key), 0)
		}
		n := len(pinned) // how many pinned keys belong into this page
		switch {
		case more:
			n, _ = slices.BinarySearch(pinned, string(from))
		case len(items) == 0:
			n = min(n, store.PageItems)
		}
		page, err := e.merge(ns, id, items, pinned[:n], asOf)
		if err != nil {
			return err
		}
		pinned = pinned[n:]
		if ns.id.Load() != id || !fn(page) {
			return nil
		}
	}
	return nil
}

// merge makes one page of a scan out of a page of the file and of the pinned keys that belong to it. Where
// memory knows a key it is right, and the file may be late. asOf is a moment before all of this was read.
func (e *Engine) merge(ns *namespace, id uint64, items []store.Item, pinned []string, asOf int64) ([]ScanEntry, error) {
	page := make([]ScanEntry, 0, len(items)+len(pinned))
	for len(items) > 0 || len(pinned) > 0 {
		var key string
		var rec []byte
		order := firstOf(items, pinned)
		if order <= 0 {
			key, rec, items = string(items[0].Key), items[0].Record, items[1:]
		}
		if order >= 0 {
			// What the page says of a pinned key is late. If a commit has unpinned it meanwhile, the file knows now.
			key, pinned, rec = pinned[0], pinned[1:], nil
		}
		known := e.memory.Peek(e.memory.Hash(id, key), id, key)
		if known.Known {
			if known.Record != nil {
				page = append(page, StoredAs(key, known.Record, known.Slid, asOf))
			}
			continue
		}
		if rec == nil { // pinned when the scan began, and in the file by now
			var err error
			if rec, err = e.store.Record(id, key); err != nil {
				return nil, err
			}
			if rec == nil {
				continue
			}
		}
		if _, _, err := format.OpenStored(rec, ns.sum, key); err != nil {
			page = append(page, ScanEntry{Key: key, Damage: err})
			continue
		}
		page = append(page, StoredAs(key, rec, 0, asOf))
	}
	return page, nil
}

// StoredAs takes apart a record that has been proved, of an entry that reads keep fresh until slid. asOf is a moment before it
// was read.
func StoredAs(key string, rec []byte, slid, asOf int64) ScanEntry {
	f := ScanEntry{Key: key, Header: format.ReadHeader(rec), Options: format.OptionBytes(rec), Value: format.Value(rec)}
	f.Header.Slide(slid)
	f.Expired = asOf >= f.Header.ExpiresAt
	return f
}

// firstOf compares the first item with the first pinned key. The end of a list comes after everything.
func firstOf(items []store.Item, pinned []string) int {
	switch {
	case len(pinned) == 0:
		return -1
	case len(items) == 0:
		return 1
	}
	return strings.Compare(string(items[0].Key), pinned[0])
}
