package pagetree

import (
	"bytes"
	"io"
)

// Tree is one state of a bbolt file, see Meta.Tree. It is for one goroutine.
type Tree struct {
	src      io.ReaderAt
	pageSize int64
	pages    uint64
	root     Bucket
}

// Root returns the bucket that holds all others.
func (t *Tree) Root() Bucket { return t.root }

// Bucket is one bucket. The zero value is none, which holds nothing.
type Bucket struct {
	tree     *Tree
	root     uint64
	sequence uint64
	inline   []byte // the page, where the root is 0
}

// Sequence returns the number that bbolt keeps with a bucket.
func (b Bucket) Sequence() uint64 { return b.sequence }

// mostDepth bounds the way from the root to a leaf. Each branch but the root has two children at least, so a file
// that fits a disk is much flatter.
const mostDepth = 48

// top returns the page at which every way begins.
func (b Bucket) top() (*page, error) {
	if b.root == 0 {
		return inline(b.inline)
	}
	return b.tree.page(b.root)
}

// Get returns a copy of the value of key. It reports false if the key is absent, or holds a bucket.
func (b Bucket) Get(key []byte) (value []byte, found bool, err error) {
	value, bucket, found, err := b.get(key)
	if err != nil || !found || bucket {
		return nil, false, err
	}
	return bytes.Clone(value), true, nil
}

// Head returns a copy of the first n bytes of the value of key, or of all of it if it is shorter. It reports false as
// Get does.
func (b Bucket) Head(key []byte, n int64) (head []byte, found bool, err error) {
	p, e, found, err := b.find(key)
	if err != nil || !found || e.bucket {
		return nil, false, err
	}
	e.value = min(e.value, n)
	head, err = p.valueOf(e)
	return bytes.Clone(head), err == nil, err
}

// Bucket returns the bucket under key. It reports false, with the bucket that holds nothing, if there is none.
func (b Bucket) Bucket(key []byte) (Bucket, bool, error) {
	value, isBucket, found, err := b.get(key)
	if err != nil || !found || !isBucket {
		return Bucket{}, false, err
	}
	return b.open(value)
}

func (b Bucket) open(value []byte) (Bucket, bool, error) {
	if len(value) < 16 {
		return Bucket{}, false, broken("a bucket has a header of %d bytes", len(value))
	}
	nested := Bucket{tree: b.tree, root: ne.Uint64(value), sequence: ne.Uint64(value[8:])}
	if nested.root == 0 {
		nested.inline = value[16:]
	}
	return nested, true, nil
}

// get returns what is under key, as part of a page.
func (b Bucket) get(key []byte) (value []byte, bucket, found bool, err error) {
	p, e, found, err := b.find(key)
	if err == nil && found {
		value, err = p.valueOf(e)
	}
	return value, e.bucket, found && err == nil, err
}

// find returns the element of a key, and the page in which it is.
func (b Bucket) find(key []byte) (p *page, e element, found bool, err error) {
	if b.tree == nil {
		return nil, e, false, nil
	}
	p, err = b.top()
	for range mostDepth {
		if err != nil {
			return nil, e, false, err
		}
		i, equal, err := p.search(key)
		switch {
		case err != nil:
			return nil, e, false, err
		case p.leaf && !equal:
			return nil, e, false, nil
		case p.leaf:
			e, err = p.element(i)
			return p, e, err == nil, err
		}
		p, err = b.child(p, i, equal)
		if err != nil {
			return nil, e, false, err
		}
	}
	return nil, e, false, broken("the way to a key has no end")
}

// child returns the page below branch page p in which a key is that search has placed at i.
func (b Bucket) child(p *page, i int, equal bool) (*page, error) {
	if !equal && i > 0 {
		i-- // a branch's key is the least of its page
	}
	e, err := p.element(i)
	if err != nil {
		return nil, err
	}
	return b.tree.page(e.child)
}

// search returns the first element whose key is not below key, and whether it is equal. It may be that none is: then
// the index is the number of elements.
func (p *page) search(key []byte) (index int, equal bool, err error) {
	low, high := 0, p.count
	for low < high {
		middle := (low + high) / 2
		e, err := p.element(middle)
		if err != nil {
			return 0, false, err
		}
		k, err := p.keyOf(e)
		if err != nil {
			return 0, false, err
		}
		switch bytes.Compare(k, key) {
		case 0:
			return middle, true, nil
		case -1:
			low = middle + 1
		default:
			high = middle
		}
	}
	return low, false, nil
}
