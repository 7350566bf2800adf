package keepcache

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/keepcache/keepcache/internal/errs"
)

// mostNested bounds how deep loads may nest: a loader that asks for a key whose loader asks for another one, and so on without
// end, would take all memory.
const mostNested = 1000

// rings knows which runs of loaders wait for which flights, in all DBs of the process: who waits within a loader enters
// that here, and finds whether it would close a ring. One lock is enough, because only loaders that load take it.
var rings struct{ mu sync.Mutex }

// errCycle is ErrLoadCycle with the keys of the ring, or of the first and last of a chain that is too long.
func errCycle(keys []string) error {
	const most = 8
	for i, key := range keys {
		keys[i] = errs.Quote(key)
	}
	if len(keys) > most {
		keys = append(append(keys[:most/2:most/2], "..."), keys[len(keys)-most/2:]...)
	}
	return fmt.Errorf("%w: %s", ErrLoadCycle, strings.Join(keys, " waits for "))
}

// canNest returns an error if a request with that ctx may not begin another load, because it is nested too deep.
func canNest(ctx context.Context, key string) error {
	if r := runOf(ctx); r != nil && r.depth >= mostNested {
		return fmt.Errorf("%w: more than %d loads are nested, the last one for %s", ErrLoadCycle, mostNested, errs.Quote(key))
	}
	return nil
}

// await enters that the loader of r is about to wait for a flight. The error is ErrLoadCycle if that one waits for r already.
func (r *run) await(f *flight) error {
	rings.mu.Lock()
	defer rings.mu.Unlock()
	if ring := r.ringBy(f); ring != nil {
		return errCycle(ring)
	}
	r.waits = append(r.waits, f)
	return nil
}

// leave takes back what await entered.
func (r *run) leave(f *flight) {
	rings.mu.Lock()
	defer rings.mu.Unlock()
	for i, w := range r.waits {
		if w == f {
			last := len(r.waits) - 1
			r.waits[i], r.waits[last] = r.waits[last], nil
			r.waits = r.waits[:last]
			return
		}
	}
}

// ringBy returns the keys of the ring that would close if r waited for f, or nil. The caller holds rings.mu.
func (r *run) ringBy(f *flight) []string {
	if f.run != r && len(f.run.waits) == 0 {
		return nil
	}
	from := map[*flight]*flight{f: nil} // by which flight each was reached
	for next := []*flight{f}; len(next) > 0; {
		at := next[len(next)-1]
		next = next[:len(next)-1]
		if at.run == r {
			keys := []string{at.key}
			for ; at != nil; at = from[at] {
				keys = append(keys, at.key)
			}
			// They were walked backwards.
			for i, j := 1, len(keys)-1; i < j; i, j = i+1, j-1 {
				keys[i], keys[j] = keys[j], keys[i]
			}
			return keys
		}
		for _, w := range at.run.waits {
			if _, seen := from[w]; !seen && !w.landed() {
				from[w] = at
				next = append(next, w)
			}
		}
	}
	return nil
}
