package keepcache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// flight is one load of one key, for which any number of callers wait.
//
// It is not x/sync's singleflight because a write must be able to void a flight in the same step in which it
// becomes visible, a caller must be able to leave without the rest, and a loader's panic must be an error for
// all who wait and not the end of the process, which is what singleflight makes of it.
type flight struct {
	b     *Bucket
	ns    *namespace
	key   string
	start uint64  // the last revision before it: what it brings may be older than anything later
	stale reading // what was there when it began
	began time.Time

	caller  context.Context // of the request that began it, to tell whether the loader failed because that has ended
	strange bool            // it did, which is no matter of others who wait

	// void says that the key was written or removed since the flight began, so that it must store nothing. Writes set
	// it, and the flight's own write looks at it, while the key's shard is locked.
	void atomic.Bool

	done chan struct{} // closed when what follows is set
	value,
	options []byte
	header  header
	err     error
	quicker bool  // the value is not the loader's: somebody else has written it since the flight was asked for
	unfit   error // why what it brought cannot be stored; it is handed to those who wait all the same
}

// flights are the loads of a bucket that are under way. The zero value is ready for use.
type flights struct {
	n     atomic.Int32 // how many, so that writes need not lock to find that there are none
	mu    sync.Mutex   // protects what follows
	byKey map[string]*flight
}

// board returns the flight of a key that is under way, or begins one, which is then the caller's own to let
// run and land.
func (b *Bucket) board(ctx context.Context, key string, r reading) (f *flight, own bool) {
	f = &flight{b: b, key: key, stale: r, caller: ctx}
	return f.board()
}

func (f *flight) board() (*flight, bool) {
	fs := f.lockFlights()
	if there := fs.byKey[f.key]; there != nil {
		fs.mu.Unlock()
		return there, false
	}
	if fs.byKey == nil {
		fs.byKey = make(map[string]*flight)
	}
	f.done = make(chan struct{})
	fs.byKey[f.key] = f
	fs.n.Add(1)
	fs.mu.Unlock()
	// From here on every write voids the flight. What was written before has a revision up to this one.
	f.start = f.b.db.revision()
	f.began = time.Now()
	return f, true
}

// lockFlights finds the namespace of the flight's bucket, or makes it, and returns its flights, locked. A flight in the table keeps
// the namespace from going.
func (f *flight) lockFlights() *flights {
	for {
		if f.ns = f.b.namespace(); f.ns == nil {
			f.ns = f.b.db.ensureNamespace(f.b.name)
		}
		f.ns.flights.mu.Lock()
		if !f.ns.gone.Load() {
			return &f.ns.flights
		}
		f.ns.flights.mu.Unlock()
	}
}

// void takes the flight of a key out of the table: what it brings is not to be stored, and those who come
// from now on are not to wait for it. own is a flight that is not meant.
func (fs *flights) void(key string, own *flight) {
	if fs.n.Load() == 0 {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.byKey[key]; f != nil && f != own {
		fs.remove(f)
	}
}

// voidPrefix voids the flights of all keys that begin with prefix.
func (fs *flights) voidPrefix(prefix string) {
	if fs.n.Load() == 0 {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for key, f := range fs.byKey {
		if strings.HasPrefix(key, prefix) {
			fs.remove(f)
		}
	}
}

// voidFlights voids the loads of keys that are about to be removed. Void loads before looking: a write voids the load of
// its key, but there is no write where a key is absent. The look then finds what a load has stored before, and a load
// that stores later finds itself void.
func (b *Bucket) voidFlights(keys ...string) {
	if ns := b.namespace(); ns != nil {
		for _, key := range keys {
			ns.flights.void(key, nil)
		}
		b.db.awaitFirst(ns)
	}
}

// voidFlightsOf is voidFlights for all keys that begin with prefix.
func (b *Bucket) voidFlightsOf(prefix string) {
	if ns := b.namespace(); ns != nil {
		ns.flights.voidPrefix(prefix)
		b.db.awaitFirst(ns)
	}
}

// awaitFirst waits for the write that brings the bucket into being, if it is under way: what it has published nobody finds
// before it is done.
func (db *DB) awaitFirst(ns *namespace) {
	if ns.id.Load() == 0 {
		ns.turn.RLock()
		ns.turn.RUnlock() //lint:ignore SA2001 who had it exclusively has let go
		db.lapse(ns)
	}
}

func (fs *flights) remove(f *flight) {
	f.void.Store(true)
	if fs.byKey[f.key] == f {
		delete(fs.byKey, f.key)
		fs.n.Add(-1)
	}
}

// arrive takes a flight that is over out of the table and lets go of those who wait.
func (f *flight) arrive() {
	f.ns.flights.mu.Lock()
	f.ns.flights.remove(f)
	f.ns.flights.mu.Unlock()
	f.b.db.lapse(f.ns)
	close(f.done)
}

// loads is what all loads of a DB share.
type loads struct {
	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	slots chan struct{} // holds a token for each background load

	mu     sync.Mutex // protects what follows
	closed bool
	n      int           // loads that are under way; no WaitGroup, which must not be used inside and outside of a bubble
	over   chan struct{} // closed when the last of them has ended after close
}

const (
	// backgroundLoads bounds the loads for which nobody waits. One that finds no room is not lost: the next
	// request for the key begins it.
	backgroundLoads = 64

	// closeGrace is how long Close waits for loaders that do not heed the end of their ctx.
	closeGrace = 5 * time.Second
)

func newLoads() *loads {
	l := &loads{slots: make(chan struct{}, backgroundLoads), over: make(chan struct{})}
	l.ctx, l.stop = newContext()
	return l
}

// begin runs fn in a goroutine of its own, and reports false after close. What a handler of events begins is told of as
// what the handler does itself.
func (l *loads) begin(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.n++
	inherits := inHandler()
	go func() {
		defer l.end()
		if inherits {
			forHandler(fn)
		} else {
			fn()
		}
	}()
	return true
}

// end counts a load as ended.
func (l *loads) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n--; l.n == 0 && l.closed {
		close(l.over)
	}
}

// close ends the loads and waits for them, but not for ever.
func (l *loads) close() {
	l.mu.Lock()
	l.closed = true
	idle := l.n == 0
	l.mu.Unlock()
	l.stop()
	if idle {
		return
	}
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-l.over:
	case <-timer.C:
	}
}

// loadContext has the values of a request and the end of the DB.
type loadContext struct {
	context.Context
	values context.Context
}

func (c loadContext) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.values.Value(key)
}

func (l *loads) ctxOf(request context.Context) context.Context { return loadContext{l.ctx, request} }

// refresh begins flights in the background, as far as they are not under way already.
func (b *Bucket) refresh(ctx context.Context, fs []*flight, start func(context.Context, []*flight)) {
	l := b.db.loads
	select {
	case l.slots <- struct{}{}:
	default:
		return
	}
	own := fs[:0]
	for _, f := range fs {
		if f, mine := f.board(); mine {
			own = append(own, f)
		}
	}
	if len(own) == 0 {
		<-l.slots
		return
	}
	begun := l.begin(func() {
		defer func() { <-l.slots }()
		b.db.counts.refreshes.Add(uint64(len(own)))
		for _, f := range own {
			b.db.events.tell(Event{Kind: EventRefresh, Bucket: b.name, Key: f.key})
		}
		start(l.ctxOf(ctx), own)
	})
	if !begun {
		<-l.slots
		for _, f := range own {
			f.land(nil, ErrClosed)
		}
	}
}

// run lets the loader run for a flight, and lands it.
func (f *flight) run(ctx context.Context, o *LoadOptions, load Loader) {
	if f.superseded() {
		return
	}
	l := f.newLoad(o)
	var encoded []byte
	err := contain(func() error {
		value, err := load(ctx, l)
		if err == nil && !l.NotModified {
			encoded, err = f.encode(value)
		}
		return err
	}, func(err error) { f.finish(l, o, nil, err) })
	f.finish(l, o, encoded, err)
}

// encode encodes a value that was loaded, also one that is too large to be stored. It may run code of the value's type.
func (f *flight) encode(value any) ([]byte, error) {
	encoded, err := appendValue(nil, value, f.b.db.options.MaxValueBytes)
	if errors.Is(err, ErrTooLarge) {
		f.unfit = err
		encoded, err = appendValue(nil, value, math.MaxInt32)
	}
	return encoded, err
}

func (f *flight) newLoad(o *LoadOptions) *Load {
	l := &Load{Key: f.key, TTL: o.TTL, StaleFor: o.StaleFor, Tags: f.b.tags.strings()}
	if r := &f.stale; r.held && !r.negative {
		l.Old, l.Found = r.entry(f.key), true
	}
	return l
}

// superseded lands a flight at once if another one, or a write, was quicker: the key was looked at before this one began. A write that
// brings the bucket into being may have come before the flight and not be found yet.
func (f *flight) superseded() bool {
	f.b.db.awaitFirst(f.ns)
	r, err := f.b.read(f.key)
	if err != nil || r.header.revision == f.stale.header.revision {
		return false
	}
	f.stale = r
	switch {
	case r.live:
		f.value, f.header, f.options = r.value, r.header, r.options
		f.quicker = true
	case r.held && r.negative:
		f.err = ErrNotFound
	case r.held && readTraits(r.options).retry > millis(f.b.db.clock.now()):
		f.err = errFailedLately
	default:
		return false
	}
	f.arrive()
	return true
}

// contain runs fn and turns a panic in it into an error. exit is called instead if fn ends the goroutine.
func contain(fn func() error, exit func(error)) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil {
			err = fmt.Errorf("the loader panicked: %v\n%s", v, debug.Stack())
			return
		}
		exit(errGoexit)
	}()
	err = fn()
	returned = true
	return err
}
