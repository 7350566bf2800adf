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

// committer moves pinned entries from memory into the file, in large sorted transactions: overwrites since
// the last commit coalesce, neighbours share pages, and what came and went costs nothing.
type committer struct {
	store   *store.Store
	memory  *memory.Tier
	writer  *writer
	sweeper *sweeper
	evictor *evictor                        // nil where nothing is limited
	named   func(bucket string, id uint64)  // told which id the file has for a bucket now, 0 for none
	filed   func(bucket string) (id uint64) // says which id it has

	wake  chan struct{} // holds a token when a commit is asked for
	asked atomic.Bool   // by somebody who waits for it

	running sync.Mutex   // held for the length of a commit: one at a time; protects what follows, up to the blank line
	pins    []memory.Pin // empty, with room for as many as the last commit had
	slow    bool         // the last transaction took long for its size
	tried   uint64       // no transaction had a higher revision

	mu    sync.Mutex    // protects what follows
	round chan struct{} // closed, and replaced, after each transaction and each failure
	mark  uint64        // every revision up to it is in the file
	err   error         // of the last commit; nil if it went well
	rests bool          // after a failure, for retryPause
	ended bool          // there will be no other commit
	stats CommitStats
}

const (
	// Where the journal fills up, or the file is compacted and commits are slow, the oldest entries are committed
	// first, so many at a time: then the journal has room again after each time and not only at last. Otherwise
	// it is better to have all of them sorted, because more neighbours share pages then.
	groupEntries = 16 * commitEntries

	// pinsKept bounds the room that stays from one commit to the next.
	pinsKept = 64 << 10

	// stallMost is how long a writer waits for room before it gives up.
	stallMost = 5 * time.Second

	// retryPause is the least time between two commits after one that failed.
	retryPause = 100 * time.Millisecond
)

// loop commits when asked to and every interval, if there is one, until ctx ends.
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
				continue // the commit that ran when it was asked for has done it
			}
		case <-due:
		}
		if c.commit() == nil {
			continue
		}
		c.rest(true)
		pause := time.NewTimer(retryPause)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
		c.rest(false)
	}
}

// rest says whether the loop pauses after a commit that failed.
func (c *committer) rest(rests bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rests = rests
}

// demand asks for a commit even if room is not scarce.
func (c *committer) demand() {
	c.asked.Store(true)
	c.kick()
}

// kick asks for a commit if room is scarce.
func (c *committer) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// needed reports whether somebody waits for a commit, or room is scarce.
func (c *committer) needed() bool {
	return c.asked.Swap(false) || c.writer.crowded(c.writer.position().journal)
}

// commit moves everything that was published before it into the file. A journal that failed has a successor after it, where there can be one:
// that there can be none is no failure of the commit.
func (c *committer) commit() error { return c.commitThen(c.writer.renew) }

// commitThen is commit with what is done to renew a journal that failed, after a commit up to a mark.
func (c *committer) commitThen(renew func(mark uint64)) error {
	c.running.Lock()
	defer c.running.Unlock()
	start := time.Now()
	n, err := c.run(renew)
	if n == 0 && err == nil {
		c.evictor.enforce(round{floor: c.reached()})
	}
	if err != nil {
		c.writer.recount() // what was taken off for names is still to come
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
	c.turn()
	return err
}

// run is one commit. The order of its steps is what makes it safe: the mark is read before the entries are
// collected, so that everything up to it is among them or in the file already; the journal is flushed before
// the file gets anything of it, so that a crash between two transactions leaves nothing that a replay would
// not complete; and entries are unpinned only when those who miss them in memory see them in the file.
func (c *committer) run(renew func(mark uint64)) (entries int, err error) {
	st := c.writer.position()
	pins := c.memory.Collect(c.pins[:0], true)
	c.pins = nil
	if cap(pins) <= pinsKept {
		defer func(all []memory.Pin) {
			clear(all) // they hold entries and records
			c.pins = all
		}(pins)
	}
	if st.journal != nil {
		if err := st.journal.Flush(c.writer.position().mark); err != nil {
			c.writer.lost(st.journal)
			st.journal = nil
		}
	}
	st.unlogged = c.writer.position().unlogged // also of what was published while the entries were collected
	// What the journal does not have nothing completes after a crash, so it must not be cut in two.
	whole := st.journal == nil || st.unlogged > c.reached()
	if whole {
		j := st.journal
		pins = c.memory.CollectAll(func() { st = c.writer.position() })
		st.journal = j
	}
	c.tried = max(c.tried, c.writer.last())
	if len(pins) == 0 && len(st.names) == 0 && st.mark == c.reached() {
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
		if !whole && (c.store.Compacting() || c.writer.cramped(st.journal)) {
			group, pins, mark = oldest(group, mark)
			mark = max(mark, c.reached())
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
				c.turn() // who waits for room in the journal has some; in the end commit wakes them
			}
		}
	}
	if st.journal == nil {
		renew(st.mark)
	}
	return entries, nil
}

// oldest takes the entries apart that were written first, and says up to which revision the file has everything
// with them: of what has a lower one and is not among them there is a later version, which the journal keeps.
func oldest(pins []memory.Pin, last uint64) (first, rest []memory.Pin, mark uint64) {
	if len(pins) <= groupEntries {
		return pins, nil, last
	}
	slices.SortFunc(pins, func(a, b memory.Pin) int { return cmp.Compare(a.Revision, b.Revision) })
	return pins[:groupEntries], pins[groupEntries:], min(pins[groupEntries-1].Revision, last)
}

// transact moves entries into the file, in one transaction or several, after the last of which it contains every
// revision up to last. Namings and the entries that died with them go with the first.
func (c *committer) transact(names []store.NameOp, dead, pins []memory.Pin, last uint64, j *journal.Journal, whole bool) (entries int, err error) {
	memory.SortPins(pins)
	mark, total, part := c.reached(), len(pins), 1.0
	before := mark
	filed := c.filed
	if c.failed() {
		filed = nil // the file may have what that commit wrote all the same
	}
	f := fold(names, filed)
	if !whole {
		if err := c.transactNames(&f); err != nil {
			return 0, err
		}
	}
	for ; ; names, f = nil, (folded{}) {
		n, times := len(pins), 1.0
		if !whole {
			times = c.times(j) * part
			n = portion(pins, times, c.store.Scattered(), pagesRoom(c.memory.Limit()))
		}
		var expired int
		var changes []*store.Change
		var evicted *joined
		var start time.Time
		for {
			if mark = before; n == len(pins) {
				mark = last
			}
			changes, expired = changesOf(c.memory, pins[:n])
			evicted = c.evictor.join(names)
			start = time.Now()
			err := c.store.Apply(f.rows, f.given, changes, mark, evicted.in)
			if err == nil {
				break
			}
			if !errors.Is(err, store.ErrNoAddressSpace) || whole || n <= 1 {
				return entries, err
			}
			// A smaller one may do with what the file has of free pages and of its map.
			part /= 4
			times /= 4
			n = portion(pins, times, c.store.Scattered(), pagesRoom(c.memory.Limit()))
		}
		c.slow = float64(time.Since(start)) > times*float64(slowCommit)
		c.afterCommit(len(names), &f, dead, pins[:n], mark)
		c.sweeper.spared(expired, len(dead))
		c.sweeper.tellPinned(pins[:n], changes)
		c.sweeper.replacedInFile(changes)
		c.evictor.afterCommit(evicted)
		c.evictor.enforce(round{n, bytesOf(pins[:n]), before})
		entries += n
		clear(pins[:n]) // what they hold may go while the rest is committed
		if pins, dead = pins[n:], nil; entries == total {
			return entries, nil
		}
	}
}

// afterCommit is what follows a transaction: the file has the names, the first so many of those that were published, and the entries
// now.
func (c *committer) afterCommit(names int, f *folded, dead, pins []memory.Pin, mark uint64) {
	if names > 0 {
		c.namesCommitted(f.rows)
		c.writer.named(names)
		c.retire(f.old)
	}
	c.memory.Unpin(dead)
	c.memory.Unpin(pins)
	c.mu.Lock()
	c.mark = mark
	c.mu.Unlock()
	c.turn()
}

// split takes out the entries of buckets that were cleared or dropped: nobody reads them any more, and the
// sweeper may have removed the bucket from the file.
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

// changesOf says what pinned entries are to the file. One that expired is the removal of what the file may
// still have under its key. m is the memory that has them, or nil.
func changesOf(m *memory.Tier, pins []memory.Pin) (changes []*store.Change, expired int) {
	now := format.Millis(time.Now())
	all := make([]store.Change, len(pins))
	changes = make([]*store.Change, len(pins))
	for i, p := range pins {
		key := unsafe.Slice(unsafe.StringData(p.Key), len(p.Key)) // only read
		all[i] = store.Change{ID: p.ID, Key: key, StaleUntil: p.StaleUntil, Revision: p.Revision, At: p.StaleUntil}
		if p.Stored != nil {
			all[i].At = min(format.ReadHeader(format.RecordIn(p.Stored)).WrittenAt, now) // a Restore brings any time
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

// CommitStats count the transactions that moved writes into the file, see keepcache.CommitStats.
type CommitStats struct {
	Commits uint64
	Entries uint64
	Failed  uint64
	Time    time.Duration
	Longest time.Duration
	Err     error
}
