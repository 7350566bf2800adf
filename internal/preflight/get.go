package preflight

import (
	"bytes"
	"errors"
)

// mostValue is the length in bytes of the longest value that Get returns.
const mostValue = 1 << 10

var errFound = errors.New("found") // ends a walk over elements

// Get returns a copy of the value of a key in a bucket of the root, or nil if there is no such key, no such bucket, or
// a value longer than 1 KiB. It proves only what it reads on the way, and returns a *Damage or the error of a read.
func (f *File) Get(bucket, key string) (value []byte, err error) {
	var p page
	found, e, err := f.seek(&p, f.root(), []byte(bucket))
	if err != nil || !found || !e.bucket || e.value < bucketHeader {
		return nil, err
	}
	head, err := p.bytesAt(e.at, bucketHeader, &p.value)
	if err != nil {
		return nil, err
	}
	root, in := native.Uint64(head), &p
	if root != 0 {
		found, e, err = f.seek(in, root, []byte(key))
	} else if in, err = f.inline(&p, 0, &e); err == nil {
		found, e, err = in.find([]byte(key))
	}
	if err != nil || !found || e.bucket || e.value > mostValue {
		return nil, err
	}
	value, err = in.bytesAt(e.at, e.value, &in.value)
	return bytes.Clone(value), err
}

// seek goes down from the root of a bucket to the leaf where a key has to be, and reports whether it is there.
func (f *File) seek(p *page, id uint64, key []byte) (found bool, e element, err error) {
	have := make([]byte, f.pageSize)
	for range maxDepth + 1 {
		if id < firstPage || id >= f.pages() {
			return false, e, damage(id, "it is none of %d pages", f.pages())
		}
		if err := f.readAt(have, int64(id)*f.pageSize); err != nil {
			return false, e, err
		}
		if err := f.readPage(p, id, have); err != nil {
			return false, e, err
		}
		if p.leaf {
			return p.find(key)
		}
		if p.count == 0 {
			return false, e, damage(id, "it is a branch without a child")
		}
		err := p.each(func(i int, e *element) error {
			if i == 0 || bytes.Compare(e.key, key) <= 0 {
				id = e.child
			}
			return nil
		})
		if err != nil {
			return false, e, err
		}
	}
	return false, e, damage(id, "its tree is deeper than %d", maxDepth)
}

// find looks for a key in a leaf.
func (p *page) find(key []byte) (found bool, at element, err error) {
	err = p.each(func(_ int, e *element) error {
		if bytes.Equal(e.key, key) {
			at = *e
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return true, at, nil
	}
	return false, at, err
}
