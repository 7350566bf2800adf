package pagetree

import (
	"hash/fnv"
	"io"
)

// Meta is the part of a meta page that says which state of the file is in force: two that are equal are of one state.
type Meta [64]byte

// The layout of a meta page, after the header of a page: magic, version, page size, flags (4 bytes each), root page and
// sequence, freelist page, page count, transaction id and a checksum (8 bytes each).
const (
	metaMagic    = 0xED0CDAED
	metaVersion  = 2
	metaPageSize = 8
	metaRoot     = 16
	metaPages    = 40
	metaTxid     = 48
	metaSum      = 56

	leastPageSize = 1 << 10
	mostPageSize  = 1 << 16
)

// Newest returns the meta page that is in force, the newest whole one. It reports false if none is whole. A page that
// is just being written is not: then the other one still is in force.
func Newest(src io.ReaderAt) (best Meta, found bool) {
	consider := func(offset int64) (pageSize int64) {
		var page [headerSize + len(best)]byte
		if _, err := src.ReadAt(page[:], offset); err != nil {
			return 0
		}
		m := Meta(page[headerSize:])
		sum := fnv.New64a()
		sum.Write(m[:metaSum])
		pageSize = m.PageSize()
		if ne.Uint32(m[:]) != metaMagic || ne.Uint32(m[4:]) != metaVersion || sum.Sum64() != ne.Uint64(m[metaSum:]) ||
			pageSize < leastPageSize || pageSize > mostPageSize || pageSize&(pageSize-1) != 0 {
			return 0
		}
		if !found || ne.Uint64(m[metaTxid:]) > ne.Uint64(best[metaTxid:]) {
			best, found = m, true
		}
		return pageSize
	}
	if first := consider(0); first != 0 {
		consider(first)
	} else {
		// The first one is damaged. The second lies one page further, of whatever size pages are.
		for guess := int64(leastPageSize); guess <= mostPageSize && !found; guess <<= 1 {
			consider(guess)
		}
	}
	return best, found
}

// PageSize returns how many bytes a page of the file has.
func (m *Meta) PageSize() int64 { return int64(ne.Uint32(m[metaPageSize:])) }

// Bytes returns how many bytes of the file are in use, free pages among them included.
func (m *Meta) Bytes() int64 {
	return int64(min(ne.Uint64(m[metaPages:]), 1<<62/mostPageSize)) * m.PageSize()
}

// Tree returns the state of the file that m is of. Nothing is read yet.
func (m *Meta) Tree(src io.ReaderAt) *Tree {
	t := &Tree{src: src, pageSize: m.PageSize(), pages: min(ne.Uint64(m[metaPages:]), 1<<62/mostPageSize)}
	t.root = Bucket{tree: t, root: ne.Uint64(m[metaRoot:])}
	return t
}
