package keepcache

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/journal"
)

// journalPath returns where the journal of the file at path is.
func journalPath(path string) string { return path + "-journal" }

// replayBytes bounds what a replay holds in memory before it goes into the file.
const replayBytes = 32 << 20

// rowID names a key within the file.
type rowID struct {
	id  uint64
	key string
}

// replay brings what a journal has beyond the file's mark into the file, in the order of the revisions, and
// returns the last revision. A crash in the middle does no harm: what is in the file already has no effect
// when it comes again.
func replay(s *store, path string, log *slog.Logger) (last uint64, err error) {
	mark, last, err := s.revisions()
	if err != nil {
		return 0, err
	}
	var names []naming
	latest := make(map[rowID]*change) // the last outcome of each key: those before it cost nothing
	size, reached := 0, mark
	commit := func() error {
		changes := slices.SortedFunc(maps.Values(latest), func(a, b *change) int {
			return cmp.Or(cmp.Compare(a.id, b.id), bytes.Compare(a.key, b.key))
		})
		err := s.apply(names, changes, reached, nil)
		clear(latest)
		names, size = nil, 0
		return err
	}
	now := millis(time.Now())
	report, err := journal.Replay(path, s.identity, mark, func(first, lastOf uint64, piece []byte) error {
		err := eachOutcome(first, piece, func(o outcome, revision uint64) error {
			switch o.kind {
			case outcomeName:
				names = append(names, naming{name: o.key, id: o.id})
			case outcomeTag:
				names = append(names, naming{name: o.key, tag: true, revision: revision})
			case outcomePut, outcomeRemove:
				c := &change{id: o.id, key: []byte(o.key), revision: revision}
				if h := o.header(); o.kind == outcomePut && h.goneAt > now {
					c.record, c.goneAt = bytes.Clone(o.record), h.goneAt
				}
				at := rowID{o.id, o.key}
				if old := latest[at]; old != nil {
					size -= len(old.key) + len(old.record)
				}
				latest[at] = c
				size += len(c.key) + len(c.record)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if reached = lastOf; size < replayBytes {
			return nil
		}
		return commit()
	})
	if err == nil && max(reached, last) > mark {
		reached = max(reached, last)
		err = commit()
	}
	if err == nil {
		err = dispose(path, report, log)
	}
	if err != nil {
		return 0, fmt.Errorf("replay the journal: %w", err)
	}
	return max(last, reached), nil
}

// dispose removes a journal that was replayed, or puts it aside if it was not.
func dispose(path string, report journal.Report, log *slog.Logger) error {
	if report.Holes > 0 {
		log.Error("keepcache: the journal was damaged, writes are lost", "path", path, "holes", report.Holes,
			"first", report.LostFirst, "last", report.LostLast)
	}
	var why string
	switch {
	case report.Foreign:
		why = "it belongs to another cache"
	case report.Gap:
		why = "it begins beyond what the cache has"
	case report.Unreadable:
		why = "its head is damaged"
	default:
		if err := disk.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	aside := path + ".aside-" + time.Now().UTC().Format("20060102T150405Z")
	log.Error("keepcache: the journal is not applied but put aside", "path", path, "aside", aside, "why", why)
	return disk.Rename(path, aside)
}

// overlay brings what a journal has beyond the file's mark into memory, for a DB that must not change the file.
func (db *DB) overlay(path string) error {
	mark, _, err := db.store.revisions()
	if err != nil {
		return err
	}
	_, err = journal.Replay(path, db.store.identity, mark, func(first, _ uint64, piece []byte) error {
		return eachOutcome(first, piece, func(o outcome, revision uint64) error {
			hash := db.memory.hash(o.id, o.key)
			switch o.kind {
			case outcomeName:
				ns := db.ensureNamespace(o.key)
				ns.id.Store(o.id)
			case outcomeTag:
				db.tags.put(o.key, revision)
			case outcomePut:
				db.memory.publish(hash, o.id, o.key, bytes.Clone(o.record), o.header())
			case outcomeRemove:
				db.memory.publish(hash, o.id, o.key, nil, header{revision: revision})
			}
			return nil
		})
	})
	return err
}

// header reads the header of a put outcome's record, and none of any other.
func (o *outcome) header() header {
	if o.kind != outcomePut {
		return header{}
	}
	return readHeader(o.record)
}

// eachOutcome calls fn for each outcome of a piece, with its revision.
func eachOutcome(first uint64, piece []byte, fn func(outcome, uint64) error) error {
	for revision := first; len(piece) > 0; revision++ {
		o, rest, err := nextOutcome(piece)
		if err != nil {
			return err
		}
		if err := fn(o, revision); err != nil {
			return err
		}
		piece = rest
	}
	return nil
}
