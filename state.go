package keepcache

import "github.com/keepcache/keepcache/internal/format"

// state is what an entry is at a moment.
type state struct {
	fresh    bool // its deadline has not been reached
	live     bool // every operation sees it
	held     bool // it is live, stale or negative: GetOrLoad sees it. Not if a tag of it was invalidated
	negative bool
}

// stateOf judges an entry by its times and its options, as of now.
func (db *DB) stateOf(h *format.Header, options []byte) state {
	now := int64(0)
	if h.FreshUntil != format.Never {
		now = db.clock.At(h.FreshUntil, h.GoneAt)
	}
	s := timely(now, h)
	if len(options) > 0 && s.held {
		s = db.regard(s, h, options)
	}
	return s
}

// timely judges an entry by its times alone.
func timely(now int64, h *format.Header) state {
	fresh := now < h.FreshUntil
	return state{fresh: fresh, live: fresh, held: now < h.GoneAt}
}

// regard returns the state of an entry that is held as far as its times say, with regard to its options.
func (db *DB) regard(s state, h *format.Header, options []byte) state {
	t := format.ReadOptions(options)
	if db.tags.invalidated(t.Tags) >= t.Since(h.Revision) && len(t.Tags) > 0 {
		return state{fresh: s.fresh}
	}
	if t.Negative {
		s.negative, s.live = true, false
	}
	return s
}
