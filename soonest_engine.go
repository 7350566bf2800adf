package keepcache

import (
	"cmp"
	"slices"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
)

// Bounds of soonest. Rows of the expiry index may be earlier than their entry's end, so some are looked at in vain.
const (
	soonestLookFree = 1024 // rows
	soonestLookEach = 8
)

// ending is a live entry that ends at some time, without its value.
type ending struct {
	bucket, key string
	header      format.Header
	options     []byte
	size        int // of the value, in bytes
}

// soonest returns the live entries that end first, the soonest first, n at most: of all buckets, or of those that are named.
func (e *engine) soonest(n int, buckets []string) ([]ending, error) {
	names := make(map[uint64]string)
	for name, id := range e.bucketIDs() {
		if len(buckets) == 0 || slices.Contains(buckets, name) {
			names[id] = name
		}
	}
	rows, err := e.store.ExpiryRows(soonestLookFree + soonestLookEach*n)
	if err != nil {
		return nil, err
	}
	// Memory knows first of what was written last.
	var late soonestRows
	e.memory.EachPinned(func(p *memory.Pin) {
		if p.Stored != nil && names[p.ID] != "" {
			late.add(n, p.GoneAt, p.ID, p.Key)
		}
	})
	return soonestOf(n, names, append(rows, late...), func(_ uint64, bucket, key string) (reading, error) {
		return e.peek(newRef(bucket), key, true)
	})
}

// soonestRows are rows of entries that end first, in no order, and some more.
type soonestRows []store.ExpiryRow

// add adds an entry, unless it never ends, and lets go of those that are not among the first n of very many.
func (rows *soonestRows) add(n int, goneAt int64, id uint64, key string) {
	if goneAt == format.Never {
		return
	}
	if *rows = append(*rows, store.ExpiryRow{At: goneAt, ID: id, Key: []byte(key)}); len(*rows) >= 4*n {
		sortRows(*rows)
		*rows = (*rows)[:n]
	}
}

func sortRows(rows []store.ExpiryRow) {
	slices.SortFunc(rows, func(a, b store.ExpiryRow) int { return cmp.Compare(a.At, b.At) })
}

// soonestOf returns the first n live entries of those that rows speak of, which are not later than their entries' ends.
// names are the buckets by their ids; rows of others are left out.
func soonestOf(n int, names map[uint64]string, rows []store.ExpiryRow, look func(id uint64, bucket, key string) (reading, error)) ([]ending, error) {
	sortRows(rows)
	var found []ending
	seen := make(map[format.EntryKey]bool)
	byEnd := func(a, b ending) int { return cmp.Compare(a.header.GoneAt, b.header.GoneAt) }
	for _, d := range rows {
		// No row is later than its entry's end, so what follows cannot come before what there is.
		if len(found) >= n && d.At > found[n-1].header.GoneAt {
			break
		}
		bucket, at := names[d.ID], format.EntryKey{ID: d.ID, Key: string(d.Key)}
		if bucket == "" || seen[at] {
			continue
		}
		seen[at] = true
		r, err := look(d.ID, bucket, at.Key)
		if err != nil {
			return nil, err
		}
		if !r.live || r.header.GoneAt == format.Never {
			continue
		}
		// A thousand records may be large.
		one := ending{bucket, at.Key, r.header, slices.Clone(r.options), len(r.value)}
		i, _ := slices.BinarySearchFunc(found, one, byEnd)
		found = slices.Insert(found, i, one)
		found = found[:min(len(found), n)]
	}
	return found, nil
}
