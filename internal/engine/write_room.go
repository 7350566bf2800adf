package engine

import (
	"errors"
	"time"

	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
)

// takeInTurn is take that waits for room. Where there is little, those who come later wait behind those who wait: otherwise
// whoever runs when there is some takes all of it, and others wait for many commits.
func (w *writer) takeInTurn(names []store.NameOp, writes []*Write) (last uint64, j *journal.Journal, err error) {
	if w.waiting.Load() == 0 || !w.scarce() {
		if last, j, err = w.take(names, writes); !isFull(err) {
			return last, j, err
		}
	}
	w.waiting.Add(1)
	defer w.waiting.Add(-1)
	giveUp := time.NewTimer(stallMost)
	defer giveUp.Stop()
	select {
	case w.turn <- struct{}{}: // those who block here go on in the order in which they came
	case <-giveUp.C:
		return 0, nil, errStalled
	}
	w.wanted.Store(min(memoryOf(writes), w.most()/2))
	defer func() {
		w.wanted.Store(0)
		<-w.turn
	}()
	for {
		if last, j, err = w.take(names, writes); !isFull(err) {
			return last, j, err
		}
		if err = w.commits.awaitRoom(giveUp.C); err != nil {
			return 0, nil, err
		}
	}
}

// isFull reports whether a write failed because there is no room, neither in memory nor in the journal.
func isFull(err error) bool { return err == errPinsFull || errors.Is(err, journal.ErrFull) }

// scarce reports whether there is little room in memory or in the journal, or none beside what somebody waits for.
func (w *writer) scarce() bool {
	w.mu.Lock()
	j := w.journal
	w.mu.Unlock()
	wanted, most := w.wanted.Load(), w.most()
	return w.taken()+max(wanted, most/16) > most || j != nil && j.Free() < max(wanted, w.journalAt/8)
}

// crowded reports whether it is time for a commit, for the sake of memory or of journal j, if there is one.
// Writers go on in what is left of both.
func (w *writer) crowded(j *journal.Journal) bool {
	return w.memory.PinnedBytes()+w.naming.Load() >= min(w.commitAt, w.most()/2) || j != nil && j.Used() >= w.journalAt
}

// pressed reports whether writes come faster than commits take them.
func (w *writer) pressed(j *journal.Journal) bool {
	return w.memory.PinnedBytes() > (w.commitAt+w.pinnedMost)/2 || w.cramped(j)
}

// cramped reports whether journal j, if there is one, is about to be full.
func (w *writer) cramped(j *journal.Journal) bool { return j != nil && j.Used() > w.journalAt*3/2 }

// errPinsFull says that pinned entries have all the memory that they may have.
var errPinsFull = errors.New("no room in memory")

// memoryOf returns what writes come to in memory.
func memoryOf(writes []*Write) (n int64) {
	for _, d := range writes {
		n += int64(len(d.Key)+cap(d.Stored)) + memory.EntryOverhead + memory.PinOverhead
	}
	return n
}

// taken returns the bytes of pinned entries, of those that are about to be, and of names that the file does not have yet: what is
// published in between may count twice, and never not at all.
func (w *writer) taken() int64 { return w.coming.Load() + w.memory.PinnedBytes() + w.naming.Load() }

// most returns how many bytes taken may be. Where the buckets that there are take more than the quarter of memory beside what
// may be pinned, they take it from that, but for half of it.
func (w *writer) most() int64 {
	over := w.memory.NameBytes() - w.pinnedMost/3
	return max(w.pinnedMost-max(over, 0), w.pinnedMost/2)
}
