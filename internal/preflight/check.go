package preflight

import (
	"bytes"
	"cmp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	// maxDepth bounds how many branches lie above a leaf, and each of them has two children or more.
	maxDepth = 40

	// maxNesting bounds how deep buckets lie in each other. Ours take two.
	maxNesting = 16

	// Pages are read in runs of at most runBytes. What lies between two pages is read with them if it is at most
	// gapBytes: then one long read costs less than two short ones.
	runBytes = 1 << 20
	gapBytes = 32 << 10

	// mostWorkers bounds how many runs are read and checked at once, and with it the memory for them.
	mostWorkers = 4
)

// kind says what a bucket may hold.
type kind uint8

const (
	kindRoot   kind = iota // buckets
	kindPlain              // no buckets
	kindNested             // buckets of kindPlain
	kindFree               // anything; buckets of kindFree
)

// visit is a page that is to be checked.
type visit struct {
	id    uint64
	first []byte // the key under which its parent has it; nil for the root of a bucket
	next  []byte // the key of what follows it in the parent; nil if nothing does
	kind  kind
	depth uint8 // 0 for the root of a bucket
	nest  uint8 // 0 for the root
}

// checker is one run of Check.
type checker struct {
	*File
	layout  Layout
	reached []uint64 // a bit for each page that is reached
}

// Check proves the pages of the file. Those that look like leaves and lead nowhere it reads only if they are at most so
// many: math.MaxInt proves the whole file, and with less nothing can lead in a circle all the same. It returns a
// *Damage, or the error of a read as it is.
func (f *File) Check(layout Layout, most int) error {
	c := &checker{File: f, layout: layout, reached: make([]uint64, f.pages()/64+1)}
	now := []visit{{id: f.root(), kind: kindRoot}}
	if err := c.reach(f.root(), f.root(), 1); err != nil {
		return err
	}
	// What is most likely a leaf, and leads nowhere, waits until all the rest has been seen, so that the leaves of all
	// trees are read in the order of the file.
	var leaves []visit
	for len(now) > 0 {
		found, err := c.level(now)
		if err != nil {
			return err
		}
		now = now[:0]
		for i := range found {
			for _, v := range found[i].visits {
				if err := c.reach(found[i].page, v.id, 1); err != nil {
					return err
				}
			}
			if found[i].overflow > 0 {
				if err := c.reach(found[i].page, found[i].page+1, found[i].overflow); err != nil {
					return err
				}
			}
			if found[i].leaves {
				leaves = append(leaves, found[i].visits...)
			} else {
				now = append(now, found[i].visits...)
			}
		}
		if len(now) == 0 && len(leaves) <= most {
			most -= len(leaves)
			now, leaves = leaves, nil
		}
	}
	if err := c.checkList(); err != nil {
		return err
	}
	if len(leaves) == 0 {
		f.reached = c.reached
	}
	return nil
}

// reach notes that pages are reached from another, each for the first time.
func (c *checker) reach(from, id uint64, n uint64) error {
	if id < firstPage || id >= c.pages() {
		return damage(from, "it leads to page %d of %d", id, c.pages())
	}
	for ; n > 0; n-- {
		if c.reached[id/64]&(1<<(id%64)) != 0 {
			return damage(id, "it is reached twice")
		}
		c.reached[id/64] |= 1 << (id % 64)
		id++
	}
	return nil
}

// finding is what a page leads to.
type finding struct {
	page     uint64
	overflow uint64
	visits   []visit
	leaves   bool // the visits look like leaves that lead nowhere
}

// run is a piece of the file that is read at once, and the pages that begin in it.
type run struct {
	at, size int64
	visits   []visit
}

// level checks pages and returns what they lead to, in the order of the file. Findings without anything are left out.
func (c *checker) level(visits []visit) ([]finding, error) {
	slices.SortFunc(visits, func(a, b visit) int { return cmp.Compare(a.id, b.id) })
	runs, longest := c.runs(visits)
	found := make([][]finding, len(runs))
	errs := make([]error, len(runs))
	var taken atomic.Int64
	var failed atomic.Bool
	var work sync.WaitGroup
	for range min(len(runs), runtime.GOMAXPROCS(0), mostWorkers) {
		work.Go(func() {
			buffer := make([]byte, longest)
			var p page
			for i := int(taken.Add(1)) - 1; i < len(runs) && !failed.Load(); i = int(taken.Add(1)) - 1 {
				if found[i], errs[i] = c.checkRun(runs[i], buffer, &p); errs[i] != nil {
					failed.Store(true)
				}
			}
		})
	}
	work.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return slices.Concat(found...), nil
}

// runs divides pages, which are sorted, into runs.
func (c *checker) runs(visits []visit) (runs []run, longest int64) {
	from := 0
	for i := range visits {
		at := int64(visits[from].id) * c.pageSize
		end := int64(visits[i].id+1) * c.pageSize
		if i+1 < len(visits) {
			after := int64(visits[i+1].id) * c.pageSize
			if after-end <= gapBytes && after+c.pageSize-at <= runBytes {
				continue
			}
		}
		runs = append(runs, run{at, end - at, visits[from : i+1]})
		longest = max(longest, end-at)
		from = i + 1
	}
	return runs, longest
}

func (c *checker) checkRun(r run, buffer []byte, p *page) (found []finding, err error) {
	buffer = buffer[:r.size]
	if err := c.readAt(buffer, r.at); err != nil {
		return nil, err
	}
	for i := range r.visits {
		v := &r.visits[i]
		if err := c.readPage(p, v.id, buffer[int64(v.id)*c.pageSize-r.at:]); err != nil {
			return nil, err
		}
		f := finding{page: v.id, overflow: uint64(p.span/c.pageSize) - 1}
		if p.leaf {
			err = c.checkLeaf(p, v, &f)
		} else {
			err = c.checkBranch(p, v, &f)
		}
		if err != nil {
			return nil, err
		}
		if f.overflow > 0 || f.visits != nil {
			found = append(found, f)
		}
	}
	return found, nil
}

// checkLeaf proves a leaf and finds the buckets that it leads to.
func (c *checker) checkLeaf(p *page, v *visit, f *finding) error {
	if v.depth > 0 && p.count == 0 {
		return damage(p.id, "it is an empty leaf below a branch")
	}
	return p.each(func(i int, e *element) error {
		if err := v.checkKey(p, i, e.key); err != nil {
			return err
		}
		if !e.bucket {
			if v.kind == kindRoot || v.kind == kindNested {
				return damage(p.id, "element %d is no bucket", i)
			}
			return nil
		}
		if v.kind == kindPlain {
			return damage(p.id, "element %d is a bucket", i)
		}
		root, err := c.checkBucket(p, i, e)
		if err == nil && root != 0 {
			if v.nest == maxNesting {
				return damage(p.id, "its buckets lie deeper than %d", maxNesting)
			}
			f.visits = append(f.visits, visit{id: root, kind: c.kindOf(v.kind, e.key), nest: v.nest + 1})
		}
		return err
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

// checkKey proves that a key lies between what the parent says.
func (v *visit) checkKey(p *page, i int, key []byte) error {
	if i == 0 && v.first != nil && !bytes.Equal(v.first, key) {
		return damage(p.id, "its first key is not the one that its parent has for it")
	}
	if i == p.count-1 && v.next != nil && bytes.Compare(key, v.next) >= 0 {
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
func (c *checker) checkBranch(p *page, v *visit, f *finding) error {
	switch {
	case v.depth == maxDepth:
		return damage(p.id, "its tree is deeper than %d", maxDepth)
	case p.count < 2:
		return damage(p.id, "it is a branch of %d", p.count)
	}
	f.visits = make([]visit, 0, min(p.count, int(p.span/elementSize)))
	// The children keep their keys, but not the rest of what was read.
	var keys []byte
	err := p.each(func(i int, e *element) error {
		if err := v.checkKey(p, i, e.key); err != nil {
			return err
		}
		if cap(keys)-len(keys) < len(e.key) {
			keys = make([]byte, 0, max(len(e.key), min(int(p.span)/2, 1<<12)))
		}
		keys = append(keys, e.key...)
		key := keys[len(keys)-len(e.key) : len(keys) : len(keys)]
		if i > 0 {
			f.visits[i-1].next = key
		}
		f.visits = append(f.visits, visit{id: e.child, first: key, next: v.next, kind: v.kind, depth: v.depth + 1, nest: v.nest})
		return nil
	})
	if err != nil {
		return err
	}
	f.leaves, err = c.leadsNowhere(f.visits[0])
	return err
}

// leadsNowhere looks whether a page says that it is a leaf, of a tree without buckets. The answer need not be
// right: it only decides when the page and those beside it are read.
func (c *checker) leadsNowhere(v visit) (bool, error) {
	if v.kind != kindPlain || v.id < firstPage || v.id >= c.pages() {
		return false, nil
	}
	var head [pageHeader]byte
	err := c.readAt(head[:], int64(v.id)*c.pageSize)
	return native.Uint16(head[8:]) == flagLeaf, err
}
