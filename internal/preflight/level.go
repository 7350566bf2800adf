package preflight

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	// Pages are read in runs of at most runBytes, so that what was read is still close to the processor when it is
	// checked. What lies between two pages is read with them if it is at most gapBytes: then one long read costs less than
	// two short ones.
	runBytes = 256 << 10
	gapBytes = 32 << 10

	// mostWorkers is how many runs are read and checked at once, and bounds the memory for them. They are more than
	// some machines have processors: a disk is quickest when it is asked for several things at once.
	mostWorkers = 4

	mostFamilies = math.MaxUint32
)

// family are the children of a branch, or the root of a bucket.
type family struct {
	keys  []byte // under which the branch has them, see appendKey; nil for the root of a bucket
	next  []byte // the key of what follows the last of them; nil if nothing does
	tree  uint32 // the number of the bucket's tree, or newTree until it gets one
	kind  kind
	depth uint8 // 0 for the root of a bucket
	nest  uint8 // 0 for the root

	left   bool // nothing of the bucket lies left of them
	looked bool // at one of them, to see whether it says that it is a leaf
	leaves bool // then the answer
}

const newTree = math.MaxUint32

// tree is what is known of a bucket.
type tree struct {
	depth uint32 // of its leaves, and 1 more; 0 as long as none has been seen. Used with sync/atomic.
	leafy bool   // a guess: the next pages of it are leaves
}

// uneven is the depth of a tree of which it is known that its leaves are not equally deep.
const uneven = math.MaxUint32

// settle notes that it is known that the leaves are not equally deep.
func (t *tree) settle() { atomic.StoreUint32(&t.depth, uneven) }

// even notes a leaf of the tree at some depth, and reports whether the others that were seen have the same.
func (t *tree) even(depth uint8) bool {
	own := uint32(depth) + 1
	known := atomic.LoadUint32(&t.depth)
	if known == 0 && !atomic.CompareAndSwapUint32(&t.depth, 0, own) {
		known = atomic.LoadUint32(&t.depth)
	}
	return known == own || known == 0 || known == uneven
}

// visit is a page that is to be checked. They are many: a pointer in one would be looked at by the garbage collector.
type visit struct {
	id     uint64
	family uint32
	at     uint32 // where in the keys of its family its own is
}

// visitBytes is about what a visit takes, with the room for sort.
const visitBytes = 2 * 16

// size returns about how many bytes a family takes.
func (f *family) size() int64 { return 80 + int64(len(f.keys)) }

// appendKey appends a key and its length to those of a family. All of them are less than 4 GiB: a page has less than
// 65,536 keys, of less than 64 KiB.
func appendKey(keys, key []byte) []byte {
	return append(binary.NativeEndian.AppendUint16(keys, uint16(len(key))), key...)
}

// bounds returns the key that the first one in a page has to be, and the one that its last has to be below. nil is no
// bound.
func (f *family) bounds(at uint32) (first, next []byte) {
	if f.keys == nil {
		return nil, nil
	}
	first, rest := cutKey(f.keys[at:])
	if len(rest) == 0 {
		return first, f.next
	}
	next, _ = cutKey(rest)
	return first, next
}

func cutKey(keys []byte) (key, rest []byte) {
	end := 2 + int(binary.NativeEndian.Uint16(keys))
	return keys[2:end:end], keys[end:]
}

// found is what the pages of a run lead to.
type found struct {
	families []family
	visits   []visit // of these families
}

// lead notes that the page under check leads to another, of the family that was found last. It does not go there if
// that one was reached before.
func (w *worker) lead(id uint64, at int) error {
	if err := w.reach(w.page.id, id, 1); err != nil {
		return err
	}
	w.found.visits = append(w.found.visits, visit{id, uint32(len(w.found.families) - 1), uint32(at)})
	w.level.taken.Add(visitBytes)
	return nil
}

// sift takes in what was found. It returns the pages that come next; the others wait because they look like leaves.
func (c *checker) sift(all []found) (now []visit, err error) {
	many := 0
	for i := range all {
		many += len(all[i].visits)
		for j := range all[i].families {
			f := &all[i].families[j]
			if f.tree == newTree {
				f.tree = uint32(len(c.trees))
				c.trees = append(c.trees, tree{})
			}
			if f.looked {
				c.trees[f.tree].leafy = f.leaves
			}
			c.held += f.size()
		}
	}
	c.held += int64(many) * visitBytes
	if many > cap(c.leaves)-len(c.leaves) {
		c.leaves = slices.Grow(c.leaves, many)
	}
	for i := range all {
		base := len(c.families)
		if uint64(base+len(all[i].families)) > mostFamilies {
			return nil, damage(c.root(), "more than %d branches and buckets", uint64(mostFamilies))
		}
		c.families = append(c.families, all[i].families...)
		for _, v := range all[i].visits {
			v.family += uint32(base)
			f := &c.families[v.family]
			// Trees are equally deep everywhere. So what one page has below it the others have too.
			if f.leaves || f.kind == kindPlain && f.depth > 0 && !f.looked && c.trees[f.tree].leafy {
				c.leaves = append(c.leaves, v)
			} else {
				now = append(now, v)
			}
		}
	}
	return now, nil
}

// run is a piece of the file that is read at once, and the pages that begin in it.
type run struct {
	at, size int64
	visits   []visit
}

// worker checks runs, one at a time.
type worker struct {
	*checker
	buffer []byte
	page   page
	keys   []byte // of the branch under check
	found  found  // in the run under check

	touched byte // see touch
}

// levelMost is how many pages are checked before what they lead to is taken in, and bounds the memory for that.
const levelMost = 1 << 18

// leastRoom is how many bytes the pages of one level may lead to, however much is held: so that a level is more than a
// page. Only tests change it.
var leastRoom int64 = 1 << 20

// checkLevel checks pages, which are sorted, and returns what they lead to. It stops early where that takes too much
// memory, and says how many it has checked, at least one.
func (c *checker) checkLevel(visits []visit) (all []found, done int, err error) {
	runs, longest := c.runs(visits[:min(len(visits), levelMost)])
	all = make([]found, len(runs))
	errs := make([]error, len(runs))
	var taken atomic.Int64
	var stop atomic.Bool
	var work sync.WaitGroup
	c.level.room = max(c.most-c.held, leastRoom)
	c.level.taken.Store(0)
	for n := range min(len(runs), mostWorkers) {
		if n == len(c.workers) {
			c.workers = append(c.workers, worker{checker: c})
		}
	}
	for n := range min(len(runs), mostWorkers) {
		w := &c.workers[n]
		work.Go(func() {
			if int64(len(w.buffer)) < longest {
				w.buffer = make([]byte, longest)
			}
			for !stop.Load() {
				i := int(taken.Add(1)) - 1
				if i >= len(runs) {
					break
				}
				w.found = found{}
				errs[i] = w.checkRun(runs[i])
				all[i] = w.found
				if errs[i] != nil || c.level.taken.Load() > c.level.room {
					stop.Store(true)
				}
			}
		})
	}
	work.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, 0, err
		}
	}
	for i := range min(int(taken.Load()), len(runs)) {
		done += len(runs[i].visits)
	}
	return all, done, nil
}

func (w *worker) checkRun(r run) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	buffer := w.buffer[:r.size]
	if err := w.readAt(buffer, r.at); err != nil {
		return w.pass(err)
	}
	w.touch(r.visits)
	for _, v := range r.visits {
		if err := w.pass(w.checkPage(v, buffer[int64(v.id)*w.pageSize-r.at:])); err != nil {
			return err
		}
	}
	return nil
}

// touch reads a byte of what bounds gives for each of some pages. These lie all over the memory, and read one after the
// other with nothing between them the processor gets many at once; each alone would be waited for, and all of
// them for a quarter of the time that the check takes.
func (w *worker) touch(visits []visit) {
	for _, v := range visits {
		if f := &w.families[v.family]; f.keys != nil {
			w.touched += f.keys[v.at]
		}
	}
}

// digit is by how many bits at once sort sorts.
const digit = 11

// sort sorts pages by their numbers, in time that grows only with how many they are: digit by digit, the last one
// first.
func (c *checker) sort(visits []visit) {
	if cap(c.spare) < len(visits) {
		c.spare = make([]visit, len(visits))
	}
	from, to := visits, c.spare[:len(visits)]
	for shift := 0; shift < bits.Len64(c.pages()); shift += digit {
		var next [1 << digit]int // where the next one with a digit goes
		for i := range from {
			next[from[i].id>>shift&(1<<digit-1)]++
		}
		at := 0
		for i, n := range next {
			next[i] = at
			at += n
		}
		for i := range from {
			d := from[i].id >> shift & (1<<digit - 1)
			to[next[d]] = from[i]
			next[d]++
		}
		from, to = to, from
	}
	if &from[0] != &visits[0] {
		copy(visits, from)
	}
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
