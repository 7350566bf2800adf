package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepcache/keepcache/internal/errs"
)

// Waiting for commits, and keeping them from running.

// committed returns the mark: every revision up to it is in the file.
func (c *committer) committed() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mark
}

// endRound wakes all who wait for the next round.
func (c *committer) endRound() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.round)
	c.round = make(chan struct{})
}

// nextRound requests a commit and returns a channel that is closed after its next transaction or failure. The error is
// not nil if there will be none.
func (c *committer) nextRound() (round <-chan struct{}, mark uint64, err error) {
	c.mu.Lock()
	round, mark, err = c.round, c.mark, c.err
	if c.ended && err == nil {
		err = errs.ErrClosed
	}
	c.mu.Unlock()
	c.request()
	return round, mark, err
}

// await waits until every revision up to last is in the file. It gives up when a commit fails.
func (c *committer) await(last uint64) error {
	for waited := false; ; waited = true {
		round, mark, err := c.nextRound()
		switch {
		case mark >= last:
			return nil
		case err != nil && (waited || c.hasEnded()):
			return err
		}
		<-round
	}
}

// awaitUnlogged is await for a write that is in no journal. While the loop pauses after a failed commit, it fails at
// once with that commit's error. Otherwise each of many writes in a row would wait for a commit of its own.
func (c *committer) awaitUnlogged(last uint64) error {
	c.mu.Lock()
	rests, err := c.backingOff && c.mark < last, c.err
	c.mu.Unlock()
	if rests && err != nil {
		c.request()
		return err
	}
	return c.await(last)
}

// pause keeps commits from running until the returned function is called.
func (c *committer) pause() (resume func()) {
	c.running.Lock()
	return c.running.Unlock
}

// tryPause is pause, but gives up after patience or when ctx ends.
func (c *committer) tryPause(ctx context.Context, patience time.Duration) (resume func(), err error) {
	for end := time.Now().Add(patience); !c.running.TryLock(); time.Sleep(time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !time.Now().Before(end) {
			return nil, errors.New("a commit is still under way")
		}
	}
	return c.running.Unlock, nil
}

// mayContain reports whether the file may have something of that revision although its commit failed: bbolt reports a
// failed sync after readers can see the transaction. The caller has paused commits.
func (c *committer) mayContain(revision uint64) bool {
	if revision > c.maxTried {
		return false
	}
	_, highest, err := c.store.Revisions()
	return err != nil || highest >= revision
}

// failed reports whether the last commit failed.
func (c *committer) failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}

// failing reports whether the last commit failed, or the next one would because the file cannot be changed.
func (c *committer) failing() bool {
	h := c.store.Handle()
	return h == nil || h.Failure() != nil || c.failed()
}

func (c *committer) hasEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// awaitRoom waits for the next round, after which there may be room in memory or in the journal. It fails when giveUp
// fires, and at once while commits fail.
func (c *committer) awaitRoom(giveUp <-chan time.Time) error {
	round, _, err := c.nextRound()
	if err != nil {
		return fmt.Errorf("%w, because commits fail: %w", errs.ErrNoRoom, err)
	}
	select {
	case <-round:
		return nil
	case <-giveUp:
		return errStalled
	}
}

var errStalled = fmt.Errorf("%w: the disk has not kept up for %v", errs.ErrNoRoom, stallTimeout)

// finish commits what is left. It is the last commit, so it needs no new journal. All who wait for a commit wake up.
func (c *committer) finish() error {
	err := c.commitThen(func(uint64) {})
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.endRound()
	return err
}
