package preflight

import (
	"bytes"
	"context"
	"math"
	"slices"
	"sync/atomic"
)

const (
	// maxDepth bounds how many branches lie above a leaf, and each of them has two children or more.
	maxDepth = 40

	// maxNesting bounds how deep buckets lie in each other. Ours take two.
	maxNesting = 16

	// mostBranch bounds the keys of a branch, in bytes. bbolt splits what is longer than a page unless it has four
	// elements at most, so none has much more than 128 KiB.
	mostBranch = 1 << 20
)

// kind says what a bucket may hold.
type kind uint8

const (
	kindRoot   kind = iota // buckets
	kindPlain              // no buckets
	kindNested             // buckets of kindPlain
	kindFree               // anything; buckets of kindFree
)

// checker is one run of Check or of Audit.
type checker struct {
	*File
	*audit   // nil: the first damage ends the run
	ctx      context.Context
	layout   Layout
	shallow  bool     // leaves may be left out
	reached  []uint64 // a bit for each page that is reached
	families []family
	trees    []tree
	workers  []worker
	spare    []visit // room for sort

	fronts []front
	leaves []visit  // what waits because it is most likely a leaf
	held   int64    // bytes that families and visits take
	most   int64    // bytes that they may take
	level  struct { // the one under check
		room  int64        // bytes that what it leads to may take
		taken atomic.Int64 // bytes of that
	}
}

// front are pages that are to be checked, in the order of the file, and how much there was when they were found.
type front struct {
	visits   []visit
	families int
	held     int64
}

// heldMost is how many bytes of what waits to be checked are held. A file of 5 GB with ordinary keys needs about as
// many. Beyond that the check goes down to the leaves of a part of the branches before it looks at the others. Only
// tests change it.
var heldMost int64 = 64 << 20

// Check proves the pages of the file. Those that look like leaves and lead nowhere it reads only if they are at most so
// many: math.MaxInt proves the whole file, and with less nothing can lead in a circle all the same. It returns a
// *Damage, or the error of a read as it is.
func (f *File) Check(layout Layout, most int) error {
	c := f.newChecker(context.Background(), layout)
	c.shallow = most < math.MaxInt
	whole, err := c.walk(most)
	if err == nil {
		err = c.checkList(nil)
	}
	if err == nil && whole {
		f.reached = c.reached
	}
	return err
}

func (f *File) newChecker(ctx context.Context, layout Layout) *checker {
	return &checker{
		File: f, ctx: ctx, layout: layout, reached: make([]uint64, f.pages()/64+1), most: heldMost,
		families: []family{{kind: kindRoot, left: true}}, trees: make([]tree, 1),
	}
}

// walk checks the pages that can be reached, and reports whether no leaf was left out.
func (c *checker) walk(most int) (whole bool, err error) {
	whole = true
	if err := c.reach(c.root(), c.root(), 1); err != nil {
		return false, err
	}
	c.push([]visit{{id: c.root()}})
	for len(c.fronts) > 0 || len(c.leaves) > 0 {
		// What is most likely a leaf, and leads nowhere, waits until all the rest has been seen, so that the leaves of all
		// trees are read in the order of the file.
		if len(c.leaves) > 0 && (len(c.fronts) == 0 || c.held > c.most) {
			if leaves := c.leaves; len(leaves) <= most {
				most -= len(leaves)
				c.push(leaves)
			} else {
				whole = false
			}
			c.leaves = nil
			continue
		}
		top := &c.fronts[len(c.fronts)-1]
		if len(top.visits) == 0 {
			c.pop()
			continue
		}
		found, done, err := c.checkLevel(top.visits)
		if err != nil {
			return false, err
		}
		top.visits = top.visits[done:]
		now, err := c.sift(found)
		if err != nil {
			return false, err
		}
		if len(now) > 0 {
			c.push(now)
		}
	}
	return whole, nil
}

// push makes pages the next ones to be checked.
func (c *checker) push(visits []visit) {
	c.sort(visits)
	c.fronts = append(c.fronts, front{visits, len(c.families), c.held})
}

// pop forgets the last front, which has been checked, and all that nothing refers to any more.
func (c *checker) pop() {
	c.fronts = c.fronts[:len(c.fronts)-1]
	if len(c.leaves) > 0 || len(c.fronts) == 0 {
		return
	}
	top := &c.fronts[len(c.fronts)-1]
	clear(c.families[top.families:])
	c.families, c.held = c.families[:top.families], top.held
}

// reach notes that pages are reached from another, each for the first time. Several goroutines may call it at once.
func (c *checker) reach(from, id uint64, n uint64) error {
	if id < firstPage || id >= c.pages() {
		return damage(from, "it leads to page %d of %d", id, c.pages())
	}
	for ; n > 0; n-- {
		if bit := uint64(1) << (id % 64); atomic.OrUint64(&c.reached[id/64], bit)&bit != 0 {
			return damage(id, "it is reached twice")
		}
		id++
	}
	return nil
}

// checkPage proves a page that lies in have, as readPage has it, and notes what it leads to.
func (w *worker) checkPage(v visit, have []byte) error {
	p := &w.page
	p.audit = w.audit
	if err := w.readHead(p, v.id, have); err != nil {
		return err
	}
	// Before it is read: else many pages that all claim to be long could have the same part of the file read many times.
	if overflow := uint64(p.span/w.pageSize) - 1; overflow > 0 {
		if err := w.reach(v.id, v.id+1, overflow); err != nil {
			return err
		}
	}
	if err := w.readRest(p, have); err != nil {
		return err
	}
	of := &w.families[v.family]
	first, next := of.bounds(v.at)
	if !p.leaf {
		return w.checkBranch(v, of, first, next)
	}
	if t := &w.trees[of.tree]; !t.even(of.depth) {
		if err := w.pass(damage(v.id, "it is a leaf and not as deep as others in its bucket")); err != nil {
			return err
		}
		t.settle() // or each of the others would be said too
	}
	if (of.kind == kindPlain || of.kind == kindFree) && p.plain(first, next) {
		return nil
	}
	return w.checkLeaf(of, first, next)
}

// checkLeaf proves a leaf and finds the buckets that it leads to.
func (w *worker) checkLeaf(of *family, first, next []byte) error {
	p := &w.page
	if of.depth > 0 && p.count == 0 {
		return damage(p.id, "it is an empty leaf below a branch")
	}
	return p.each(func(i int, e *element) error {
		if err := w.pass(p.checkKey(i, e.key, first, next)); err != nil {
			return err
		}
		if !e.bucket {
			if of.kind == kindRoot || of.kind == kindNested {
				return w.pass(damage(p.id, "element %d is no bucket", i))
			}
			return nil
		}
		if of.kind == kindPlain {
			return w.pass(damage(p.id, "element %d is a bucket", i))
		}
		root, err := w.checkBucket(p, i, e)
		if err != nil || root == 0 {
			return w.pass(err)
		}
		if of.nest == maxNesting {
			return w.pass(damage(p.id, "its buckets lie deeper than %d", maxNesting))
		}
		w.found.families = append(w.found.families, family{
			kind: w.kindOf(of.kind, e.key), nest: of.nest + 1, left: true, tree: newTree,
		})
		return w.pass(w.lead(root, 0))
	})
}

// kindOf returns the kind of a bucket with the given name in one of another kind.
func (c *checker) kindOf(parent kind, name []byte) kind {
	switch {
	case parent == kindNested:
		return kindPlain
	case parent == kindFree:
		return kindFree
	case string(name) == c.layout.Nested:
		return kindNested
	case slices.Contains(c.layout.Plain, string(name)):
		return kindPlain
	}
	return kindFree
}

// checkKey proves that a key lies between what the parent says, where it does.
func (p *page) checkKey(i int, key, first, next []byte) error {
	if i == 0 && first != nil && !bytes.Equal(first, key) {
		return damage(p.id, "its first key is not the one that its parent has for it")
	}
	if i == p.count-1 && next != nil && bytes.Compare(key, next) >= 0 {
		return damage(p.id, "its last key is not below the next one of its parent")
	}
	return nil
}

// checkBucket proves an element that is a bucket and returns its root page, or 0 if it lies within the element.
func (c *checker) checkBucket(p *page, i int, e *element) (root uint64, err error) {
	if e.value < bucketHeader {
		return 0, damage(p.id, "element %d is a bucket of %d bytes", i, e.value)
	}
	head, err := p.bytesAt(e.at, bucketHeader, &p.value)
	if err != nil {
		return 0, err
	}
	if root = native.Uint64(head); root != 0 {
		return root, nil
	}
	inner, err := c.inline(p, i, e)
	if err != nil {
		return 0, err
	}
	return 0, inner.each(func(_ int, own *element) error {
		if own.bucket {
			return damage(p.id, "element %d has a bucket within a bucket in one page", i)
		}
		return nil
	})
}

// inline returns the page of a bucket that lies within its element. bbolt only makes them a quarter of a page long.
func (f *File) inline(p *page, i int, e *element) (*page, error) {
	if e.value < bucketHeader+pageHeader || e.value > f.pageSize {
		return nil, damage(p.id, "element %d is a bucket of %d bytes", i, e.value)
	}
	value, err := p.bytesAt(e.at, e.value, &p.value)
	if err != nil {
		return nil, err
	}
	data := bytes.Clone(value[bucketHeader:])
	if native.Uint64(data) != 0 || native.Uint16(data[8:]) != flagLeaf || native.Uint32(data[12:]) != 0 {
		return nil, damage(p.id, "element %d is a bucket without a leaf", i)
	}
	return &page{id: p.id, leaf: true, count: int(native.Uint16(data[10:])), span: int64(len(data)), data: data}, nil
}

// checkBranch proves a branch and finds its children.
func (w *worker) checkBranch(v visit, of *family, first, next []byte) error {
	p := &w.page
	switch {
	case of.depth == maxDepth:
		return damage(p.id, "its tree is deeper than %d", maxDepth)
	case p.count < 2:
		if err := w.pass(damage(p.id, "it is a branch of %d", p.count)); err != nil {
			return err
		}
	}
	below := family{kind: of.kind, depth: of.depth + 1, nest: of.nest, tree: of.tree, left: of.left && v.at == 0,
		next: next}
	w.found.families = append(w.found.families, below)
	w.keys = w.keys[:0]
	leftmost := uint64(0)
	err := p.each(func(i int, e *element) error {
		if err := w.pass(p.checkKey(i, e.key, first, next)); err != nil {
			return err
		}
		if i == 0 {
			leftmost = e.child
		}
		at := len(w.keys)
		if w.keys = appendKey(w.keys, e.key); len(w.keys) > mostBranch {
			return damage(p.id, "it is a branch with more than %d bytes of keys", mostBranch)
		}
		return w.pass(w.lead(e.child, at))
	})
	if err != nil {
		return err
	}
	own := &w.found.families[len(w.found.families)-1]
	own.keys = bytes.Clone(w.keys)
	w.level.taken.Add(own.size())
	if own.kind == kindPlain && (own.left || w.shallow) {
		own.looked = true
		own.leaves, err = w.isLeaf(leftmost)
	}
	return err
}

// isLeaf looks whether a page says that it is a leaf. The answer need not be right: it only decides when the page and
// those beside it are read.
func (f *File) isLeaf(id uint64) (bool, error) {
	var head [pageHeader]byte
	err := f.readAt(head[:], int64(id)*f.pageSize)
	return native.Uint16(head[8:]) == flagLeaf, err
}
