package pagetree

import "bytes"

// Element is what a Scan hands on.
type Element struct {
	Key []byte // part of a page: to be copied by who keeps it

	bucket Bucket
	page   *page
	at     element
}

// IsBucket reports whether the key holds a bucket.
func (e *Element) IsBucket() bool { return e.at.bucket }

// Value returns the value, nil if the key holds a bucket. It is part of a page: to be copied by who keeps it.
func (e *Element) Value() ([]byte, error) {
	if e.at.bucket {
		return nil, nil
	}
	return e.page.valueOf(e.at)
}

// Size returns the length of the value in bytes.
func (e *Element) Size() int64 { return e.at.value }

// place is one step of the way from the root to an element.
type place struct {
	page  *page
	index int
}

// Scan calls fn for each element whose key is not below from, in the order of the keys, until fn returns false or
// an error. The keys rise strictly: that is what ends a scan of pages that lead in a circle.
func (b Bucket) Scan(from []byte, fn func(*Element) (bool, error)) error {
	if b.tree == nil {
		return nil
	}
	way, err := b.seek(from)
	if err != nil {
		return err
	}
	var last []byte
	for first := true; len(way) > 0; {
		at := &way[len(way)-1]
		switch {
		case at.index >= at.page.count:
			way = way[:len(way)-1]
			if len(way) > 0 {
				way[len(way)-1].index++
			}
			continue
		case !at.page.leaf:
			p, err := b.below(at, len(way))
			if err != nil {
				return err
			}
			way = append(way, place{page: p})
			continue
		}
		e, err := b.elementAt(at)
		if err != nil {
			return err
		}
		if first && bytes.Compare(e.Key, from) < 0 || !first && bytes.Compare(e.Key, last) <= 0 {
			return broken("the keys of page %d are out of order", at.page.id)
		}
		first, last = false, e.Key
		if more, err := fn(&e); err != nil || !more {
			return err
		}
		at.index++
	}
	return nil
}

// ScanBack calls fn for each element whose key is below before, in the opposite order of the keys, until fn returns
// false or an error. A nil before is behind all keys. The keys fall strictly: that is what ends a scan of pages that
// lead in a circle.
func (b Bucket) ScanBack(before []byte, fn func(*Element) (bool, error)) error {
	if b.tree == nil {
		return nil
	}
	way, err := b.seekBack(before)
	if err != nil {
		return err
	}
	var last []byte
	for first := true; len(way) > 0; {
		at := &way[len(way)-1]
		if at.index--; at.index < 0 {
			way = way[:len(way)-1]
			continue
		}
		if !at.page.leaf {
			p, err := b.below(at, len(way))
			if err != nil {
				return err
			}
			way = append(way, place{p, p.count})
			continue
		}
		e, err := b.elementAt(at)
		if err != nil {
			return err
		}
		if first && before != nil && bytes.Compare(e.Key, before) >= 0 || !first && bytes.Compare(e.Key, last) >= 0 {
			return broken("the keys of page %d are out of order", at.page.id)
		}
		first, last = false, e.Key
		if more, err := fn(&e); err != nil || !more {
			return err
		}
	}
	return nil
}

// elementAt returns the element at a place in a leaf.
func (b Bucket) elementAt(at *place) (e Element, err error) {
	e = Element{bucket: b, page: at.page}
	if e.at, err = at.page.element(at.index); err == nil {
		e.Key, err = at.page.keyOf(e.at)
	}
	return e, err
}

// below returns the page below a place in a branch, where the way to that place has so many steps.
func (b Bucket) below(at *place, steps int) (*page, error) {
	e, err := at.page.element(at.index)
	if err != nil {
		return nil, err
	}
	p, err := b.tree.page(e.child)
	switch {
	case err != nil:
		return nil, err
	case steps == mostDepth:
		return nil, broken("the way to a key has no end")
	case p.count == 0:
		return nil, broken("page %d has no elements", p.id)
	}
	return p, nil
}

// seekBack returns the way to the element that follows the last one whose key is below before.
func (b Bucket) seekBack(before []byte) (way []place, err error) {
	if before != nil {
		return b.seek(before)
	}
	p, err := b.top()
	if err != nil {
		return nil, err
	}
	return append(way, place{p, p.count}), nil
}

// seek returns the way to the first element whose key is not below from. It may end behind the last element of a
// page: the next one is then in the page that follows.
func (b Bucket) seek(from []byte) (way []place, err error) {
	p, err := b.top()
	for range mostDepth {
		if err != nil {
			return nil, err
		}
		i, equal, err := p.search(from)
		if err != nil {
			return nil, err
		}
		if p.leaf {
			return append(way, place{p, i}), nil
		}
		if !equal && i > 0 {
			i--
		}
		way = append(way, place{p, i})
		e, err := p.element(i)
		if err != nil {
			return nil, err
		}
		if p, err = b.tree.page(e.child); err != nil {
			return nil, err
		}
	}
	return nil, broken("the way to a key has no end")
}
