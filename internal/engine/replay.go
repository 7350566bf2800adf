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

// replayBytes is about what a replay holds in memory at the most before it goes into the file. The more there is, the
// fewer times a page is written: 240,000 entries all over a file of a million, in transactions of 32 MiB as they came, took
// 1.9 times as long as sorted all together, and left the file 1.6 times as large.
const replayBytes = 96 << 20

// replay takes what a journal has beyond the file's mark. A journal that is whole gets a successor with just that, with which the
// cache goes on: what is taken comes into the file by commits, as if nothing had happened. From any other, and where there is no
// successor, because open has none or it is more than keep bytes, it goes into the file at once. A crash in the middle does no
// harm: all of it comes again, and what is in the file already has no effect then.
//
// Where the journal is damaged, what it cannot say any more is as if it had not been written, and the journal is kept
// aside. The file may have later entries than those that are left: the later one counts.
func replay(s *store.Store, path string, hl *healer, keep int64, open func(after uint64) (*journal.Journal, error)) (*backlog, error) {
	mark, last, err := s.Revisions()
	if err != nil {
		return nil, err
	}
	r := newReplayer(s, path, mark, last)
	r.keep, r.open = keep, open
	report, err := journal.ReplayIn(s.Dir(), path, s.Identity(), mark, r.piece)
	whole, _ := verify.Judge(&report, &r.bad)
	if err == nil && whole == nil && r.succeeded() {
		return &backlog{mark: r.mark, last: r.reached, names: r.names, pins: r.pins, journal: r.next}, nil
	}
	r.giveUp()
	if r.reached = max(r.reached, last); err == nil && r.reached > r.mark {
		err = r.commit()
	}
	if err == nil {
		err = dispose(s.Dir(), path, &report, &r.bad, hl)
	}
	if err != nil {
		return nil, fmt.Errorf("replay the journal: %w", err)
	}
	return &backlog{mark: r.reached, last: r.reached}, nil
}

// replayer takes the outcomes of a journal, for its successor or for the file.
type replayer struct {
	store   *store.Store
	path    string // of the journal
	mark    uint64 // every revision up to it is in the file
	highest uint64 // that the file had of any entry at first: above the mark if a commit or a replay was cut in two
	reached uint64 // every revision up to it was taken
	most    int    // bytes that are held in memory
	keep    int64  // bytes that may stay there, with a successor
	tried   bool   // to put the journal on disk, once: a sync that failed may seem to succeed the next time
	durable bool   // the disk has the journal

	open func(after uint64) (*journal.Journal, error) // makes the successor; nil if there is to be none
	next *journal.Journal                             // the successor; nil before the first piece

	bad   format.Malformed
	names []store.NameOp
	pins  []memory.Pin
	bytes int // of all of them
}

func newReplayer(s *store.Store, path string, mark, highest uint64) *replayer {
	return &replayer{store: s, path: path, mark: mark, highest: highest, reached: mark, most: replayBytes}
}

// piece takes one piece, and makes room for the next.
func (r *replayer) piece(first, last uint64, piece []byte) error {
	if !r.bad.Is(first, last, piece) {
		if err := format.EachOp(first, piece, r.take); err != nil {
			return err
		}
		r.carry(first, last, piece)
	}
	if r.reached = last; r.bytes < r.most {
		return nil
	}
	r.giveUp()
	return r.commit()
}

// take takes one outcome, which it copies.
func (r *replayer) take(o format.Op, revision uint64) error {
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
			r.pins = slices.Grow(r.pins, max(len(r.pins), 1024)) // by half of that each time it would be copied too often
		}
		r.pins = append(r.pins, p)
	}
	return nil
}

// carry appends a piece to the successor. If that fails there will be none.
func (r *replayer) carry(first, last uint64, piece []byte) {
	if r.open == nil {
		return
	}
	if int64(r.bytes) > r.keep {
		r.giveUp()
		return
	}
	var err error
	if r.next == nil {
		r.next, err = r.open(min(r.mark, first-1)) // a piece may reach across the mark
	}
	if err == nil {
		err = r.next.Append(first, last, piece)
	}
	if err != nil {
		r.giveUp()
	}
}

// giveUp lets there be no successor.
func (r *replayer) giveUp() {
	if r.open = nil; r.next != nil {
		r.next.Close(true)
		r.next = nil
	}
}

// succeeded puts the successor in the journal's place, and reports whether it is there. The journal must have all that is not in
// the file for certain: also what a commit that was cut in two has brought there already.
func (r *replayer) succeeded() bool {
	return r.next != nil && r.highest <= r.reached && r.next.Replace() == nil
}

// commit brings what was taken into the file, the last outcome of each key, in sorted transactions.
func (r *replayer) commit() error {
	r.sort()
	for {
		if done, err := r.transact(); done || err != nil {
			return err
		}
	}
}

// sort leaves the last outcome of each key, sorted.
func (r *replayer) sort() {
	memory.SortPins(r.pins)
	r.pins = latest(r.pins)
}

// transact makes the next transaction, and reports whether it was the last one. The mark rises with that: what a crash leaves of
// those before it comes again.
func (r *replayer) transact() (done bool, err error) {
	n, mark := portion(r.pins, replayTimes, r.store.Scattered(), replayTimes*commitRoom), r.mark
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
	if err := r.store.Apply(f.rows, f.given, changes, mark, nil); err != nil {
		return false, err
	}
	r.mark, r.names, r.pins = mark, nil, r.pins[n:]
	if done {
		r.pins, r.bytes = nil, 0
	}
	return done, nil
}

// makeDurable puts the journal on disk, and reports whether it is there. Of several transactions the first ones rely on it:
// if power is lost after them, it has to complete them, and to have what they have.
func (r *replayer) makeDurable() bool {
	if r.tried {
		return r.durable
	}
	r.tried = true
	f, err := r.store.Dir().OpenRegular(r.path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	err = disk.Datasync(f)
	r.durable = errors.Join(err, disk.Close(f), r.store.Dir().Sync(r.path)) == nil
	return r.durable
}

// latest leaves of sorted pins the last one of each key.
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

// journalSuffix follows the name of a journal that is kept aside.
const journalSuffix = ".aside-"

// dispose removes a journal that was replayed, or puts it aside if not all of it was.
func dispose(in *disk.Dir, path string, report *journal.Report, bad *format.Malformed, hl *healer) error {
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
	aside, err := store.QuarantineFile(in, path, journalSuffix, info)
	if err != nil {
		return err
	}
	if err := in.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // it has another name now
		return err
	}
	store.PruneQuarantine(in, path, journalSuffix, aside)
	hl.badJournal(why, lost, report, bad)
	hl.quarantined(aside, why, nil)
	return nil
}

// badJournal counts, logs and tells that a journal does not have what it should.
func (hl *healer) badJournal(why error, lost bool, report *journal.Report, bad *format.Malformed) {
	if !lost {
		return
	}
	hl.mu.Lock()
	hl.stats.BadJournals++
	if report.Holes > 0 {
		hl.stats.LostWrites += report.LostLast - report.LostFirst + 1
	}
	if bad.Pieces > 0 {
		hl.stats.LostWrites += bad.Last - bad.First + 1
	}
	hl.mu.Unlock()
	hl.log.Error("keepcache: the journal is damaged", "path", hl.e.store.Path(), "err", why)
	hl.listener.BadJournal(why)
}
