package keepcache

import (
	"fmt"
	"strings"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
)

// lateEntries are the latest versions that the file does not have, by the id of the bucket and the key.
type lateEntries map[uint64]map[string]lateEntry

// lateEntry is one of them.
type lateEntry struct {
	revision uint64
	removed  bool
	goneAt   int64
	record   []byte // nil if it was proved already, or is removed
}

// of returns what is late of a key, if anything is.
func (l lateEntries) of(id uint64, key []byte) (lateEntry, bool) {
	e, late := l[id][string(key)]
	return e, late
}

// put notes a version unless there is a later one.
func (l lateEntries) put(id uint64, key string, e lateEntry) {
	of := l[id]
	if of == nil {
		of = make(map[string]lateEntry)
		l[id] = of
	}
	if of[key].revision <= e.revision {
		of[key] = e
	}
}

// lateIn returns what memory has pinned.
func lateIn(m *memory.Tier) lateEntries {
	l := make(lateEntries)
	for _, p := range m.Collect(nil, false) {
		l.put(p.ID, strings.Clone(p.Key), lateEntry{p.Revision, p.Stored == nil, p.GoneAt, format.RecordIn(p.Stored)})
	}
	return l
}

// journalReport says what is known of the journal of a cache that is open with its lock.
func (db *DB) journalReport() JournalReport {
	if w := db.writer; w != nil {
		return JournalReport{FileBytes: w.snapshot().FileBytes}
	}
	return reportOf(&db.inherited)
}

func reportOf(r *journal.Report) JournalReport {
	return JournalReport{FileBytes: r.Bytes, Pieces: r.Applied, Bytes: r.PieceBytes, Torn: r.Torn, Foreign: r.Foreign}
}

// journalProblems says what is wrong with a journal, and where.
func journalProblems(report *journal.Report, bad *malformed) (problems []error) {
	why, lost := judge(report, bad)
	if !lost {
		return nil
	}
	if report.Holes > 0 {
		why = fmt.Errorf("%w; the first begins at byte %d of the journal", why, report.HoleAt)
	}
	if report.Gap {
		why = fmt.Errorf("%w: %w", ErrCorrupt, why)
	}
	return []error{why}
}
