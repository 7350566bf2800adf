package preflight

import "bytes"

// The layout of a page, from bbolt's internal/common. A leaf's elements have flags, position, length of the key and
// length of the value (4 bytes each), a branch's position, length of the key (4 bytes each) and page number (8 bytes).
// The position counts from the element itself.
const (
	flagBranch = 0x01
	flagLeaf   = 0x02
	flagMeta   = 0x04
	flagList   = 0x10

	elementSize  = 16
	flagBucket   = 0x01 // of a leaf's element
	bucketHeader = 16   // root page, or 0 where the bucket's page follows; sequence

	mostKey = 32768 // bytes, bbolt's MaxKeySize
)

// longPage is the length in bytes from which only the elements and the keys of a page are read. A page that long has a
// few long values.
const longPage = 128 << 10

// page is one that has been read, with its header proved and nothing else.
type page struct {
	id    uint64
	leaf  bool
	count int
	span  int64  // bytes, with its overflow
	data  []byte // the first bytes of it: all of them unless it is long

	file   *File  // where the rest is
	audit  *audit // nil: the first damage ends each
	room   []byte // for data
	key    []byte // room for a key that is not in data
	before []byte // for the one before it
	value  []byte // and for a value
}

// readPage proves the header of the page with the given number, which lies below the file's count of pages, and has its
// bytes in p. have begins with the page and may end anywhere after its first pageSize bytes.
func (f *File) readPage(p *page, id uint64, have []byte) error {
	if err := f.readHead(p, id, have); err != nil {
		return err
	}
	return f.readRest(p, have)
}

// readHead is the part of readPage that proves the header.
func (f *File) readHead(p *page, id uint64, have []byte) error {
	flags := native.Uint16(have[8:])
	overflow := native.Uint32(have[12:])
	switch at := native.Uint64(have); {
	case at != id:
		return damage(id, "it says that it is page %d", at)
	case flags != flagLeaf && flags != flagBranch:
		return damage(id, "it is of type %#x", flags)
	case uint64(overflow) >= f.pages()-id:
		return damage(id, "its overflow of %d pages ends behind page %d", overflow, f.pages())
	}
	p.id, p.file, p.leaf, p.count = id, f, flags == flagLeaf, int(native.Uint16(have[10:]))
	p.span = (int64(overflow) + 1) * f.pageSize
	return nil
}

// readRest is the part of readPage that has the bytes in p.
func (f *File) readRest(p *page, have []byte) error {
	need := p.span
	if need > longPage {
		need = min(p.span, max(pageHeader+int64(p.count)*elementSize, f.pageSize))
	}
	if int64(len(have)) < need {
		if int64(cap(p.room)) < need {
			p.room = make([]byte, need)
		}
		have = p.room[:need]
		if err := f.readAt(have, int64(p.id)*f.pageSize); err != nil {
			return err
		}
	}
	p.data = have[:min(int64(len(have)), p.span)]
	return nil
}

// plain reports whether a leaf is one that each and checkKey accept, without a bucket in it. It is three times as quick
// as they are. What it says no to may be sound all the same.
func (p *page) plain(first, next []byte) bool {
	data := p.data
	end := pageHeader + int64(p.count)*elementSize
	if p.count == 0 || end > int64(len(data)) {
		return false
	}
	var key []byte
	elements := data[:end]
	for own := int64(pageHeader); own < int64(len(elements)); own += elementSize {
		raw := elements[own : own+elementSize : own+elementSize]
		at, size := own+int64(native.Uint32(raw[4:])), int64(native.Uint32(raw[8:]))
		after := at + size + int64(native.Uint32(raw[12:]))
		if native.Uint32(raw) != 0 || size > mostKey || at < end || after > int64(len(data)) {
			return false
		}
		before := key
		key = data[at : at+size]
		if own == pageHeader && first != nil {
			if !bytes.Equal(key, first) {
				return false
			}
		} else if bytes.Compare(before, key) >= 0 { // an empty key is above no other, and not above none
			return false
		}
		end = after
	}
	return next == nil || bytes.Compare(key, next) < 0
}

// bytesAt returns bytes of the page, which lie within its span. What has to be read for it goes into room.
func (p *page) bytesAt(at, n int64, room *[]byte) ([]byte, error) {
	if at+n <= int64(len(p.data)) {
		return p.data[at : at+n], nil
	}
	if int64(cap(*room)) < n {
		*room = make([]byte, n)
	}
	*room = (*room)[:n]
	return *room, p.file.readAt(*room, int64(p.id)*p.file.pageSize+at)
}

// element is one of a page.
type element struct {
	key    []byte // good until the next element
	child  uint64 // of a branch: the number of its page
	bucket bool   // of a leaf: it is a bucket
	at     int64  // of a leaf: where in the page its value is
	value  int64  // and the length of that
}

// each calls fn for each element, proved to be within the page and in its place.
func (p *page) each(fn func(i int, e *element) error) error {
	end := pageHeader + int64(p.count)*elementSize
	if end > p.span {
		return damage(p.id, "%d elements do not fit", p.count)
	}
	var e element
	var before []byte
	for i := range p.count {
		own := pageHeader + int64(i)*elementSize
		raw := p.data[own : own+elementSize]
		var at, size int64
		if p.leaf {
			flags := native.Uint32(raw)
			at, size, e.value = int64(native.Uint32(raw[4:])), int64(native.Uint32(raw[8:])), int64(native.Uint32(raw[12:]))
			if flags > flagBucket {
				return damage(p.id, "element %d has flags %#x", i, flags)
			}
			e.bucket = flags == flagBucket
		} else {
			at, size, e.child = int64(native.Uint32(raw)), int64(native.Uint32(raw[4:])), native.Uint64(raw[8:])
		}
		at += own
		switch {
		case size == 0 || size > mostKey:
			return damage(p.id, "element %d has a key of %d bytes", i, size)
		case at < end || at+size+e.value > p.span:
			return damage(p.id, "element %d is out of its place", i)
		}
		e.at = at + size
		end = e.at + e.value
		var err error
		if e.key, err = p.bytesAt(at, size, &p.key); err != nil {
			return err
		}
		if i > 0 && bytes.Compare(before, e.key) >= 0 {
			if err := p.audit.pass(damage(p.id, "the key of element %d is not above the one before", i)); err != nil {
				return err
			}
		}
		if err := fn(i, &e); err != nil {
			return err
		}
		if before = e.key; at+size > int64(len(p.data)) {
			p.key, p.before = p.before, p.key // so that the next key does not overwrite this one
		}
	}
	return nil
}
