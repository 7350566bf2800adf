package preflight

import "math"

// list is the list of free pages: a page with their numbers, whose count lies in the page header or, where that has
// too few bits, in its first word.
type list struct {
	overflow uint64 // pages
	at       int64  // of its first number, in the file
	count    uint64
}

// readList proves the header of the list of free pages, which the file has.
func (f *File) readList() (l list, err error) {
	id := f.freelist()
	at := int64(id) * f.pageSize
	var head [pageHeader + 8]byte
	if err := f.readAt(head[:], at); err != nil {
		return l, err
	}
	l.overflow = uint64(native.Uint32(head[12:]))
	switch {
	case native.Uint64(head[:]) != id:
		return l, damage(id, "it says that it is page %d", native.Uint64(head[:]))
	case native.Uint16(head[8:]) != flagList:
		return l, damage(id, "it is no list of free pages")
	case l.overflow >= f.pages()-id:
		return l, damage(id, "its overflow of %d pages ends behind page %d", l.overflow, f.pages())
	}
	l.count, l.at = uint64(native.Uint16(head[10:])), at+pageHeader
	if l.count == math.MaxUint16 {
		l.count, l.at = native.Uint64(head[pageHeader:]), l.at+8
	}
	if end := at + int64(l.overflow+1)*f.pageSize; l.count > uint64(end-l.at)/8 {
		return l, damage(id, "%d free pages do not fit", l.count)
	}
	return l, nil
}

// checkList proves the list of free pages, and notes in free, if that is not nil, a bit for each of them.
func (c *checker) checkList(free []uint64) error {
	id := c.freelist()
	if id == noFreelist {
		return nil
	}
	l, err := c.readList()
	if err != nil {
		return err
	}
	if err := c.pass(c.reach(id, id, l.overflow+1)); err != nil {
		return err
	}
	buffer := make([]byte, min(l.count*8, runBytes))
	for last := uint64(firstPage - 1); l.count > 0; {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		part := buffer[:min(uint64(len(buffer)), l.count*8)]
		if err := c.readAt(part, l.at); err != nil {
			return err
		}
		for i := 0; i < len(part); i += 8 {
			page := native.Uint64(part[i:])
			switch {
			case page <= last || page >= c.pages():
				err = c.pass(damage(id, "free page %d follows %d of %d", page, last, c.pages()))
			case c.reached[page/64]&(1<<(page%64)) != 0:
				err = c.pass(damage(id, "page %d is free and in use", page))
			}
			if err != nil {
				return err
			}
			if page < c.pages() {
				last = max(last, page)
				if free != nil {
					free[page/64] |= 1 << (page % 64)
				}
			}
		}
		l.count -= uint64(len(part) / 8)
		l.at += int64(len(part))
	}
	return nil
}

// Free returns how many pages the list of free pages has, and whether there is one. The list must have been proved.
func (f *File) Free() (pages int, listed bool) {
	if f.freelist() == noFreelist {
		return 0, false
	}
	l, err := f.readList()
	return int(l.count), err == nil
}
