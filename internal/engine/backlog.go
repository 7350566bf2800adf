package engine

import (
	"math"
	"slices"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
	"github.com/keepcache/keepcache/internal/verify"
)

// backlog is what the journal has beyond the file when the cache is opened.
type backlog struct {
	mark    uint64 // every revision up to it is in the file
	last    uint64 // the last revision
	names   []store.NameOp
	pins    []memory.Pin     // in the order of their revisions
	journal *journal.Journal // has all of it; nil if there is nothing
}

// overlay brings what a journal has beyond the file's mark into memory, for an engine that must not change the file.
func (e *Engine) overlay(path string) error {
	mark, _, err := e.store.Revisions()
	if err != nil {
		return err
	}
	r := newReplayer(e.store, path, mark, mark)
	r.maxBytes = math.MaxInt // it cannot go into the file
	report, err := journal.ReplayIn(e.store.Dir(), path, e.store.Identity(), mark, r.addRecord)
	if err != nil {
		return err
	}
	e.restore(&backlog{names: r.names, pins: r.pins})
	e.inherited, e.journalProblems = report, verify.JournalProblems(&report, &r.bad)
	if why, lost := verify.Judge(&report, &r.bad); why != nil {
		e.healer.badJournal(why, lost, &report, &r.bad)
	}
	return nil
}

// restore brings a backlog into memory. The names and tags of the file must be known by then.
func (e *Engine) restore(l *backlog) {
	e.applyNames(l.names)
	for i := range l.names {
		if ns := e.namespace(l.names[i].Name); ns != nil && !l.names[i].Tag {
			e.dropIfUnused(ns)
		}
	}
	ids := e.ids()
	for i := range l.pins {
		p := &l.pins[i]
		if !ids[p.ID] {
			continue // the bucket was cleared or dropped later
		}
		h := format.Header{Revision: p.Revision}
		if p.Stored != nil {
			h = format.ReadHeader(format.RecordIn(p.Stored))
		}
		e.memory.Publish(e.memory.Hash(p.ID, p.Key), p.ID, p.Key, p.Stored, h, 0)
	}
	l.pins = nil
}

// applyNames gives buckets the ids that the name operations of a journal assign, and notes in each operation the id
// that it replaces. If a commit was interrupted between two transactions, the file may have some of them already. Then
// the id in the file is assigned by one of the operations, and what that has replaced is among the ids without a name.
func (e *Engine) applyNames(names []store.NameOp) {
	given := make(map[uint64]bool) // an id is assigned once
	for _, n := range names {
		given[n.ID] = true
	}
	seen := make(map[string]bool)
	for i := range names {
		n := &names[i]
		if n.Tag {
			e.tags.put(n.Name, n.Revision)
			continue
		}
		ns := e.ensureNamespace(n.Name)
		n.Name = ns.name
		if old := ns.id.Load(); seen[n.Name] || !given[old] {
			n.Old = old
		}
		seen[n.Name] = true
		if other := e.byID[n.ID]; other != nil && other != ns {
			e.setID(other, 0) // the file's table is damaged: an id belongs to one bucket
		}
		e.setID(ns, n.ID)
		e.lastID = max(e.lastID, n.ID)
	}
}

// retiredIDs returns those of the file's ids without a name whose bucket no longer exists. The others get their names
// from the backlog: a commit may have written entries of a bucket before its name. What the backlog replaces is retired
// when it is committed.
func (e *Engine) retiredIDs(unnamed []uint64, names []store.NameOp) []uint64 {
	spared := e.ids()
	for _, n := range names {
		spared[n.Old] = true
	}
	return slices.DeleteFunc(unnamed, func(id uint64) bool { return spared[id] })
}

// ids returns the ids of all existing buckets.
func (e *Engine) ids() map[uint64]bool {
	ids := make(map[uint64]bool)
	for _, ns := range e.buckets {
		ids[ns.id.Load()] = true
	}
	return ids
}
