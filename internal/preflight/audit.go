package preflight

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/bits"
	"slices"
	"sync"
)

// mostProblems is how many problems an audit looks for. A page that is read as something else can have any number of
// them.
const mostProblems = 10_000

var errEnough = errors.New("more damage than is looked for")

// Findings is what Audit found.
type Findings struct {
	Problems []Damage // in the order of the pages; none in a sound file
	Stopped  bool     // there were so many problems that no more were looked for

	Pages uint64 // that the file speaks of
	Used  uint64 // of these: meta pages, pages that can be reached, and the list of free pages
	Free  uint64 // of these: in the list of free pages
	Lost  uint64 // of these: in neither, although there is a list; they are a problem too
}

// Audit proves all that Check does, and goes on where it finds damage: what a damaged page leads to counts as far as
// that can be told. Beside that it proves that the meta pages bear their numbers, and that each page is in use or in
// the list of free pages, where there is one.
//
// However the file looks, an audit takes at most two bits of memory for each of its pages and about 100 MiB, and reads
// no part of the file more than twice. The error is that of ctx, or of a read.
func (f *File) Audit(ctx context.Context, layout Layout) (Findings, error) {
	c := f.newChecker(ctx, layout)
	c.audit = &audit{}
	found := Findings{Pages: f.pages()}
	free := make([]uint64, len(c.reached))
	err := c.checkMetas()
	if err == nil {
		_, err = c.walk(math.MaxInt)
	}
	if err == nil {
		err = c.pass(c.checkList(free))
	}
	if errors.Is(err, errEnough) {
		found.Stopped, err = true, nil
	}
	found.Used = firstPage + count(c.reached)
	found.Free = count(free)
	if sound := len(c.audit.problems) == 0; err == nil && sound && f.freelist() != noFreelist {
		// Below a damaged page there may be any number of pages that cannot be reached, and only there.
		if first, lost := c.lost(free); lost > 0 {
			found.Lost = lost
			_ = c.pass(damage(first, "it is neither in use nor free, as are %d pages in all", lost))
		}
	}
	found.Problems = c.audit.problems
	slices.SortStableFunc(found.Problems, func(a, b Damage) int { return cmp.Compare(a.Page, b.Page) })
	return found, err
}

// checkMetas proves the headers of the meta pages, of both because bbolt looks at them too.
func (c *checker) checkMetas() error {
	for slot := range uint64(firstPage) {
		var head [pageHeader]byte
		err := c.readAt(head[:], int64(slot)*c.pageSize)
		if err == nil && (native.Uint64(head[:]) != slot || native.Uint16(head[8:]) != flagMeta) {
			err = damage(slot, "it does not say that it is this meta page")
		}
		if err = c.pass(err); err != nil {
			return err
		}
	}
	return nil
}

// lost returns how many pages are neither reached nor in the list of free pages, and the first of them.
func (c *checker) lost(free []uint64) (first, n uint64) {
	for i := range c.reached {
		missing := ^(c.reached[i] | free[i])
		if i == 0 {
			missing &^= 1<<firstPage - 1
		}
		if end := c.pages() - uint64(i)*64; end < 64 {
			missing &= 1<<end - 1
		}
		if missing != 0 && n == 0 {
			first = uint64(i)*64 + uint64(bits.TrailingZeros64(missing))
		}
		n += uint64(bits.OnesCount64(missing))
	}
	return first, n
}

func count(pages []uint64) (n uint64) {
	for _, word := range pages {
		n += uint64(bits.OnesCount64(word))
	}
	return n
}

// audit gathers what is wrong with a file. Several goroutines may use it at once.
type audit struct {
	mu       sync.Mutex // protects problems
	problems []Damage
}

// pass takes damage in and returns nil, so that the check goes on. Any other error it returns as it is, and so it does
// all errors without an audit.
func (a *audit) pass(err error) error {
	if a == nil || err == nil {
		return err
	}
	var d *Damage
	if !errors.As(err, &d) {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.problems) == mostProblems {
		return errEnough
	}
	a.problems = append(a.problems, *d)
	return nil
}
