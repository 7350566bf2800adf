package engine

import (
	"time"

	"github.com/keepcache/keepcache/internal/clock"
	"github.com/keepcache/keepcache/internal/format"
)

// State is the state of an entry at a point in time.
type State struct {
	Fresh    bool // its deadline has not been reached
	Live     bool // visible to every operation
	Held     bool // visible to GetOrLoad: live, stale or negative, and none of its tags was invalidated
	Negative bool
}

// Judge computes the state of entries, from the clock and the invalidated tags.
type Judge struct {
	clock *clock.Clock
	tags  tagTable
}

// NewJudge returns a Judge without invalidated tags.
func NewJudge() Judge { return Judge{clock: clock.New()} }

// Learn notes that a tag was invalidated at a revision.
func (j *Judge) Learn(tag string, revision uint64) { j.tags.put(tag, revision) }

// RaiseFloor makes every tag count as invalidated at a revision.
func (j *Judge) RaiseFloor(floor uint64) { j.tags.raise(floor) }

// Now returns the time for writes.
func (j *Judge) Now() time.Time { return j.clock.Now() }

// StateOf returns the current state of an entry by its times and options.
func (j *Judge) StateOf(h *format.Header, options []byte) State {
	now := int64(0)
	if h.ExpiresAt != format.Never {
		now = j.clock.At(h.ExpiresAt, h.StaleUntil)
	}
	s := stateByTime(now, h)
	if len(options) > 0 && s.Held {
		s = j.withOptions(s, h, options)
	}
	return s
}

// stateByTime returns the state of an entry by its times alone.
func stateByTime(now int64, h *format.Header) State {
	fresh := now < h.ExpiresAt
	return State{Fresh: fresh, Live: fresh, Held: now < h.StaleUntil}
}

// withOptions returns the state of an entry whose state by time is s, taking its options into account.
func (j *Judge) withOptions(s State, h *format.Header, options []byte) State {
	t := format.ReadOptions(options)
	if j.tags.invalidated(t.Tags) >= t.Since(h.Revision) && len(t.Tags) > 0 {
		return State{Fresh: s.Fresh}
	}
	if t.Negative {
		s.Negative, s.Live = true, false
	}
	return s
}

// invalid reports whether an entry is absent because one of its tags was invalidated.
func (j *Judge) invalid(h *format.Header, options []byte) bool {
	if len(options) == 0 || j.tags.last.Load() == 0 {
		return false
	}
	t := format.ReadOptions(options)
	return j.tags.invalidated(t.Tags) >= t.Since(h.Revision) && len(t.Tags) > 0
}

// Invalidated returns the revision at which one of the tags was last invalidated, or 0.
func (j *Judge) Invalidated(tags format.Tags) uint64 { return j.tags.invalidated(tags) }
