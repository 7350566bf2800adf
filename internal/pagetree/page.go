package pagetree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrBroken says that pages do not fit together. Match it with errors.Is.
var ErrBroken = errors.New("the pages of the file do not fit together")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBroken, fmt.Sprintf(format, args...))
}

const (
	headerSize  = 16
	elementSize = 16

	flagBranch = 1
	flagLeaf   = 2

	flagBucket = 1 // of a leaf element

	// loadBytes is how much of a page is read at once. A page is longer only where a value is: then the keys
	// before and behind it are read one by one.
	loadBytes = 64 << 10

	// mostValue is the longest value to read, in bytes: the longest that a cache stores, and its record.
	mostValue = 512 << 20
)

var ne = binary.NativeEndian

// page is one page with what overflows from it.
type page struct {
	src    io.ReaderAt
	at     int64  // in src
	length int64  // bytes
	data   []byte // the first of them

	id    uint64
	leaf  bool
	count int
}

// page reads the page with the given number.
func (t *Tree) page(id uint64) (*page, error) {
	if id < 2 || id >= t.pages {
		return nil, broken("there is no page %d", id)
	}
	p := &page{src: t.src, at: int64(id) * t.pageSize, length: t.pageSize, id: id}
	p.data = make([]byte, t.pageSize)
	if err := p.fill(0); err != nil {
		return nil, err
	}
	overflow := uint64(ne.Uint32(p.data[12:]))
	if overflow >= t.pages-id {
		return nil, broken("page %d goes beyond the end of the file", id)
	}
	if p.length += int64(overflow) * t.pageSize; overflow > 0 {
		p.data = append(p.data, make([]byte, min(p.length, max(loadBytes, t.pageSize))-t.pageSize)...)
		if err := p.fill(int(t.pageSize)); err != nil {
			return nil, err
		}
	}
	return p, p.parse(id)
}

// inline is the page that lies in the value of its bucket.
func inline(value []byte) (*page, error) {
	p := &page{data: value, length: int64(len(value))}
	if len(value) < headerSize {
		return nil, broken("a bucket in its place is cut short")
	}
	if err := p.parse(0); err != nil {
		return nil, err
	}
	if !p.leaf {
		return nil, broken("a bucket in its place has branches")
	}
	return p, nil
}

// fill reads data from an offset on.
func (p *page) fill(from int) error {
	if _, err := p.src.ReadAt(p.data[from:], p.at+int64(from)); err != nil {
		return readError(err)
	}
	return nil
}

// readError takes the end of the file for what it is: fewer pages than there should be.
func readError(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return broken("the file ends before its pages do")
	}
	return err
}

// parse checks the header.
func (p *page) parse(id uint64) error {
	flags := ne.Uint16(p.data[8:])
	p.leaf, p.count = flags == flagLeaf, int(ne.Uint16(p.data[10:]))
	switch {
	case ne.Uint64(p.data) != id:
		return broken("page %d says that it is page %d", id, ne.Uint64(p.data))
	case flags != flagLeaf && flags != flagBranch:
		return broken("page %d has flags %#x", id, flags)
	case p.count == 0 && !p.leaf:
		return broken("page %d has no branches", id)
	case headerSize+int64(p.count)*elementSize > p.length:
		return broken("page %d has no room for its %d elements", id, p.count)
	}
	return nil
}

// bytes returns n bytes of the page, from offset at on. They are part of the page or a copy, and are not to be written
// to.
func (p *page) bytes(at, n int64) ([]byte, error) {
	if at < 0 || n < 0 || n > p.length || at > p.length-n {
		return nil, broken("an element of page %d lies outside of it", p.id)
	}
	if at+n <= int64(len(p.data)) {
		return p.data[at : at+n : at+n], nil
	}
	if n > mostValue {
		return nil, broken("an element of page %d has %d bytes", p.id, n)
	}
	b := make([]byte, n)
	if _, err := p.src.ReadAt(b, p.at+at); err != nil {
		return nil, readError(err)
	}
	return b, nil
}

// element is one element of a page.
type element struct {
	at     int64 // of its key in the page
	key    int64 // length
	value  int64 // length, in a leaf
	bucket bool  // in a leaf: the value is a bucket
	child  uint64
}

// element returns element i, which is below count.
func (p *page) element(i int) (element, error) {
	at := headerSize + int64(i)*elementSize
	b, err := p.bytes(at, elementSize)
	if err != nil {
		return element{}, err
	}
	if !p.leaf {
		return element{
			at: at + int64(ne.Uint32(b)), key: int64(ne.Uint32(b[4:])), child: ne.Uint64(b[8:]),
		}, nil
	}
	return element{
		bucket: ne.Uint32(b)&flagBucket != 0,
		at:     at + int64(ne.Uint32(b[4:])), key: int64(ne.Uint32(b[8:])), value: int64(ne.Uint32(b[12:])),
	}, nil
}

func (p *page) keyOf(e element) ([]byte, error)   { return p.bytes(e.at, e.key) }
func (p *page) valueOf(e element) ([]byte, error) { return p.bytes(e.at+e.key, e.value) }
