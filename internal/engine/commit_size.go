package engine

import (
	"time"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
)

const (
	// The size of a transaction is bounded, because what it replaces takes space in the file until it ends. Measured with
	// 100,000 entries overwritten ten times, the file ended at 2.5 to 2.6 times the logical bytes with 8192 entries a
	// transaction, and at 2.3 with 2048, in the same time.
	commitEntries = 2048
	commitBytes   = 4 << 20

	// A long key is written up to this often: in leaves and branches of its bucket and of the expiry index.
	keyTimes = 4

	// A transaction of that size takes 20 ms on a fast disk. If it takes slowCommit, most of that is waiting for the two
	// syncs. Transactions are then larger by pressureFactor while writes come faster than they are committed. But not
	// during a compaction: they wait until it has caught up, and writers wait for them.
	slowCommit     = 50 * time.Millisecond
	pressureFactor = 4

	// A replay uses larger transactions too, because no writer has to wait. With 240,000 entries that took 2.6 s instead
	// of 3.2, and the file was 2 % larger.
	replayFactor = 4

	// A transaction needs memory besides that of its entries. For each entry that is alone in its page, it needs a copy of
	// the page and bbolt's node of it, and with long keys also of the pages above, see cost.Scattered. That is bounded by
	// commitMemory plus a share of MemoryBytes.
	changeMemory = 8 << 10
	commitMemory = 16 << 20
	commitShare  = 4

	// Transactions are smaller by this factor while the file is close to the size that it promises not to exceed.
	bloatShare = 4
)

// sizeFactor returns by how much the next transaction may be larger than usual. j is the journal, or nil.
func (c *committer) sizeFactor(j *journal.Journal) float64 {
	file, cost, err := c.store.Measure()
	switch {
	case err == nil && c.store.WorthCompacting(file, cost, bloatFactor, bloatRoom):
		return 1.0 / bloatShare
	case c.slow && c.writer.underPressure(j) && !c.store.Compacting():
		return min(pressureFactor, max(1, float64(c.memory.Limit()/commitShare+commitMemory)/(commitEntries*changeMemory)))
	}
	return 1
}

// pagesRoom returns how many bytes the pages may take that a transaction changes for its entries, and again for its
// victims. memory is the limit of the memory tier.
func pagesRoom(memory int64) int64 { return (memory/commitShare + commitMemory) / 16 * 7 }

// batchSize returns how many of the entries go into the next transaction: at least one, if there is one. pages must be
// empty. Their pages may take room bytes.
func batchSize(pins []memory.Pin, times float64, pages cost.Scattered, room int64) int {
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
