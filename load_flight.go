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

// flight is one load of one key, for which any number of callers wait.
//
// It is not x/sync's singleflight because a write must be able to void a flight in the same step in which it
// becomes visible, a caller must be able to leave without the rest, and a loader's panic must be an error for
// all who wait and not the end of the process, which is what singleflight makes of it.
type flight struct {
	b     *Bucket
	key   string
	start uint64         // the last revision before it: what it brings may be older than anything later
	stale engine.Reading // what was there when it began
	began time.Time

	caller context.Context // of the request that began it, to tell whether the loader failed because that has ended
	run    *run            // of the loader that is to bring it

	// claimed says that somebody is about to land it: what else may still come for it is dropped.
	claimed atomic.Bool

	// void says that the key was written or removed since the flight began, so that it must store nothing. Writes set
	// it, and the flight's own write looks at it, while the key's shard is locked.
	void atomic.Bool

	over atomic.Bool   // what follows is set
	done chan struct{} // closed after that; belongs to the bubble of testing/synctest in which the flight began, if it is one
	value,
	options []byte
	header  format.Header
	err     error
	verdict      // of err
	quicker bool // what it has is not the loader's: somebody else has written it, or failed, since the flight was asked for
}

// flights are the loads of a cache that are under way. The zero value is ready for use.
type flights struct {
	n   atomic.Int32 // how many, so that writes need not lock to find that there are none
	mu  sync.RWMutex // protects what follows
	all map[entryID]*flight
}

// board returns the flight of a key that is under way, or begins one, which is then the caller's own to let
// run and land.
func (f *flight) board() (*flight, bool) {
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
	// From here on every write voids the flight. What was written before has a revision up to this one.
	f.start = f.b.db.engine.Revision()
	return f, true
}

func (f *flight) id() entryID { return entryID{f.b.at.Name, f.key} }

// underWay reports whether the key is being loaded.
func (f *flight) underWay() bool { return f.b.db.loads.flights.find(f.id()) != nil }

// landed reports whether what it brought, or did not, is there.
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

// void takes the flight of a key out of the table: what it brings is not to be stored, and those who come
// from now on are not to wait for it. own is that of a flight that is not meant.
func (fs *flights) void(bucket, key string, own *atomic.Bool) {
	f := fs.find(entryID{bucket, key})
	if f == nil || &f.void == own {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.remove(f)
}

// voidPrefix voids the flights of all keys of a bucket that begin with prefix.
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

// voidFlights voids the loads of keys that are about to be removed. Void loads before looking: a write voids the load of
// its key, but there is no write where a key is absent. The look then finds what a load has stored before, and a load
// that stores later finds itself void.
func (b *Bucket) voidFlights(keys ...string) {
	defer func() {
		for _, key := range keys {
			b.db.loads.failures.Forget(b.at.Name, key)
		}
	}()
	for _, key := range keys {
		b.db.loads.flights.void(b.at.Name, key, nil)
	}
	b.db.engine.AwaitFirst(&b.at)
}

// voidFlightsOf is voidFlights for all keys that begin with prefix.
func (b *Bucket) voidFlightsOf(prefix string) {
	defer b.db.loads.failures.ForgetPrefix(b.at.Name, prefix)
	b.db.loads.flights.voidPrefix(b.at.Name, prefix)
	b.db.engine.AwaitFirst(&b.at)
}

func (fs *flights) remove(f *flight) {
	f.void.Store(true)
	if fs.all[f.id()] == f {
		delete(fs.all, f.id())
		fs.n.Add(-1)
	}
}

// arrive takes a flight that is over out of the table and lets go of those who wait. failed is a failure that is to be
// remembered, if any: not if a write has voided the flight.
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

// encode encodes a value that was loaded, also one that is too large to be stored, which unfit says. It may run code of the value's type.
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

// superseded lands a flight at once if another one, or a write, was quicker: the key was looked at before this one began. A write that
// brings the bucket into being may have come before the flight and not be found yet.
func (f *flight) superseded(o *LoadOptions) bool {
	f.b.db.engine.AwaitFirst(&f.b.at)
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
