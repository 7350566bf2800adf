package keepcache

import (
	"bytes"
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// committer takes writes into the file. Those who write at the same time share a transaction: while one
// commit is on its way to the disk the next one gathers, without a timer.
type committer struct {
	store *store

	done chan struct{} // closed when the loop has ended

	mu       sync.Mutex // protects what follows
	changed  sync.Cond  // the queue has something, or closed is set
	queue    []*request
	closed   bool
	sequence uint64 // the last revision given out
	stats    CommitStats
}

// request is what one call wants to have committed, all of it or nothing.
type request struct {
	names   []naming
	changes []*change
	err     error
	wait    sync.WaitGroup
}

// CommitStats count the transactions that took writes into the file.
type CommitStats struct {
	Commits uint64 // transactions
	Entries uint64 // entries written and removed in them
	Failed  uint64 // transactions that failed; their writers got the error
}

// mostChanges bounds one transaction, so that no writer waits for a commit without end.
const mostChanges = 10_000

func newCommitter(s *store) (*committer, error) {
	sequence, err := s.sequence()
	if err != nil {
		return nil, err
	}
	c := &committer{store: s, sequence: sequence, done: make(chan struct{})}
	c.changed.L = &c.mu
	return c, nil
}

// do commits r and returns when it is on disk.
func (c *committer) do(r *request) error {
	r.wait.Add(1)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	c.queue = append(c.queue, r)
	c.mu.Unlock()
	c.changed.Signal()
	r.wait.Wait()
	return r.err
}

// loop commits until close and until nothing is left.
func (c *committer) loop() {
	defer close(c.done)
	for c.await() {
		c.gather()
		c.commit()
	}
}

// await waits for a request. It returns false when none will come any more.
func (c *committer) await() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) == 0 && !c.closed {
		c.changed.Wait()
	}
	return len(c.queue) > 0
}

// gather lets the writers that the last commit has released put their next writes into this one. Each
// round gives every other goroutine a turn, and the rounds end when none of them brought anything.
func (c *committer) gather() {
	const mostRounds = 8
	waiting := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.queue)
	}
	for n, round := waiting(), 0; round < mostRounds; round++ {
		runtime.Gosched()
		now := waiting()
		if now == n {
			return
		}
		n = now
	}
}

// commit takes requests off the queue and commits them in one transaction.
func (c *committer) commit() {
	var names []naming
	var changes []*change
	c.mu.Lock()
	n := 0
	for ; n < len(c.queue) && (n == 0 || len(changes)+len(c.queue[n].changes) <= mostChanges); n++ {
		names = append(names, c.queue[n].names...)
		changes = append(changes, c.queue[n].changes...)
	}
	batch := slices.Clone(c.queue[:n])
	c.queue = slices.Delete(c.queue, 0, n)
	first := c.sequence + 1
	c.sequence += uint64(len(changes))
	mark := c.sequence
	c.mu.Unlock()

	for i, ch := range changes {
		if ch.record != nil {
			sealRecord(ch.record, ch.sum, ch.key, first+uint64(i))
		}
	}
	// The sort is stable: writes to one key stay in the order in which they came.
	slices.SortStableFunc(changes, func(a, b *change) int {
		return cmp.Or(cmp.Compare(a.id, b.id), bytes.Compare(a.key, b.key))
	})
	err := c.store.apply(names, changes, mark)
	if err != nil && c.store.contains(mark) {
		// bbolt had written all of it when its last sync failed: readers see it, a power cut may undo it.
		err = fmt.Errorf("the outcome is unknown: %w", err)
	}

	c.mu.Lock()
	c.stats.Commits++
	c.stats.Entries += uint64(len(changes))
	if err != nil {
		c.stats.Failed++
	}
	c.mu.Unlock()
	for _, r := range batch {
		r.err = err
		r.wait.Done()
	}
}

// close commits what is waiting and ends the loop. Later writes get ErrClosed.
func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.changed.Signal()
	<-c.done
}

func (c *committer) snapshot() CommitStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}
