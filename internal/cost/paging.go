// Package cost computes what entries need of a file.
package cost

import "github.com/keepcache/keepcache/internal/format"

// Paging computes what entries take of a file with pages of its size, as compaction writes them: an element of a
// page comes with a header of 16 bytes, pages are filled up to FillPercent, each has two elements at least, and
// whatever is longer than a page takes as many as it needs, in one piece. A key stands in the leaf of its bucket, in
// the expiry index where the entry has a lifetime, and in branch pages above both, once for each page below.
//
// Of entries of one size it is right to the page. Where sizes differ, what is left at the end of a page depends on
// who comes next, and single sums of theirs cannot say it: see docs/reliability.md for how far it is off.
type Paging int64

// UsualPage is what pages are taken to be where there is no file.
const UsualPage Paging = 4096

const (
	pageHead    = 16 // of a page, and of each element in it
	LeastInPage = 2  // elements, which bbolt keeps together whatever their size
	inlinePart  = 4  // a bucket of at most that part of a page stands within the element that names it
	bucketHead  = 16 // of a bucket, before its page where that stands within the element
)

// element returns what an element of so many bytes takes, header included, and how many share a page.
func (p Paging) element(bytes int64) (cost, perPage int64) {
	room := int64(FillPercent*float64(p)) - pageHead
	if n := room / bytes; n >= LeastInPage {
		return (int64(p) + n - 1) / n, n
	}
	return p.whole(pageHead+LeastInPage*bytes) / LeastInPage, LeastInPage
}

// whole rounds up to pages.
func (p Paging) whole(bytes int64) int64 { return (bytes + int64(p) - 1) / int64(p) * int64(p) }

// leaf returns what an element of a leaf takes, header included, with its part of the branches above, which have keys
// of the given length.
func (p Paging) leaf(bytes, key int64) int64 {
	cost, perPage := p.element(bytes)
	above, children := p.element(pageHead + key)
	return cost + above*children/(children-1)/perPage
}

// Entry returns what an entry takes in its bucket.
func (p Paging) Entry(key, record int) int64 {
	return p.leaf(int64(pageHead+key+format.RowSize+record), int64(key))
}

// Row returns what the row of an entry takes in the expiry index.
func (p Paging) Row(key int) int64 { return p.leaf(int64(pageHead+16+key), int64(16+key)) }

// Of returns the usage that an entry is.
func (p Paging) Of(key, record []byte) Usage {
	u := Usage{Entries: 1, Bytes: int64(len(key) + len(record)), Leaf: p.Entry(len(key), len(record))}
	if format.StaleUntil(record) != format.Never {
		u.Row = p.Row(len(key))
	}
	return u
}

// AtMost bounds what an entry costs, without a division.
func (p Paging) AtMost(key, record int) int64 { return 8 * (int64(p) + int64(key+record)) }

// Name returns what a bucket takes for its name.
func (p Paging) Name(name int) int64 { return p.leaf(int64(pageHead+name+8), int64(name)) }

// Bucket returns what a bucket takes besides its name and its entries: for the rows of its usage and its costs, for
// the element that leads to it, and for what its entries leave empty of a page. From its second leaf on there is a
// branch as well.
func (p Paging) Bucket(u Usage) int64 {
	if u.Entries == 0 {
		return 0
	}
	own := p.leaf(pageHead+8+16, 8) + p.leaf(pageHead+8+costRow, 8)
	content := pageHead + (pageHead+format.RowSize)*u.Entries + u.Bytes
	if content <= int64(p)/inlinePart {
		return own + max(0, p.leaf(pageHead+8+bucketHead+content, 8)-u.Leaf)
	}
	own += p.leaf(pageHead+8+bucketHead, 8)
	if u.Entries <= LeafMost || content <= int64(p) {
		return own + max(0, p.whole(content)-u.Leaf)
	}
	return own + int64(p) + int64(p)/2
}

// FillPercent is the part of a page that a compaction fills: a full page would be split by the next change.
const FillPercent = 0.95

// LeafMost is how many elements bbolt leaves in one leaf whatever their size.
const LeafMost = 2 * LeastInPage
