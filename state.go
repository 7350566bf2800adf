package keepcache

import (
	"time"

	"github.com/keepcache/keepcache/internal/clock"
	"github.com/keepcache/keepcache/internal/format"
)

// state is what an entry is at a moment.
type state struct {
	fresh    bool // its deadline has not been reached
	live     bool // every operation sees it
	held     bool // it is live, stale or negative: GetOrLoad sees it. Not if a tag of it was invalidated
	negative bool
}

// judge says what entries are at a moment: by the clock, and by the tags that were invalidated.
type judge struct {
	clock *clock.Clock
	tags  tagTable
}

// now returns the time as writes have it.
func (j *judge) now() time.Time { return j.clock.Now() }

// stateOf judges an entry by its times and its options, as of now.
func (j *judge) stateOf(h *format.Header, options []byte) state {
	now := int64(0)
	if h.FreshUntil != format.Never {
		now = j.clock.At(h.FreshUntil, h.GoneAt)
	}
	s := timely(now, h)
	if len(options) > 0 && s.held {
		s = j.regard(s, h, options)
	}
	return s
}

// timely judges an entry by its times alone.
func timely(now int64, h *format.Header) state {
	fresh := now < h.FreshUntil
	return state{fresh: fresh, live: fresh, held: now < h.GoneAt}
}

// regard returns the state of an entry that is held as far as its times say, with regard to its options.
func (j *judge) regard(s state, h *format.Header, options []byte) state {
	t := format.ReadOptions(options)
	if j.tags.invalidated(t.Tags) >= t.Since(h.Revision) && len(t.Tags) > 0 {
		return state{fresh: s.fresh}
	}
	if t.Negative {
		s.negative, s.live = true, false
	}
	return s
}

// invalid reports whether an entry is absent because one of its tags was invalidated.
func (j *judge) invalid(h *format.Header, options []byte) bool {
	if len(options) == 0 || j.tags.last.Load() == 0 {
		return false
	}
	t := format.ReadOptions(options)
	return j.tags.invalidated(t.Tags) >= t.Since(h.Revision) && len(t.Tags) > 0
}

// invalidated returns the revision at which the latest of the tags was invalidated, or 0.
func (j *judge) invalidated(tags format.Tags) uint64 { return j.tags.invalidated(tags) }
