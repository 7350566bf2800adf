package engine

import (
	"time"

	"github.com/keepcache/keepcache/internal/clock"
	"github.com/keepcache/keepcache/internal/format"
)

// State is what an entry is at a moment.
type State struct {
	Fresh    bool // its deadline has not been reached
	Live     bool // every operation sees it
	Held     bool // it is live, stale or negative, and none of its tags was invalidated: GetOrLoad sees it
	Negative bool
}

// Judge says what entries are at a moment: by the clock, and by the tags that were invalidated.
type Judge struct {
	clock *clock.Clock
	tags  tagTable
}

// NewJudge returns one for whom no tag was invalidated yet.
func NewJudge() Judge { return Judge{clock: clock.New()} }

// Learn enters that a tag was invalidated, as of a revision.
func (j *Judge) Learn(tag string, revision uint64) { j.tags.put(tag, revision) }

// Raise has every tag count as invalidated at a revision.
func (j *Judge) Raise(floor uint64) { j.tags.raise(floor) }

// Now returns the time as writes have it.
func (j *Judge) Now() time.Time { return j.clock.Now() }

// StateOf judges an entry by its times and its options, as of now.
func (j *Judge) StateOf(h *format.Header, options []byte) State {
	now := int64(0)
	if h.ExpiresAt != format.Never {
		now = j.clock.At(h.ExpiresAt, h.StaleUntil)
	}
	s := timely(now, h)
	if len(options) > 0 && s.Held {
		s = j.regard(s, h, options)
	}
	return s
}

// timely judges an entry by its times alone.
func timely(now int64, h *format.Header) State {
	fresh := now < h.ExpiresAt
	return State{Fresh: fresh, Live: fresh, Held: now < h.StaleUntil}
}

// regard returns the state of an entry that is held as far as its times say, with regard to its options.
func (j *Judge) regard(s State, h *format.Header, options []byte) State {
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

// Invalidated returns the revision at which the latest of the tags was invalidated, or 0.
func (j *Judge) Invalidated(tags format.Tags) uint64 { return j.tags.invalidated(tags) }
