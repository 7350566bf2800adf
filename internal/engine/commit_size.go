package engine

import (
	"time"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
)

const (
	// A transaction is bounded, because what it replaces takes room in the file until it is done. Measured
	// with 100,000 entries overwritten ten times, the file ended at 2.5 to 2.6 times the logical bytes with
	// 8192 entries a transaction, at 2.3 with 2048, in the same time.
	commitEntries = 2048
	commitBytes   = 4 << 20

	// A long key is written up to so many times: in the leaf and the branches of its bucket and of the expiry index.
	keyTimes = 4

	// Where a transaction of that size takes slowCommit, most of it is waiting for the two syncs of the disk: it takes 20 ms where
	// these are quick. Then transactions are larger by pressedTimes while writers bring entries faster than they are
	// committed; but not while the file is compacted, because they wait for the compaction to follow, and writers for them.
	slowCommit   = 50 * time.Millisecond
	pressedTimes = 4

	// A replay has larger ones too: nobody writes meanwhile who would have to wait. With 240,000 entries 2.6 s instead of 3.2,
	// and the file 2 % larger.
	replayTimes = 4

	// A transaction takes memory besides that of its entries: for each that is alone in its page, a copy of the page
	// and what bbolt makes of it, with long keys also of those above, see cost.Scattered. That is to be at most
	// commitRoom and a part of MemoryBytes.
	changeRoom = 8 << 10
	commitRoom = 16 << 20
	commitPart = 4

	// Transactions are a part of the usual size where the file is about to pass what it promises to stay below.
	swollenPart = 4
)

// times is how many times the usual size the next transaction may have. j is the journal, or nil.
func (c *committer) times(j *journal.Journal) float64 {
	file, cost, err := c.store.Measure()
	switch {
	case err == nil && c.store.WorthCompacting(file, cost, swollenTimes, swollenRoom):
		return 1.0 / swollenPart
	case c.slow && c.writer.pressed(j) && !c.store.Compacting():
		return min(pressedTimes, max(1, float64(c.memory.Limit()/commitPart+commitRoom)/(commitEntries*changeRoom)))
	}
	return 1
}

// pagesRoom returns how many bytes the pages may take that a transaction changes for what it puts, and again for what it evicts.
// memory is what memory may have.
func pagesRoom(memory int64) int64 { return (memory/commitPart + commitRoom) / 16 * 7 }

// portion returns how many entries go into the next transaction, one at least if there is one. pages is empty, and their pages
// may take so many bytes of room.
func portion(pins []memory.Pin, times float64, pages cost.Scattered, room int64) int {
	most, mostBytes, size := int(commitEntries*times), int(commitBytes*times), 0
	for i, p := range pins {
		size += keyTimes*len(p.Key) + len(p.Stored)
		pages.Add(len(p.Key), len(p.Stored), p.StaleUntil == format.Never)
		if i > 0 && (i == most || size > mostBytes || pages.Passes(room)) {
			return i
		}
	}
	return len(pins)
}

func bytesOf(pins []memory.Pin) (n int64) {
	for _, p := range pins {
		n += int64(len(p.Key) + len(p.Stored))
	}
	return n
}
