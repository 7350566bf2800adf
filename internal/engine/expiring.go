package engine

import (
	"cmp"
	"slices"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
)

// Bounds of Expiring, in rows of the expiry index that it reads. A row may be earlier than the end of its entry, so
// some are looked at in vain.
const (
	ExpiringRowsFree = 1024 // for any n
	ExpiringRowsEach = 8    // for each entry
)

// Ending is a live entry that ends at some time, without its value.
type Ending struct {
	Bucket, Key string
	Header      format.Header
	Options     []byte
	Size        int // of the value, in bytes
}

// EntryError is an error about one entry, of an operation on many.
type EntryError struct {
	Bucket, Key string
	Err         error
}

func (e *EntryError) Error() string { return e.Err.Error() }
func (e *EntryError) Unwrap() error { return e.Err }

// Expiring returns the first n live entries in the order in which they end: of all buckets, or of those that are named.
// An error that one entry gives is an *EntryError.
func (e *Engine) Expiring(n int, buckets []string) ([]Ending, error) {
	names := make(map[uint64]string)
	for name, id := range e.bucketIDs() {
		if len(buckets) == 0 || slices.Contains(buckets, name) {
			names[id] = name
		}
	}
	rows, err := e.store.ExpiryRows(ExpiringRowsFree + ExpiringRowsEach*n)
	if err != nil {
		return nil, err
	}
	// Memory knows first of what was written last.
	var late ExpiringRows
	e.memory.EachPinned(func(p *memory.Pin) {
		if p.Stored != nil && names[p.ID] != "" {
			late.Add(n, p.StaleUntil, p.ID, p.Key)
		}
	})
	return FirstExpiring(n, names, append(rows, late...), func(_ uint64, bucket, key string) (Reading, error) {
		return e.Peek(newRef(bucket), key, true)
	})
}

// ExpiringRows are rows of the entries that end first, in no order, and some more.
type ExpiringRows []store.ExpiryRow

// Add adds an entry, unless it never ends, and lets go of those that are not among the first n of very many.
func (rows *ExpiringRows) Add(n int, staleUntil int64, id uint64, key string) {
	if staleUntil == format.Never {
		return
	}
	if *rows = append(*rows, store.ExpiryRow{At: staleUntil, ID: id, Key: []byte(key)}); len(*rows) >= 4*n {
		sortRows(*rows)
		*rows = (*rows)[:n]
	}
}

func sortRows(rows []store.ExpiryRow) {
	slices.SortFunc(rows, func(a, b store.ExpiryRow) int { return cmp.Compare(a.At, b.At) })
}

// FirstExpiring returns the first n live entries of those that rows speak of, which are not later than their entries'
// ends. names are the buckets by their ids; rows of others are left out.
func FirstExpiring(
	n int, names map[uint64]string, rows []store.ExpiryRow, look func(id uint64, bucket, key string) (Reading, error),
) ([]Ending, error) {
	sortRows(rows)
	var found []Ending
	seen := make(map[format.EntryKey]bool)
	byEnd := func(a, b Ending) int { return cmp.Compare(a.Header.StaleUntil, b.Header.StaleUntil) }
	for _, d := range rows {
		// No row is later than its entry's end, so what follows cannot come before what there is.
		if len(found) >= n && d.At > found[n-1].Header.StaleUntil {
			break
		}
		bucket, at := names[d.ID], format.EntryKey{ID: d.ID, Key: string(d.Key)}
		if bucket == "" || seen[at] {
			continue
		}
		seen[at] = true
		r, err := look(d.ID, bucket, at.Key)
		if err != nil {
			return nil, &EntryError{bucket, at.Key, err}
		}
		if !r.Live || r.Header.StaleUntil == format.Never {
			continue
		}
		// A thousand records may be large.
		one := Ending{bucket, at.Key, r.Header, slices.Clone(r.Options), len(r.Value)}
		i, _ := slices.BinarySearchFunc(found, one, byEnd)
		found = slices.Insert(found, i, one)
		found = found[:min(len(found), n)]
	}
	return found, nil
}
