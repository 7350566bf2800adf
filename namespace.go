package keepcache

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/keepcache/keepcache/internal/format"
)

// namespace is what all handles of one bucket share. There is one while the bucket exists, or while the file has its name: whoever may
// have left neither true calls DB.lapse. Then it is gone, and handles
// that still point at it look for the one that has come in its place, if there is one.
type namespace struct {
	name string
	sum  uint32 // the name's part of every checksum

	// gone says that db.buckets has it no more. It is set while turn is held exclusively, and then for good: nobody brings the bucket
	// into being in a namespace that is gone.
	gone atomic.Bool

	// turn is held shared by each write from before it resolves the id until it is committed, and
	// exclusively by what changes the id: the first write, Clear and DropBucket.
	turn sync.RWMutex
	id   atomic.Uint64 // 0 while the bucket does not exist; changed by DB.point

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
func (db *DB) namespace(name string) *namespace {
	db.mu.RLock()
	defer db.mu.RUnlock()
	return db.buckets[name]
}

// ensureNamespace returns the shared state of a bucket and makes it if it is absent. It may be gone by the time that the caller
// has the turn; then it is to be asked for anew.
func (db *DB) ensureNamespace(name string) *namespace {
	if ns := db.namespace(name); ns != nil {
		return ns
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.ensureLocked(name)
}

// ensureLocked is ensureNamespace for a caller who has mu locked.
func (db *DB) ensureLocked(name string) *namespace {
	ns := db.buckets[name]
	if ns == nil {
		ns = newNamespace(strings.Clone(name)) // which may be part of something large
		db.buckets[ns.name] = ns
		db.mostBuckets = max(db.mostBuckets, len(db.buckets))
		db.memory.AddNames(ns.bytes())
	}
	return ns
}

// point has a bucket point at another id; 0 is none. The caller has its turn exclusively, or nobody else has the DB yet.
func (db *DB) point(ns *namespace, id uint64) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if old := ns.id.Load(); old != 0 && db.byID[old] == ns {
		delete(db.byID, old)
	}
	if id != 0 {
		db.byID[id] = ns
	}
	ns.id.Store(id)
}

// named notes which id a bucket's name has in the file, or that it has none there.
func (db *DB) named(name string, id uint64) {
	db.mu.Lock()
	ns := db.buckets[name]
	if ns == nil && id != 0 {
		ns = db.ensureLocked(name)
	}
	if ns != nil {
		ns.filed.Store(id)
	}
	db.mu.Unlock()
	if ns != nil {
		db.lapse(ns)
	}
}

// filed returns the id that the file has for a name, or 0.
func (db *DB) filed(name string) uint64 {
	if ns := db.namespace(name); ns != nil {
		return ns.filed.Load()
	}
	return 0
}

// lapse lets go of the shared state of a bucket that there is no more, neither here nor in the file, if nobody uses it. Who holds
// the turn meanwhile, and leaves the bucket without an id, calls lapse when he has let go of it.
func (db *DB) lapse(ns *namespace) {
	if !ns.idle() {
		return
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.buckets[ns.name] != ns || !ns.turn.TryLock() {
		return
	}
	defer ns.turn.Unlock()
	if !ns.idle() {
		return
	}
	ns.gone.Store(true)
	delete(db.buckets, ns.name)
	db.memory.AddNames(-ns.bytes())
	db.shrinkBuckets()
}

// idle reports whether nothing is known of the bucket that would have to be kept.
func (ns *namespace) idle() bool {
	return ns.id.Load() == 0 && ns.filed.Load() == 0
}

// shrinkBuckets makes the tables of buckets anew when few are left of many: a map keeps the room that it once needed.
func (db *DB) shrinkBuckets() {
	const least = 1024
	if db.mostBuckets < least || len(db.buckets) > db.mostBuckets/4 {
		return
	}
	buckets, byID := make(map[string]*namespace, len(db.buckets)), make(map[uint64]*namespace, len(db.byID))
	for name, ns := range db.buckets {
		buckets[name] = ns
	}
	for id, ns := range db.byID {
		byID[id] = ns
	}
	db.buckets, db.byID, db.mostBuckets = buckets, byID, len(buckets)
}

// nameOf returns the name of the bucket that has the id now, or nothing.
func (db *DB) nameOf(id uint64) string {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if ns := db.byID[id]; ns != nil {
		return ns.name
	}
	return ""
}

// enter takes a turn of a bucket: shared, and returns its id, or exclusive, and returns 0, if the bucket does not exist. The
// namespace is not gone. Who had it exclusively, and does not bring the bucket into being, calls lapse after he has let go.
func (db *DB) enter(name string, ns *namespace) (_ *namespace, id uint64) {
	for {
		if ns == nil || ns.gone.Load() {
			ns = db.ensureNamespace(name)
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
