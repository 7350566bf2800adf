package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
	"github.com/keepcache/keepcache/internal/verify"
)

// replayBytes is about how much a replay keeps in memory before it writes to the file. The more it keeps, the fewer
// times a page is written. 240,000 entries all over a file of a million, in unsorted transactions of 32 MiB, took 1.9
// times as long as all of them sorted, and left the file 1.6 times as large.
const replayBytes = 96 << 20

// replay restores what a journal has beyond the file's mark. An undamaged journal gets a successor with just that, and
// the cache goes on with the successor: commits bring the entries into the file later, as usual. Everything goes into
// the file at once if the journal is damaged, if open is nil or fails, or if there are more than keep bytes. A crash
// during that does no harm: the next replay starts over, and what is in the file already has no effect.
//
// What a damaged journal has lost counts as never written, and the journal is quarantined. The file may have later
// versions of the remaining entries. The later version counts.
func replay(
	s *store.Store, path string, hl *healer, keep int64, open func(after uint64) (*journal.Journal, error),
) (*backlog, error) {
	mark, last, err := s.Revisions()
	if err != nil {
		return nil, err
	}
	r := newReplayer(s, path, mark, last)
	r.keep, r.open = keep, open
	report, err := journal.ReplayIn(s.Dir(), path, s.Identity(), mark, r.addRecord)
	whole, _ := verify.Judge(&report, &r.bad)
	if err == nil && whole == nil && r.installSuccessor() {
		return &backlog{mark: r.mark, last: r.reached, names: r.names, pins: r.pins, journal: r.next}, nil
	}
	r.giveUp()
	if r.reached = max(r.reached, last); err == nil && r.reached > r.mark {
		err = r.commit()
	}
	if err == nil {
		err = disposeJournal(s.Dir(), path, &report, &r.bad, hl)
	}
	if err != nil {
		return nil, fmt.Errorf("replay the journal: %w", err)
	}
	return &backlog{mark: r.reached, last: r.reached}, nil
}

// replayer collects the operations of a journal, for its successor or for the file.
type replayer struct {
	store     *store.Store
	path      string // of the journal
	mark      uint64 // every revision up to it is in the file
	highest   uint64 // of any entry in the file at first; above the mark if a commit or replay was interrupted
	reached   uint64 // every revision up to it was collected
	maxBytes  int    // bytes to keep in memory
	keep      int64  // bytes to keep if there is a successor
	syncTried bool   // the journal was synced, once: after a failed sync the next one may seem to succeed
	durable   bool   // that sync succeeded

	open func(after uint64) (*journal.Journal, error) // creates the successor; nil if there will be none
	next *journal.Journal                             // the successor; nil before the first log record

	bad   format.Malformed
	names []store.NameOp
	pins  []memory.Pin
	bytes int // of all operations
}

func newReplayer(s *store.Store, path string, mark, highest uint64) *replayer {
	return &replayer{store: s, path: path, mark: mark, highest: highest, reached: mark, maxBytes: replayBytes}
}

// addRecord adds one log record. If there is no more room in memory, it writes everything to the file.
func (r *replayer) addRecord(first, last uint64, record []byte) error {
	if !r.bad.Is(first, last, record) {
		if err := format.EachOp(first, record, r.addOp); err != nil {
			return err
		}
		r.copyToSuccessor(first, last, record)
	}
	if r.reached = last; r.bytes < r.maxBytes {
		return nil
	}
	r.giveUp()
	return r.commit()
}

// addOp adds a copy of one operation.
func (r *replayer) addOp(o format.Op, revision uint64) error {
	const overhead = 128 // bytes of a pin, and of its key beside the letters
	r.bytes += overhead + len(o.Key) + len(o.Record)
	switch o.Kind {
	case format.OpBucket, format.OpInvalidate:
		r.names = append(r.names, store.NameOp{Name: o.Key, ID: o.ID, Tag: o.Kind == format.OpInvalidate, Revision: revision})
	case format.OpPut, format.OpDelete:
		p := memory.Pin{ID: o.ID, Key: o.Key, Revision: revision}
		if o.Kind == format.OpPut {
			p.Key, p.Stored = memory.Join(o.Key, o.Record)
			p.StaleUntil = format.ReadHeader(format.RecordIn(p.Stored)).StaleUntil
			p.Lives = p.StaleUntil
		}
		if len(r.pins) == cap(r.pins) {
			r.pins = slices.Grow(r.pins, max(len(r.pins), 1024)) // append would grow it in smaller steps and copy it too often
		}
		r.pins = append(r.pins, p)
	}
	return nil
}

// copyToSuccessor appends a log record to the successor. If that fails there will be no successor.
func (r *replayer) copyToSuccessor(first, last uint64, record []byte) {
	if r.open == nil {
		return
	}
	if int64(r.bytes) > r.keep {
		r.giveUp()
		return
	}
	var err error
	if r.next == nil {
		r.next, err = r.open(min(r.mark, first-1)) // a log record may reach across the mark
	}
	if err == nil {
		err = r.next.Append(first, last, record)
	}
	if err != nil {
		r.giveUp()
	}
}

// giveUp closes and removes the successor.
func (r *replayer) giveUp() {
	if r.open = nil; r.next != nil {
		r.next.Close(true)
		r.next = nil
	}
}

// installSuccessor replaces the journal by its successor, and reports whether it did. It does so only if the successor
// has everything that may not be in the file, including what an interrupted commit has brought there already.
func (r *replayer) installSuccessor() bool {
	return r.next != nil && r.highest <= r.reached && r.next.Replace() == nil
}

// commit writes everything collected to the file, the last operation of each key, in sorted transactions.
func (r *replayer) commit() error {
	r.sort()
	for {
		if done, err := r.transact(); done || err != nil {
			return err
		}
	}
}

// sort sorts the entries and keeps only the last operation of each key.
func (r *replayer) sort() {
	memory.SortPins(r.pins)
	r.pins = latest(r.pins)
}

// transact runs the next transaction, and reports whether it was the last one. Only the last one raises the mark: after
// a crash the replay starts over.
func (r *replayer) transact() (done bool, err error) {
	n, mark := batchSize(r.pins, replayFactor, r.store.Scattered(), replayFactor*commitMemory), r.mark
	if n < len(r.pins) && !r.makeDurable() {
		n = len(r.pins)
	}
	if done = n == len(r.pins); done {
		mark = r.reached
	}
	names := r.names
	changes, _ := changesOf(nil, r.pins[:n])
	if r.highest > r.mark {
		if names, changes, err = r.store.DropOlder(names, changes); err != nil {
			return false, err
		}
	}
	f := fold(names, nil)
	if err := r.store.Apply(f.rows, f.lastID, changes, mark, nil); err != nil {
		return false, err
	}
	r.mark, r.names, r.pins = mark, nil, r.pins[n:]
	if done {
		r.pins, r.bytes = nil, 0
	}
	return done, nil
}

// makeDurable syncs the journal, and reports whether that succeeded. All transactions but the last rely on it: after a
// power cut the journal has to complete them.
func (r *replayer) makeDurable() bool {
	if r.syncTried {
		return r.durable
	}
	r.syncTried = true
	f, err := r.store.Dir().OpenRegular(r.path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	err = disk.Datasync(f)
	r.durable = errors.Join(err, disk.Close(f), r.store.Dir().Sync(r.path)) == nil
	return r.durable
}

// latest keeps the last pin of each key. The pins must be sorted.
func latest(pins []memory.Pin) []memory.Pin {
	n := 0
	for i, p := range pins {
		if i+1 < len(pins) && p.ID == pins[i+1].ID && p.Key == pins[i+1].Key {
			continue
		}
		pins[n] = p
		n++
	}
	clear(pins[n:])
	return pins[:n]
}

// journalSuffix and a time follow the name of a quarantined journal.
const journalSuffix = ".aside-"

// disposeJournal removes a journal after its replay, or quarantines it if it is damaged.
func disposeJournal(in *disk.Dir, path string, report *journal.Report, bad *format.Malformed, hl *healer) error {
	why, lost := verify.Judge(report, bad)
	if why == nil {
		if err := in.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	info, err := in.Lstat(path)
	if err != nil {
		return err
	}
	movedTo, err := store.QuarantineFile(in, path, journalSuffix, info)
	if err != nil {
		return err
	}
	if err := in.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // it has another name now
		return err
	}
	store.PruneQuarantine(in, path, journalSuffix, movedTo)
	hl.badJournal(why, lost, report, bad)
	hl.quarantined(movedTo, why, nil)
	return nil
}

// badJournal counts, logs and reports a journal that has lost writes.
func (hl *healer) badJournal(why error, lost bool, report *journal.Report, bad *format.Malformed) {
	if !lost {
		return
	}
	hl.mu.Lock()
	hl.stats.BadJournals++
	if report.Holes > 0 {
		hl.stats.LostWrites += report.LostLast - report.LostFirst + 1
	}
	if bad.LogRecords > 0 {
		hl.stats.LostWrites += bad.Last - bad.First + 1
	}
	hl.mu.Unlock()
	hl.log.Error("keepcache: the journal is damaged", "path", hl.e.store.Path(), "err", why)
	hl.listener.BadJournal(why)
}
