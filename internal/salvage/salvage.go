// Package salvage reads what can be read of a bbolt file in whatever state. It proves nothing: what it returns
// comes from within the file, and what that is worth the caller has to know. Every read and every allocation is bounded
// by the file, no number in a page is trusted, and nothing recurses.
package salvage

import (
	"encoding/binary"
	"hash/fnv"
	"io"
	"slices"
)

// The layout of pages, from bbolt's internal/common, in the byte order of the machine: a page header of page number
// (8), flags (2), count (2) and overflow (4 bytes); in a leaf elements of flags, position, key length and value length
// (4 bytes each), in a branch of position, key length (4 bytes each) and page number (8); positions count from the
// element. A bucket's value is its root page and sequence (8 bytes each), and its only page if the root is 0.
const (
	pageHeader   = 16
	elementSize  = 16
	bucketHeader = 16
	flagBranch   = 1
	flagLeaf     = 2

	metaMagic, metaVersion = 0xED0CDAED, 2
	metaSize               = 64

	leastPage, mostPage = 1 << 10, 64 << 10

	mostKey = 32768
)

var native = binary.NativeEndian

// File is a file in whatever state. It may be used by one goroutine at a time.
type File struct {
	r        io.ReaderAt
	size     int64
	pageSize int64
	roots    []uint64 // root pages of the meta pages that are whole, the newest first
	txid     uint64   // of the newest
}

// Element is an element of a leaf.
type Element struct {
	Key    []byte
	Bucket bool
	Size   int64 // of the value, in bytes

	at  int64
	raw []byte // the value, where it has been read already
}

// Open looks at the meta pages of a file of size bytes. Where none is whole it guesses the size of the pages.
func Open(r io.ReaderAt, size int64) (*File, error) {
	f := &File{r: r, size: size}
	type meta struct{ root, txid uint64 }
	var found []meta
	look := func(at int64) error {
		var b [pageHeader + metaSize]byte
		if at+int64(len(b)) > size {
			return nil
		}
		if err := f.read(b[:], at); err != nil {
			return err
		}
		m := b[pageHeader:]
		page := int64(native.Uint32(m[8:]))
		sum := fnv.New64a()
		sum.Write(m[:metaSize-8])
		if native.Uint32(m) != metaMagic || native.Uint32(m[4:]) != metaVersion ||
			sum.Sum64() != native.Uint64(m[metaSize-8:]) ||
			page < leastPage || page > mostPage || page&(page-1) != 0 {
			return nil
		}
		f.pageSize = page
		found = append(found, meta{native.Uint64(m[16:]), native.Uint64(m[48:])})
		return nil
	}
	if err := look(0); err != nil {
		return nil, err
	}
	for at := int64(leastPage); at <= mostPage && (f.pageSize == 0 || at == f.pageSize || len(found) == 1); at <<= 1 {
		if f.pageSize != 0 && at != f.pageSize {
			continue
		}
		if err := look(at); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(found, func(a, b meta) int {
		if a.txid > b.txid {
			return -1
		}
		return 1
	})
	for _, m := range found {
		f.txid = max(f.txid, m.txid)
		f.roots = append(f.roots, m.root)
	}
	if f.pageSize == 0 {
		return f, f.guess()
	}
	return f, nil
}

// guess takes the size of pages by which most pages say what their number is.
func (f *File) guess() error {
	f.pageSize = 4096
	best := 0
	for size := int64(leastPage); size <= mostPage; size <<= 1 {
		hits := 0
		for i := int64(2); i < 1024 && (i+1)*size <= f.size; i++ {
			var b [8]byte
			if err := f.read(b[:], i*size); err != nil {
				return err
			}
			if native.Uint64(b[:]) == uint64(i) {
				hits++
			}
		}
		if hits > best {
			best, f.pageSize = hits, size
		}
	}
	return nil
}

// Pages returns how many pages there are, the last one included if it is not whole.
func (f *File) Pages() uint64 { return uint64((f.size + f.pageSize - 1) / f.pageSize) }

// Roots returns the root pages that whole meta pages name, the newest first.
func (f *File) Roots() []uint64 { return f.roots }

// Txid returns the id of the last transaction of which there is a whole meta page, or 0 if there is none.
func (f *File) Txid() uint64 { return f.txid }

// read fills b, with zeros where the file ends.
func (f *File) read(b []byte, at int64) error {
	n, err := f.r.ReadAt(b, at)
	clear(b[n:])
	if err == io.EOF {
		err = nil
	}
	return err
}

// page reads the beginning of a page of the given type, and returns its span in bytes and the count of its elements.
// A page that overflows does so because of a few large elements, so what describes its elements is in the beginning.
// ok is false where there is no such page.
func (f *File) page(id uint64, flags uint16) (data []byte, span int64, count int, ok bool, err error) {
	if id < 2 || id >= f.Pages() {
		return nil, 0, 0, false, nil
	}
	at := int64(id) * f.pageSize
	data = make([]byte, min(f.pageSize, f.size-at))
	if err := f.read(data, at); err != nil {
		return nil, 0, 0, false, err
	}
	if len(data) < pageHeader || native.Uint64(data) != id || native.Uint16(data[8:]) != flags {
		return nil, 0, 0, false, nil
	}
	span = min((int64(native.Uint32(data[12:]))+1)*f.pageSize, f.size-at)
	return data, span, int(native.Uint16(data[10:])), true, nil
}

// Leaf returns the elements of a page, without those that do not lie within it, and false if it is no leaf. whole says
// that there were no such.
func (f *File) Leaf(id uint64) (found []Element, whole, ok bool, err error) {
	data, span, count, ok, err := f.page(id, flagLeaf)
	if !ok {
		return nil, false, false, err
	}
	found, whole, err = f.elements(data, int64(id)*f.pageSize, span, count)
	return found, whole, true, err
}

// elements takes a leaf apart that begins at an offset of the file. data is its beginning.
func (f *File) elements(data []byte, start, span int64, count int) (found []Element, whole bool, err error) {
	whole = true
	end := int64(0) // of the element before: bbolt lays them out one behind the other
	for i := range count {
		own := pageHeader + int64(i)*elementSize
		if own+elementSize > int64(len(data)) {
			return found, false, nil
		}
		raw := data[own : own+elementSize]
		flags, at := native.Uint32(raw), own+int64(native.Uint32(raw[4:]))
		key, value := int64(native.Uint32(raw[8:])), int64(native.Uint32(raw[12:]))
		if flags > 1 || key == 0 || key > mostKey || at < own+elementSize || at < end || at+key+value > span {
			whole = false
			continue
		}
		end = at + key + value
		e := Element{Bucket: flags == 1, Size: value, at: start + at + key}
		if at+key <= int64(len(data)) {
			e.Key = data[at : at+key : at+key]
		} else {
			e.Key = make([]byte, key)
			if err := f.read(e.Key, start+at); err != nil {
				return nil, false, err
			}
		}
		if at+key+value <= int64(len(data)) {
			e.raw = data[at+key : at+key+value : at+key+value]
		}
		found = append(found, e)
	}
	return found, whole, nil
}

// Value returns the value of an element. It is as long as Size says, which is less than the file.
func (f *File) Value(e *Element) ([]byte, error) {
	if e.raw != nil || e.Size == 0 {
		return e.raw, nil
	}
	value := make([]byte, e.Size)
	return value, f.read(value, e.at)
}

// children returns the pages that a branch names, and false if the page is no branch, or a damaged one.
func (f *File) children(id uint64) (pages []uint64, ok bool, err error) {
	data, _, count, ok, err := f.page(id, flagBranch)
	if !ok {
		return nil, false, err
	}
	for i := range count {
		own := pageHeader + int64(i)*elementSize
		if own+elementSize > int64(len(data)) {
			return pages, false, nil
		}
		pages = append(pages, native.Uint64(data[own+8:]))
	}
	return pages, count > 0, nil
}

// Tree calls fn for the elements of each leaf of a tree that can be reached from its root page, until fn returns an
// error. It reports whether all of the tree was there; seen, if not nil, is told every page.
func (f *File) Tree(root uint64, seen map[uint64]bool, fn func([]Element) error) (whole bool, err error) {
	whole = true
	if seen == nil {
		seen = make(map[uint64]bool)
	}
	if seen[root] {
		return false, nil
	}
	seen[root] = true
	for stack := []uint64{root}; len(stack) > 0; {
		id := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		found, sound, leaf, err := f.Leaf(id)
		if err != nil {
			return false, err
		}
		if leaf {
			whole = whole && sound
			if err := fn(found); err != nil {
				return false, err
			}
			continue
		}
		pages, sound, err := f.children(id)
		if err != nil {
			return false, err
		}
		whole = whole && sound
		for _, id := range slices.Backward(pages) { // so that leaves come in their order
			if seen[id] || id >= f.Pages() {
				whole = false // a page has one parent
				continue
			}
			seen[id] = true
			stack = append(stack, id)
		}
	}
	return whole, nil
}

// bucket returns the value of a bucket, or nil where it has not the length of one, which is a page at the most.
func (f *File) bucket(e *Element) ([]byte, error) {
	if e.Size < bucketHeader || e.Size > bucketHeader+mostPage {
		return nil, nil
	}
	return f.Value(e)
}

// Bucket calls fn for the elements of a bucket's leaves, as Tree does.
func (f *File) Bucket(e *Element, seen map[uint64]bool, fn func([]Element) error) (whole bool, err error) {
	value, err := f.bucket(e)
	if err != nil || value == nil {
		return false, err
	}
	if root := native.Uint64(value); root != 0 {
		return f.Tree(root, seen, fn)
	}
	page := value[bucketHeader:]
	if len(page) < pageHeader || native.Uint16(page[8:]) != flagLeaf {
		return false, nil
	}
	found, whole, err := f.elements(page, 0, int64(len(page)), int(native.Uint16(page[10:])))
	if err != nil {
		return false, err
	}
	return whole, fn(found)
}

// Sequence returns the sequence of a bucket.
func (f *File) Sequence(e *Element) uint64 {
	value, err := f.bucket(e)
	if err != nil || value == nil {
		return 0
	}
	return native.Uint64(value[8:])
}

// Inline calls fn for the elements of a bucket that lies within its element, and for none of one that has pages.
func (f *File) Inline(e *Element, fn func([]Element) error) error {
	value, err := f.bucket(e)
	if err != nil || value == nil || native.Uint64(value) != 0 {
		return err
	}
	_, err = f.Bucket(e, nil, fn)
	return err
}
