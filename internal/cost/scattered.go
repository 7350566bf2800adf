package cost

import "github.com/keepcache/keepcache/internal/format"

// Scattered adds up what bbolt holds in memory for a transaction whose entries lie anywhere among others: a copy of
// each page that it changes, in the bucket, in the index of lifetimes and in the branches above both, and keys of its
// own. Of short keys hundreds share a branch, and it is the leaf that counts, see commit_size.go of package engine. Of
// keys of a kilobyte three do, and with each leaf some of the branches above it are changed that are above no other
// leaf of the transaction.
type Scattered struct {
	Page    Paging
	Among   int64 // entries of the file among which these lie
	RowsIn  int64 // rows of the index of lifetimes among which theirs lie
	n       int64 // entries added so far
	keys    int64 // bytes
	records int64 // bytes
	rows    int64 // that go with the entries
}

const (
	// scatteredKey is from which average length on keys make a difference, in bytes.
	scatteredKey = 128

	// nodePart is which part of a page bbolt needs besides, for the node that it makes of it.
	nodePart = 8
)

// Add adds an entry. lasts says that it has no row in the index of lifetimes.
func (s *Scattered) Add(key, record int, lasts bool) {
	s.n++
	s.keys += int64(key)
	s.records += int64(record)
	if !lasts {
		s.rows++
	}
}

// Passes reports whether the entries so far take more memory than there is room, in bytes.
func (s *Scattered) Passes(room int64) bool {
	return s.n > 1 && s.keys >= scatteredKey*s.n && s.bytes() > room
}

// bytes estimates what the entries so far take, from above.
func (s *Scattered) bytes() int64 {
	if s.n == 0 {
		return 0
	}
	key := s.keys / s.n
	total := s.keys + s.Page.changed(s.n, s.Among, pageHead+key+format.RowSize+s.records/s.n, key)
	if s.rows > 0 {
		total += 2*s.rows*(16+key) + s.Page.changed(s.rows, s.RowsIn, pageHead+16+key, 16+key)
	}
	return total
}

// changed returns what the pages take that n elements change which come in among others, all of so many bytes with
// their headers.
func (p Paging) changed(n, among, element, key int64) (total int64) {
	cost, per := p.element(element)
	size := cost * per
	count := (among+n)/usual(per) + 1
	cost, per = p.element(pageHead + key)
	children := usual(per)
	for above := cost * per; ; size = above {
		total += min(n, count) * max(size, int64(p))
		if count == 1 {
			return total + total/nodePart
		}
		count = (count + children - 1) / children
	}
}

// usual returns how many elements are in a page of which compaction would fill it with so many: where they come and go
// in no order there are some less.
func usual(perPage int64) int64 { return (5*perPage + 3) / 6 }
