package keepcache

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/failures"
	"github.com/keepcache/keepcache/internal/format"
)

// flight is one load of one key. Any number of callers may wait for it.
//
// It is not the singleflight of x/sync. A write must be able to void a flight in the same step in which the write
// becomes visible. A caller must be able to leave while others wait. And a panic of a loader must be an error for all
// who wait; singleflight ends the process.
type flight struct {
	b     *Bucket
	key   string
	start uint64         // the last revision before it; the result may be older than anything later
	stale engine.Reading // what was there when it began
	began time.Time

	caller context.Context // of the request that began it
	run    *run            // of the loader

	// claimed is true once somebody is about to land the flight. What comes later for it is dropped.
	claimed atomic.Bool

	// void is true if the key was written or removed since the flight began, so the flight must store nothing. Writes set
	// it, and the flight's own write checks it, while the key's shard is locked.
	void atomic.Bool

	over atomic.Bool   // the fields below are set
	done chan struct{} // closed after that; made in the bubble of testing/synctest in which the flight began, if any
	value,
	options []byte
	header  format.Header
	err     error
	verdict      // of err
	quicker bool // the result is not the loader's: somebody else wrote the key, or failed, after the request read it
}

// flights holds the loads of a cache that are under way. The zero value is ready for use.
type flights struct {
	n   atomic.Int32 // how many; writes take no lock where there are none
	mu  sync.RWMutex // protects what follows
	all map[entryID]*flight
}

// join returns the flight of f's key that is under way. If there is none, it begins f and returns it: then the caller
// must let it run and land.
func (f *flight) join() (*flight, bool) {
	fs := &f.b.db.loads.flights
	fs.mu.Lock()
	if there := fs.all[f.id()]; there != nil {
		fs.mu.Unlock()
		return there, false
	}
	if fs.all == nil {
		fs.all = make(map[entryID]*flight)
	}
	f.done = make(chan struct{})
	f.began = time.Now()
	fs.all[f.id()] = f
	fs.n.Add(1)
	fs.mu.Unlock()
	f.b.db.counts.running.Add(1)
	// From here on every write voids the flight. Earlier writes have a revision up to this one.
	f.start = f.b.db.engine.Revision()
	return f, true
}

func (f *flight) id() entryID { return entryID{f.b.at.Name, f.key} }

// underWay reports whether the key is being loaded.
func (f *flight) underWay() bool { return f.b.db.loads.flights.find(f.id()) != nil }

// landed reports whether the flight is over, so that its result can be read.
func (f *flight) landed() bool { return f.over.Load() }

// claim reports whether the caller is the one to land the flight.
func (f *flight) claim() bool { return f.claimed.CompareAndSwap(false, true) }

// find returns the flight of a key, or nil.
func (fs *flights) find(at entryID) *flight {
	if fs.n.Load() == 0 {
		return nil
	}
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	return fs.all[at]
}

// void takes the flight of a key out of the table. Its result is not stored, and later requests do not join it. own is
// the void flag of a flight that is to be spared, which is the one that writes.
func (fs *flights) void(bucket, key string, own *atomic.Bool) {
	f := fs.find(entryID{bucket, key})
	if f == nil || &f.void == own {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.remove(f)
}

// voidPrefix voids the flights of all keys in a bucket that begin with prefix.
func (fs *flights) voidPrefix(bucket, prefix string) {
	if fs.n.Load() == 0 {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for at, f := range fs.all {
		if at.bucket == bucket && strings.HasPrefix(at.key, prefix) {
			fs.remove(f)
		}
	}
}

// voidFlights voids the loads of keys that are about to be removed. It must be called before the removal reads the
// keys. A write voids the load of its key, but removing an absent key writes nothing. The read that follows finds what
// a load stored before, and a load that stores later finds itself void.
func (b *Bucket) voidFlights(keys ...string) {
	defer func() {
		for _, key := range keys {
			b.db.loads.failures.Forget(b.at.Name, key)
		}
	}()
	for _, key := range keys {
		b.db.loads.flights.void(b.at.Name, key, nil)
	}
	b.db.engine.AwaitCreation(&b.at)
}

// voidFlightsOf is voidFlights for all keys that begin with prefix.
func (b *Bucket) voidFlightsOf(prefix string) {
	defer b.db.loads.failures.ForgetPrefix(b.at.Name, prefix)
	b.db.loads.flights.voidPrefix(b.at.Name, prefix)
	b.db.engine.AwaitCreation(&b.at)
}

func (fs *flights) remove(f *flight) {
	f.void.Store(true)
	if fs.all[f.id()] == f {
		delete(fs.all, f.id())
		fs.n.Add(-1)
	}
}

// arrive removes a finished flight from the table and wakes those who wait. failed, if not nil, is remembered unless a
// write has voided the flight.
func (f *flight) arrive(failed *failures.Failure) {
	fs := &f.b.db.loads.flights
	fs.mu.Lock()
	if failed != nil && !f.void.Load() {
		f.b.db.loads.failures.Put(failed)
	}
	fs.remove(f)
	fs.mu.Unlock()
	f.b.db.counts.running.Add(-1)
	f.over.Store(true)
	close(f.done)
}

// encode encodes a loaded value, even one that is too large to be stored: then unfit says so. It may run code of the
// value's type.
func (b *Bucket) encode(value any) (encoded []byte, unfit, err error) {
	encoded, err = appendValue(nil, value, b.db.options.MaxValueBytes)
	if errors.Is(err, ErrTooLarge) {
		unfit = err
		encoded, err = appendValue(nil, value, math.MaxInt32)
	}
	return encoded, unfit, err
}

func (f *flight) newLoad(o *LoadOptions) *Load {
	l := &Load{Key: f.key, TTL: o.TTL, StaleFor: o.StaleFor, Tags: f.b.tags.Strings()}
	if r := &f.stale; r.Held && !r.Negative {
		l.Old, l.Found = entryOf(f.key, r), true
	}
	return l
}

// superseded lands a flight at once if another flight or a write was quicker: the key was read before this flight
// began. A write that creates the bucket may be older than the flight and not visible yet, so superseded waits for it.
func (f *flight) superseded(o *LoadOptions) bool {
	f.b.db.engine.AwaitCreation(&f.b.at)
	var r engine.Reading
	err := f.b.readQuietly(&r, f.key)
	if err == nil && r.Header.Revision != f.stale.Header.Revision {
		f.stale = r
		switch {
		case r.Live:
			f.value, f.header, f.options = r.Value, r.Header, r.Options
			f.quicker = true
		case r.Held && r.Negative:
			f.err, f.notFound = ErrNotFound, true
		case r.Held && o.waitsAfter(r.Options, format.Millis(f.b.db.engine.Now())):
			f.err, f.quicker = errFailedLately, true
		}
	}
	if !f.quicker && f.err == nil && !f.stale.Held {
		if f.err = f.b.failedLately(f.key, o, false); f.err != nil {
			f.quicker = true
		}
	}
	if !f.quicker && f.err == nil {
		return false
	}
	if f.claim() {
		f.arrive(nil)
	}
	return true
}
