package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
)

// committer moves pinned entries from memory into the file, in large sorted transactions. Overwrites since the last
// commit cost nothing, nor do entries that have come and gone since, and neighbours share pages.
type committer struct {
	store     *store.Store
	memory    *memory.Tier
	writer    *writer
	sweeper   *sweeper
	evictor   *evictor                        // nil if nothing is limited
	setFileID func(bucket string, id uint64)  // notes the id that the file now has for a bucket, 0 for none
	fileIDOf  func(bucket string) (id uint64) // returns that id

	wake  chan struct{} // holds a token when a commit is requested
	asked atomic.Bool   // by somebody who waits for it

	running  sync.Mutex   // held for the length of a commit; protects what follows, up to the blank line
	pins     []memory.Pin // empty, with the capacity that the last commit needed
	slow     bool         // the last transaction took long for its size
	maxTried uint64       // no transaction has had a higher revision

	mu         sync.Mutex    // protects what follows
	round      chan struct{} // closed and replaced after each transaction and each failure
	mark       uint64        // every revision up to it is in the file
	err        error         // of the last commit
	backingOff bool          // after a failure, for retryPause
	ended      bool          // there will be no other commit
	stats      CommitStats
}

const (
	// If the journal fills up, or a running compaction makes commits slow, the oldest entries are committed first,
	// groupEntries at a time. Then room in the journal is freed after each group and not only at the end. Otherwise it is
	// better to sort all entries together, because more neighbours share pages.
	groupEntries = 16 * commitEntries

	// maxKeptPins bounds the capacity that is kept from one commit to the next.
	maxKeptPins = 64 << 10

	// stallTimeout is how long a writer waits for room before it gives up.
	stallTimeout = 5 * time.Second

	// retryPause is the least time from a failed commit to the next one.
	retryPause = 100 * time.Millisecond
)

// loop commits when requested and every interval, if that is not 0, until ctx ends.
func (c *committer) loop(ctx context.Context, interval time.Duration) {
	var due <-chan time.Time
	if interval > 0 {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		due = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
			if !c.needed() {
				continue // the commit that was running at the time of the request has done it
			}
		case <-due:
		}
		if c.commit() == nil {
			continue
		}
		c.setBackingOff(true)
		pause := time.NewTimer(retryPause)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
		c.setBackingOff(false)
	}
}

// setBackingOff says whether the loop pauses after a commit that failed.
func (c *committer) setBackingOff(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.backingOff = on
}

// request requests a commit, even if room is not scarce.
func (c *committer) request() {
	c.asked.Store(true)
	c.wakeLoop()
}

// wakeLoop requests a commit if room is scarce.
func (c *committer) wakeLoop() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// needed reports whether somebody waits for a commit, or room is scarce.
func (c *committer) needed() bool {
	return c.asked.Swap(false) || c.writer.commitDue(c.writer.position().journal)
}

// commit moves everything that was published before the call into the file. It then replaces a failed journal if that
// is possible. If it is not, the commit is still successful.
func (c *committer) commit() error { return c.commitThen(c.writer.renewJournal) }

// commitThen is commit with a function that replaces a failed journal, after a commit up to mark.
func (c *committer) commitThen(renew func(mark uint64)) error {
	c.running.Lock()
	defer c.running.Unlock()
	start := time.Now()
	n, err := c.run(renew)
	if n == 0 && err == nil {
		c.evictor.enforce(evictionRound{floor: c.committed()})
	}
	if err != nil {
		c.writer.recountNames() // names that were discounted are still to be committed
	}
	took := time.Since(start)

	c.mu.Lock()
	if n > 0 || err != nil {
		c.stats.Commits++
		c.stats.Entries += uint64(n)
		c.stats.Time += took
		c.stats.Longest = max(c.stats.Longest, took)
	}
	if err != nil {
		c.stats.Failed++
	}
	c.err, c.stats.Err = err, err
	c.mu.Unlock()
	c.endRound()
	return err
}

// run is one commit. The order of its steps makes it safe. It reads the mark before it collects the entries, so
// everything up to the mark is collected or already in the file. It flushes the journal before it writes any of it to
// the file, so a replay can complete the commit after a crash between two transactions. And it unpins entries only when
// readers who miss them in memory find them in the file.
func (c *committer) run(renew func(mark uint64)) (entries int, err error) {
	st := c.writer.position()
	pins := c.memory.Collect(c.pins[:0], true)
	c.pins = nil
	if cap(pins) <= maxKeptPins {
		defer func(all []memory.Pin) {
			clear(all) // they refer to entries and records
			c.pins = all
		}(pins)
	}
	if st.journal != nil {
		if err := st.journal.Flush(c.writer.position().mark); err != nil {
			c.writer.journalFailed(st.journal)
			st.journal = nil
		}
	}
	st.unlogged = c.writer.position().unlogged // includes what was published while the entries were collected
	// After a crash nothing completes what the journal does not have, so that needs one transaction for everything.
	whole := st.journal == nil || st.unlogged > c.committed()
	if whole {
		j := st.journal
		pins = c.memory.CollectAll(func() { st = c.writer.position() })
		st.journal = j
	}
	c.maxTried = max(c.maxTried, c.writer.lastRevision())
	if len(pins) == 0 && len(st.names) == 0 && st.mark == c.committed() {
		if st.journal == nil {
			renew(st.mark)
		}
		return 0, nil
	}
	pins, dead := split(pins, st.names)
	names := st.names
	for more := true; more; names, dead = nil, nil {
		group, mark := pins, st.mark
		pins = nil
		if !whole && (c.store.Compacting() || c.writer.journalNearlyFull(st.journal)) {
			group, pins, mark = oldest(group, mark)
			mark = max(mark, c.committed())
		}
		n, err := c.transact(names, dead, group, mark, st.journal, whole)
		entries += n
		if err != nil {
			c.memory.Release(dead, group, pins)
			return entries, err
		}
		if more = len(pins) > 0; st.journal != nil {
			st.journal.Release(mark)
			if more {
				c.endRound() // writers that wait for room in the journal may go on; at the end, commitThen wakes them
			}
		}
	}
	if st.journal == nil {
		renew(st.mark)
	}
	return entries, nil
}

// oldest splits off the entries that were written first. With them, the file has every revision up to mark: an entry
// with a lower revision that is not among them was overwritten, and the journal keeps the later version.
func oldest(pins []memory.Pin, last uint64) (first, rest []memory.Pin, mark uint64) {
	if len(pins) <= groupEntries {
		return pins, nil, last
	}
	slices.SortFunc(pins, func(a, b memory.Pin) int { return cmp.Compare(a.Revision, b.Revision) })
	return pins[:groupEntries], pins[groupEntries:], min(pins[groupEntries-1].Revision, last)
}

// transact moves entries into the file, in one or more transactions. After the last one the file has every revision up
// to last. The first one also has the name operations and drops the entries of dead.
func (c *committer) transact(
	names []store.NameOp, dead, pins []memory.Pin, last uint64, j *journal.Journal, whole bool,
) (entries int, err error) {
	memory.SortPins(pins)
	mark, total, part := c.committed(), len(pins), 1.0
	before := mark
	fileIDOf := c.fileIDOf
	if c.failed() {
		fileIDOf = nil // the file may nevertheless have what that commit wrote
	}
	f := fold(names, fileIDOf)
	if !whole {
		if err := c.transactNames(&f); err != nil {
			return 0, err
		}
	}
	for ; ; names, f = nil, (folded{}) {
		n, times := len(pins), 1.0
		if !whole {
			times = c.sizeFactor(j) * part
			n = batchSize(pins, times, c.store.Scattered(), pagesRoom(c.memory.Limit()))
		}
		var expired int
		var changes []*store.Change
		var evicted *commitEviction
		var start time.Time
		for {
			if mark = before; n == len(pins) {
				mark = last
			}
			changes, expired = changesOf(c.memory, pins[:n])
			evicted = c.evictor.prepareCommit(names)
			start = time.Now()
			err := c.store.Apply(f.rows, f.lastID, changes, mark, evicted.in)
			if err == nil {
				break
			}
			if !errors.Is(err, store.ErrNoAddressSpace) || whole || n <= 1 {
				return entries, err
			}
			// A smaller one may get by with the free pages of the file and with its map.
			part /= 4
			times /= 4
			n = batchSize(pins, times, c.store.Scattered(), pagesRoom(c.memory.Limit()))
		}
		c.slow = float64(time.Since(start)) > times*float64(slowCommit)
		c.afterCommit(len(names), &f, dead, pins[:n], mark)
		c.sweeper.countUnwritten(expired, len(dead))
		c.sweeper.notifyPinned(pins[:n], changes)
		c.sweeper.replacedInFile(changes)
		c.evictor.afterCommit(evicted)
		c.evictor.enforce(evictionRound{n, bytesOf(pins[:n]), before})
		entries += n
		clear(pins[:n]) // release what they refer to while the rest is committed
		if pins, dead = pins[n:], nil; entries == total {
			return entries, nil
		}
	}
}

// afterCommit publishes the result of a transaction: the file now has the given number of name operations and the
// entries.
func (c *committer) afterCommit(names int, f *folded, dead, pins []memory.Pin, mark uint64) {
	if names > 0 {
		c.namesCommitted(f.rows)
		c.writer.dropNames(names)
		c.retire(f.retired)
	}
	c.memory.Unpin(dead)
	c.memory.Unpin(pins)
	c.mu.Lock()
	c.mark = mark
	c.mu.Unlock()
	c.endRound()
}

// split separates the entries of buckets that were cleared or dropped. Nobody reads them any more, and the sweeper may
// already have removed the bucket from the file.
func split(pins []memory.Pin, names []store.NameOp) (live, dead []memory.Pin) {
	if len(names) == 0 {
		return pins, nil
	}
	gone := make(map[uint64]bool, len(names))
	for _, n := range names {
		gone[n.Old] = true
	}
	for _, p := range pins {
		if gone[p.ID] {
			dead = append(dead, p)
		} else {
			live = append(live, p)
		}
	}
	return live, dead
}

// changesOf converts pinned entries into changes of the file. An expired entry becomes the deletion of its key. m is
// the memory that has the entries, or nil.
func changesOf(m *memory.Tier, pins []memory.Pin) (changes []*store.Change, expired int) {
	now := format.Millis(time.Now())
	all := make([]store.Change, len(pins))
	changes = make([]*store.Change, len(pins))
	for i, p := range pins {
		key := unsafe.Slice(unsafe.StringData(p.Key), len(p.Key)) // not modified
		all[i] = store.Change{ID: p.ID, Key: key, StaleUntil: p.StaleUntil, Revision: p.Revision, At: p.StaleUntil}
		if p.Stored != nil {
			all[i].At = min(format.ReadHeader(format.RecordIn(p.Stored)).WrittenAt, now) // a restored entry can have any time
		}
		switch {
		case p.Lives > now || m != nil && m.Outlives(&p, now):
			all[i].Stored, all[i].Record = p.Stored, format.RecordIn(p.Stored)
		case p.Stored != nil:
			expired++
		}
		changes[i] = &all[i]
	}
	return changes, expired
}

func (c *committer) snapshot() CommitStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// CommitStats counts the transactions that moved writes into the file, see keepcache.CommitStats.
type CommitStats struct {
	Commits uint64
	Entries uint64
	Failed  uint64
	Time    time.Duration
	Longest time.Duration
	Err     error
}
