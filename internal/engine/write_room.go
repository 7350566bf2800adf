package engine

import (
	"errors"
	"time"

	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
)

// publish is tryPublish that waits for room. If room is scarce, later writers queue behind those that wait. Otherwise
// whoever runs when there is room takes all of it, and others wait for many commits.
func (w *writer) publish(names []store.NameOp, writes []*Write) (last uint64, j *journal.Journal, err error) {
	if w.waiters.Load() == 0 || !w.roomScarce() {
		if last, j, err = w.tryPublish(names, writes); !isFull(err) {
			return last, j, err
		}
	}
	w.waiters.Add(1)
	defer w.waiters.Add(-1)
	giveUp := time.NewTimer(stallTimeout)
	defer giveUp.Stop()
	select {
	case w.roomToken <- struct{}{}: // blocked senders continue in the order in which they came
	case <-giveUp.C:
		return 0, nil, errStalled
	}
	w.wantedBytes.Store(min(memoryBytes(writes), w.limit()/2))
	defer func() {
		w.wantedBytes.Store(0)
		<-w.roomToken
	}()
	for {
		if last, j, err = w.tryPublish(names, writes); !isFull(err) {
			return last, j, err
		}
		if err = w.commits.awaitRoom(giveUp.C); err != nil {
			return 0, nil, err
		}
	}
}

// isFull reports whether a write failed because there is no room in memory or in the journal.
func isFull(err error) bool { return err == errMemoryFull || errors.Is(err, journal.ErrFull) }

// roomScarce reports whether there is little room in memory or in the journal, or little more than a waiting writer
// needs.
func (w *writer) roomScarce() bool {
	w.mu.Lock()
	j := w.journal
	w.mu.Unlock()
	wanted, most := w.wantedBytes.Load(), w.limit()
	return w.used()+max(wanted, most/16) > most || j != nil && j.Free() < max(wanted, w.journalAt/8)
}

// commitDue reports whether it is time for a commit, to free memory or room in journal j, if there is one. Writers go
// on in what is left of both.
func (w *writer) commitDue(j *journal.Journal) bool {
	return w.memory.PinnedBytes()+w.nameBytes.Load() >= min(w.commitAt, w.limit()/2) || j != nil && j.Used() >= w.journalAt
}

// underPressure reports whether writes come faster than they are committed.
func (w *writer) underPressure(j *journal.Journal) bool {
	return w.memory.PinnedBytes() > (w.commitAt+w.maxPinned)/2 || w.journalNearlyFull(j)
}

// journalNearlyFull reports whether journal j, if there is one, is about to be full.
func (w *writer) journalNearlyFull(j *journal.Journal) bool {
	return j != nil && j.Used() > w.journalAt*3/2
}

// errMemoryFull means that pinned entries take all the memory that they may take.
var errMemoryFull = errors.New("no room in memory")

// memoryBytes returns how much memory writes take.
func memoryBytes(writes []*Write) (n int64) {
	for _, d := range writes {
		n += int64(len(d.Key)+cap(d.Stored)) + memory.EntryOverhead + memory.PinOverhead
	}
	return n
}

// used returns the bytes of pinned entries, of entries that are about to be pinned, and of names that the file does not
// have yet. What is being published may be counted twice, but is always counted.
func (w *writer) used() int64 {
	return w.pendingBytes.Load() + w.memory.PinnedBytes() + w.nameBytes.Load()
}

// limit returns how many bytes may be used. The names of buckets have the quarter of memory that pinned entries leave.
// If they need more, they take it from pinned entries, but at most half of it.
func (w *writer) limit() int64 {
	over := w.memory.NameBytes() - w.maxPinned/3
	return max(w.maxPinned-max(over, 0), w.maxPinned/2)
}
