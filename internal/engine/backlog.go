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

// backlog is what a journal has that the file does not, as Open finds it.
type backlog struct {
	mark    uint64 // every revision up to it is in the file
	last    uint64 // the last one there is
	names   []store.NameOp
	pins    []memory.Pin     // in the order of their revisions
	journal *journal.Journal // that has all of it; nil if there is nothing
}

// overlay brings what a journal has beyond the file's mark into memory, for an engine that must not change the file.
func (e *Engine) overlay(path string) error {
	mark, _, err := e.store.Revisions()
	if err != nil {
		return err
	}
	r := newReplayer(e.store, path, mark, mark)
	r.most = math.MaxInt // into the file it cannot go
	report, err := journal.ReplayIn(e.store.Dir(), path, e.store.Identity(), mark, r.piece)
	if err != nil {
		return err
	}
	e.takeBack(&backlog{names: r.names, pins: r.pins})
	e.inherited, e.journalProblems = report, verify.JournalProblems(&report, &r.bad)
	if why, lost := verify.Judge(&report, &r.bad); why != nil {
		e.healer.badJournal(why, lost, &report, &r.bad)
	}
	return nil
}

// takeBack brings a backlog into memory. The names and tags that the file has are known already.
func (e *Engine) takeBack(l *backlog) {
	e.rename(l.names)
	for i := range l.names {
		if ns := e.namespace(l.names[i].Name); ns != nil && !l.names[i].Tag {
			e.lapse(ns)
		}
	}
	ids := e.ids()
	for i := range l.pins {
		p := &l.pins[i]
		if !ids[p.ID] {
			continue // the bucket was cleared or dropped since
		}
		h := format.Header{Revision: p.Revision}
		if p.Stored != nil {
			h = format.ReadHeader(format.RecordIn(p.Stored))
		}
		e.memory.Publish(e.memory.Hash(p.ID, p.Key), p.ID, p.Key, p.Stored, h, 0)
	}
	l.pins = nil
}

// rename lets buckets have the ids that the namings of a journal give them, and fills in which id each replaces. A commit that
// was cut in two may have brought some of them into the file: then the id there is one of these, and what that has replaced is
// among the ids that no name points at.
func (e *Engine) rename(names []store.NameOp) {
	given := make(map[uint64]bool) // an id is given once
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
			e.point(other, 0) // the file's table is damaged: an id is given once
		}
		e.point(ns, n.ID)
		e.lastID = max(e.lastID, n.ID)
	}
}

// retired returns which of the ids that no name in the file points at are of buckets that are no more. The others have their
// names in the backlog: a commit may have taken entries of a bucket that it had not been told of yet. What the backlog replaces
// is retired when it is committed.
func (e *Engine) retired(unnamed []uint64, names []store.NameOp) []uint64 {
	spared := e.ids()
	for _, n := range names {
		spared[n.Old] = true
	}
	return slices.DeleteFunc(unnamed, func(id uint64) bool { return spared[id] })
}

// ids returns the ids of all buckets there are.
func (e *Engine) ids() map[uint64]bool {
	ids := make(map[uint64]bool)
	for _, ns := range e.buckets {
		ids[ns.id.Load()] = true
	}
	return ids
}
