package verify

import (
	"errors"
	"fmt"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/journal"
)

// Late are the latest versions that the file does not have, by the id of the bucket and the key.
type Late map[uint64]map[string]LateEntry

// LateEntry is one of them.
type LateEntry struct {
	Revision   uint64
	Removed    bool
	StaleUntil int64
	Record     []byte // nil if it was proved already, or is removed
}

// of returns what is late of a key, if anything is.
func (l Late) of(id uint64, key []byte) (LateEntry, bool) {
	e, late := l[id][string(key)]
	return e, late
}

// Put notes a version unless there is a later one.
func (l Late) Put(id uint64, key string, e LateEntry) {
	of := l[id]
	if of == nil {
		of = make(map[string]LateEntry)
		l[id] = of
	}
	if of[key].Revision <= e.Revision {
		of[key] = e
	}
}

func JournalReportOf(r *journal.Report) JournalReport {
	return JournalReport{FileBytes: r.Bytes, Records: r.Applied, Bytes: r.RecordBytes, Torn: r.Torn, Foreign: r.Foreign}
}

// JournalProblems says what is wrong with a journal, and where.
func JournalProblems(report *journal.Report, bad *format.Malformed) (problems []error) {
	why, lost := Judge(report, bad)
	if !lost {
		return nil
	}
	if report.Holes > 0 {
		why = fmt.Errorf("%w; the first begins at byte %d of the journal", why, report.HoleAt)
	}
	if report.Gap {
		why = fmt.Errorf("%w: %w", errs.ErrCorrupt, why)
	}
	return []error{why}
}

// Judge says what is wrong with a journal, and whether writes of this cache are lost with that; nil is nothing.
func Judge(report *journal.Report, bad *format.Malformed) (err error, lost bool) {
	switch {
	case report.Foreign:
		return errors.New("the journal belongs to another cache"), false
	case report.Gap:
		return errors.New("the journal begins beyond what the cache has"), true
	case report.Unreadable:
		return fmt.Errorf("%w: the head of the journal", errs.ErrCorrupt), true
	case report.Holes > 0:
		return fmt.Errorf("%w: the journal has %d holes, and may have lost revisions %d to %d", errs.ErrCorrupt,
			report.Holes, report.LostFirst, report.LostLast), true
	case bad.LogRecords > 0:
		return fmt.Errorf("%w: %d log records of the journal, revisions %d to %d: %w", errs.ErrCorrupt,
			bad.LogRecords, bad.First, bad.Last, bad.Err), true
	}
	return nil, false
}
