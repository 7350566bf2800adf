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

// namespace is the shared state of all handles of one bucket. It exists while the bucket exists or the file has its
// name. Code that may have ended both calls Engine.dropIfUnused, which marks the namespace as gone. Handles that still
// point at it then look for its replacement, if there is one.
type namespace struct {
	name string
	sum  uint32 // of the name, for the checksums of records

	// gone means that Engine.buckets no longer has the namespace. It is set while mu is held exclusively, and never reset:
	// nobody creates the bucket in a namespace that is gone.
	gone atomic.Bool

	// mu is held shared by each write from before it reads the id until it has returned. It is held exclusively by
	// whatever changes the id: the first write, Replace and dropEmpty.
	mu sync.RWMutex
	id atomic.Uint64 // 0 while the bucket does not exist; changed by Engine.setID

	// fileID is the id in the file, as of the last commit. It can be older or newer than id: a commit may bring a new id
	// into the file while the write that changes id still waits for it.
	fileID atomic.Uint64
}

// namespaceOverhead is what a bucket costs in memory besides its name: the namespace, its share of the maps by name and
// by id, its counts as of the last commit, and the allocator's rounding.
const namespaceOverhead = 256

func newNamespace(name string) *namespace { return &namespace{name: name, sum: format.BucketSum(name)} }

func (ns *namespace) bytes() int64 { return int64(len(ns.name)) + namespaceOverhead }

// namespace returns the shared state of a bucket, or nil if there is none.
func (e *Engine) namespace(name string) *namespace {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.buckets[name]
}

// ensureNamespace returns the shared state of a bucket, and creates it if necessary. By the time the caller has locked
// it, it may be gone. The caller then has to ask again.
func (e *Engine) ensureNamespace(name string) *namespace {
	if ns := e.namespace(name); ns != nil {
		return ns
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ensureLocked(name)
}

// ensureLocked is ensureNamespace for a caller that has locked mu.
func (e *Engine) ensureLocked(name string) *namespace {
	ns := e.buckets[name]
	if ns == nil {
		ns = newNamespace(strings.Clone(name)) // name may be part of a large string
		e.buckets[ns.name] = ns
		e.peakBuckets = max(e.peakBuckets, len(e.buckets))
		e.memory.AddNames(ns.bytes())
	}
	return ns
}

// setID sets the id of a bucket; 0 is none. The caller holds the bucket's mu exclusively, or nobody else uses the
// engine yet.
func (e *Engine) setID(ns *namespace, id uint64) {
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

// setFileID notes the id that a bucket has in the file; 0 is none.
func (e *Engine) setFileID(name string, id uint64) {
	e.mu.Lock()
	ns := e.buckets[name]
	if ns == nil && id != 0 {
		ns = e.ensureLocked(name)
	}
	if ns != nil {
		ns.fileID.Store(id)
	}
	e.mu.Unlock()
	if ns != nil {
		e.dropIfUnused(ns)
	}
}

// fileIDOf returns the id that the file has for a name, or 0.
func (e *Engine) fileIDOf(name string) uint64 {
	if ns := e.namespace(name); ns != nil {
		return ns.fileID.Load()
	}
	return 0
}

// dropIfUnused removes the shared state of a bucket that neither exists nor has a name in the file. It does nothing
// while somebody holds the bucket's mu: a holder that leaves the bucket without an id must call dropIfUnused after
// unlocking.
func (e *Engine) dropIfUnused(ns *namespace) {
	if !ns.unused() {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.buckets[ns.name] != ns || !ns.mu.TryLock() {
		return
	}
	defer ns.mu.Unlock()
	if !ns.unused() {
		return
	}
	ns.gone.Store(true)
	delete(e.buckets, ns.name)
	e.memory.AddNames(-ns.bytes())
	e.shrinkBuckets()
}

// unused reports whether the bucket neither exists nor has a name in the file.
func (ns *namespace) unused() bool {
	return ns.id.Load() == 0 && ns.fileID.Load() == 0
}

// shrinkBuckets copies the maps of buckets when few of many are left: a Go map never shrinks.
func (e *Engine) shrinkBuckets() {
	const least = 1024
	if e.peakBuckets < least || len(e.buckets) > e.peakBuckets/4 {
		return
	}
	buckets, byID := make(map[string]*namespace, len(e.buckets)), make(map[uint64]*namespace, len(e.byID))
	for name, ns := range e.buckets {
		buckets[name] = ns
	}
	for id, ns := range e.byID {
		byID[id] = ns
	}
	e.buckets, e.byID, e.peakBuckets = buckets, byID, len(buckets)
}

// nameOf returns the name of the bucket that has the id now, or "".
func (e *Engine) nameOf(id uint64) string {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if ns := e.byID[id]; ns != nil {
		return ns.name
	}
	return ""
}

// lockBucket locks the mu of a bucket. If the bucket exists, it locks mu shared and returns the id, otherwise it locks
// mu exclusively and returns 0. The namespace is not gone. A caller that then does not create the bucket must call
// dropIfUnused after unlocking.
func (e *Engine) lockBucket(name string, ns *namespace) (_ *namespace, id uint64) {
	for {
		if ns == nil || ns.gone.Load() {
			ns = e.ensureNamespace(name)
		}
		ns.mu.RLock()
		if id = ns.id.Load(); id != 0 {
			return ns, id
		}
		ns.mu.RUnlock()
		ns.mu.Lock()
		if ns.id.Load() == 0 && !ns.gone.Load() {
			return ns, 0
		}
		// Another write was quicker. The bucket may be gone by the next attempt, because the lock is not downgraded
		// atomically.
		ns.mu.Unlock()
	}
}

// bucketIDs returns the ids of all buckets by name.
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

// nextID assigns a bucket id. Ids are never used twice, not even if the write that needed one fails.
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

// AwaitCreation waits for the write that creates a bucket, if one is running. Nobody finds what it has published before
// it has returned.
func (e *Engine) AwaitCreation(at *Ref) {
	if ns := e.find(at); ns != nil && ns.id.Load() == 0 {
		ns.mu.RLock()
		ns.mu.RUnlock() //lint:ignore SA2001 whoever held it exclusively has released it
		e.dropIfUnused(ns)
	}
}

// Replace gives an existing bucket a new id, or none if it is to be dropped, and passes the entries of the old id to
// the sweeper. It reports whether the bucket existed.
func (e *Engine) Replace(name string, drop bool) (found bool, err error) {
	// Void loads before looking for the bucket. A load that is about to create it either finds itself void, or holds the
	// lock that the following code waits for.
	e.conf.Listener.Cleared(name)
	ns := e.namespace(name)
	if ns == nil {
		return false, nil
	}
	defer e.dropIfUnused(ns)
	ns.mu.Lock()
	defer ns.mu.Unlock()
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
		e.setID(ns, id)
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
