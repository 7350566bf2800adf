package keepcache

import (
	"math"

	"github.com/keepcache/keepcache/internal/journal"
)

const (
	// A transaction is bounded, because what it replaces takes room in the file until it is done. Measured
	// with 100,000 entries overwritten ten times, the file ended at 2.0 to 2.7 times the logical bytes with
	// 8192 entries a transaction, at 1.7 to 1.9 with 2048, for a fifth more time in commits.
	commitEntries = 2048
	commitBytes   = 4 << 20

	// While writers bring entries faster than that, transactions are larger by pressedTimes: each costs two syncs. They are not
	// where each entry changes a page of its own, because all these are in memory at once; and not while the file is
	// compacted, because they wait for the compaction to follow, and writers for them.
	pressedTimes = 4
	leafBytes    = 3 << 10 // what is in a page, as trees grow

	// Transactions are a part of the usual size where the file is about to pass what it promises to stay below.
	swollenPart = 4
)

// times is how many times the usual size the next transaction may have, of those that bring so many entries in all. j is
// the journal, or nil.
func (c *committer) times(j *journal.Journal, entries int) float64 {
	file, used, err := c.store.size()
	switch {
	case err == nil && passes(file, used, swollenTimes, swollenRoom):
		return 1.0 / swollenPart
	case c.writer.pressed(j) && !c.store.copied.Load():
		return min(max(1/pagesEach(used, entries), 1), pressedTimes)
	}
	return 1
}

// pagesEach estimates how many pages of a file that is used so each of some entries changes that are written all over it.
func pagesEach(used map[uint64]usage, entries int) float64 {
	pages, n := float64(scope{}.uses(used).cost())/leafBytes, float64(entries)
	return pages / n * -math.Expm1(-n/pages)
}

// portion returns how many entries go into the next transaction, one at least if there is one.
func portion(pins []pin, times float64) int {
	most, mostBytes, size := int(commitEntries*times), int(commitBytes*times), 0
	for i, p := range pins {
		if size += len(p.key) + len(p.record); i > 0 && (i == most || size > mostBytes) {
			return i
		}
	}
	return len(pins)
}

func bytesOf(pins []pin) (n int64) {
	for _, p := range pins {
		n += int64(len(p.key) + len(p.record))
	}
	return n
}
