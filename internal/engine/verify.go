package engine

import (
	"strings"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/verify"
)

// lateIn returns what memory has pinned.
func lateIn(m *memory.Tier) verify.Late {
	l := make(verify.Late)
	for _, p := range m.Collect(nil, false) {
		l.Put(p.ID, strings.Clone(p.Key), verify.LateEntry{
			Revision: p.Revision, Removed: p.Stored == nil, StaleUntil: p.StaleUntil, Record: format.RecordIn(p.Stored),
		})
	}
	return l
}

// journalReport returns a report on the journal of an open engine.
func (e *Engine) journalReport() verify.JournalReport {
	if w := e.writer; w != nil {
		return verify.JournalReport{FileBytes: w.snapshot().FileBytes}
	}
	return verify.JournalReportOf(&e.inherited)
}
