package engine

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/store"
)

// namespace is what all handles of one bucket share. There is one while the bucket exists, or while the file has its name: whoever may
// have left neither true calls Engine.lapse. Then it is gone, and handles
// that still point at it look for the one that has come in its place, if there is one.
type namespace struct {
	name string
	sum  uint32 // the name's part of every checksum

	// gone says that Engine.buckets has it no more. It is set while turn is held exclusively, and then for good: nobody
	// brings the bucket into being in a namespace that is gone.
	gone atomic.Bool

	// turn is held shared by each write from before it resolves the id until it is committed, and
	// exclusively by what changes the id: the first write, Replace and dropVacant.
	turn sync.RWMutex
	id   atomic.Uint64 // 0 while the bucket does not exist; changed by Engine.point

	// filed is the id that the file has, as of the last commit. It differs from id while a change of that is on its way: in
	// either direction, because the write that changes id may be waiting while a commit takes it into the file.
	filed atomic.Uint64
}

// namespaceOverhead is what a bucket costs in memory besides its name: the namespace, its share of the tables by name and by id,
// its counts as of the last commit, and the rounding of the allocator.
const namespaceOverhead = 256

func newNamespace(name string) *namespace { return &namespace{name: name, sum: format.BucketSum(name)} }

func (ns *namespace) bytes() int64 { return int64(len(ns.name)) + namespaceOverhead }

// namespace returns the shared state of a bucket, or nil if there is none.
func (e *Engine) namespace(name string) *namespace {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.buckets[name]
}

// ensureNamespace returns the shared state of a bucket and makes it if it is absent. It may be gone by the time that the caller
// has the turn; then it is to be asked for anew.
func (e *Engine) ensureNamespace(name string) *namespace {
	if ns := e.namespace(name); ns != nil {
		return ns
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ensureLocked(name)
}

// ensureLocked is ensureNamespace for a caller who has mu locked.
func (e *Engine) ensureLocked(name string) *namespace {
	ns := e.buckets[name]
	if ns == nil {
		ns = newNamespace(strings.Clone(name)) // which may be part of something large
		e.buckets[ns.name] = ns
		e.mostBuckets = max(e.mostBuckets, len(e.buckets))
		e.memory.AddNames(ns.bytes())
	}
	return ns
}

// point has a bucket point at another id; 0 is none. The caller has its turn exclusively, or nobody else has the engine yet.
func (e *Engine) point(ns *namespace, id uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old := ns.id.Load(); old != 0 && e.byID[old] == ns {
		delete(e.byID, old)
	}
	if id != 0 {
		e.byID[id] = ns
	}
	ns.id.Store(id)
}

// named notes which id a bucket's name has in the file, or that it has none there.
func (e *Engine) named(name string, id uint64) {
	e.mu.Lock()
	ns := e.buckets[name]
	if ns == nil && id != 0 {
		ns = e.ensureLocked(name)
	}
	if ns != nil {
		ns.filed.Store(id)
	}
	e.mu.Unlock()
	if ns != nil {
		e.lapse(ns)
	}
}

// filed returns the id that the file has for a name, or 0.
func (e *Engine) filed(name string) uint64 {
	if ns := e.namespace(name); ns != nil {
		return ns.filed.Load()
	}
	return 0
}

// lapse lets go of the shared state of a bucket that there is no more, neither here nor in the file, if nobody uses it. Who holds
// the turn meanwhile, and leaves the bucket without an id, calls lapse when he has let go of it.
func (e *Engine) lapse(ns *namespace) {
	if !ns.idle() {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.buckets[ns.name] != ns || !ns.turn.TryLock() {
		return
	}
	defer ns.turn.Unlock()
	if !ns.idle() {
		return
	}
	ns.gone.Store(true)
	delete(e.buckets, ns.name)
	e.memory.AddNames(-ns.bytes())
	e.shrinkBuckets()
}

// idle reports whether nothing is known of the bucket that would have to be kept.
func (ns *namespace) idle() bool {
	return ns.id.Load() == 0 && ns.filed.Load() == 0
}

// shrinkBuckets makes the tables of buckets anew when few are left of many: a map keeps the room that it once needed.
func (e *Engine) shrinkBuckets() {
	const least = 1024
	if e.mostBuckets < least || len(e.buckets) > e.mostBuckets/4 {
		return
	}
	buckets, byID := make(map[string]*namespace, len(e.buckets)), make(map[uint64]*namespace, len(e.byID))
	for name, ns := range e.buckets {
		buckets[name] = ns
	}
	for id, ns := range e.byID {
		byID[id] = ns
	}
	e.buckets, e.byID, e.mostBuckets = buckets, byID, len(buckets)
}

// nameOf returns the name of the bucket that has the id now, or nothing.
func (e *Engine) nameOf(id uint64) string {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if ns := e.byID[id]; ns != nil {
		return ns.name
	}
	return ""
}

// enter takes a turn of a bucket: shared, and returns its id, or exclusive, and returns 0, if the bucket does not exist. The
// namespace is not gone. Who had it exclusively, and does not bring the bucket into being, calls lapse after he has let go.
func (e *Engine) enter(name string, ns *namespace) (_ *namespace, id uint64) {
	for {
		if ns == nil || ns.gone.Load() {
			ns = e.ensureNamespace(name)
		}
		ns.turn.RLock()
		if id = ns.id.Load(); id != 0 {
			return ns, id
		}
		ns.turn.RUnlock()
		ns.turn.Lock()
		if ns.id.Load() == 0 && !ns.gone.Load() {
			return ns, 0
		}
		// Somebody was quicker. The turn is not handed down in one step, so the bucket may be gone by then.
		ns.turn.Unlock()
	}
}

// bucketIDs returns the ids of all buckets by their names.
func (e *Engine) bucketIDs() map[string]uint64 {
	e.mu.RLock()
	defer e.mu.RUnlock()
	ids := make(map[string]uint64, len(e.buckets))
	for name, ns := range e.buckets {
		if id := ns.id.Load(); id != 0 {
			ids[name] = id
		}
	}
	return ids
}

// nextID gives out a bucket id. Ids are never used twice, not even if the write that wanted one fails.
func (e *Engine) nextID() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lastID++
	return e.lastID
}

// BucketNames returns the names of all buckets in byte order.
func (e *Engine) BucketNames() ([]string, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return slices.Sorted(func(yield func(string) bool) {
		for name, ns := range maps.All(e.buckets) {
			if ns.id.Load() != 0 && !yield(name) {
				return
			}
		}
	}), nil
}

// AwaitFirst waits for the write that brings a bucket into being, if it is under way: what it has published nobody finds
// before it is done.
func (e *Engine) AwaitFirst(at *Ref) {
	if ns := e.find(at); ns != nil && ns.id.Load() == 0 {
		ns.turn.RLock()
		ns.turn.RUnlock() //lint:ignore SA2001 who had it exclusively has let go
		e.lapse(ns)
	}
}

// Replace lets the name of an existing bucket point at another id, or at none if it is to be dropped, and hands the entries of the old
// one to the sweeper. It reports whether there was such a bucket.
func (e *Engine) Replace(name string, drop bool) (found bool, err error) {
	// What was loaded is void before the look: a load that is about to bring the bucket into being either finds itself void, or is
	// waited for by the turn.
	e.conf.Listener.Cleared(name)
	ns := e.namespace(name)
	if ns == nil {
		return false, nil
	}
	defer e.lapse(ns)
	ns.turn.Lock()
	defer ns.turn.Unlock()
	defer e.conf.Listener.Cleared(name)
	old := ns.id.Load()
	if old == 0 {
		return false, nil
	}
	id := uint64(0)
	if !drop {
		id = e.nextID()
	}
	err = e.writer.write([]store.NameOp{{Name: ns.name, ID: id, Old: old}})
	if err == nil || errors.Is(err, errs.ErrUnknownOutcome) {
		e.point(ns, id)
	}
	return err == nil, err
}

// idOf returns the id of the bucket that has the name now, or 0.
func (e *Engine) idOf(name string) uint64 {
	if ns := e.namespace(name); ns != nil {
		return ns.id.Load()
	}
	return 0
}
