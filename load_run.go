package keepcache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/foreign"
)

// run is one run of a loader, for one flight or, in GetOrLoadMany, for several. The loader's context carries it. So it
// is known who waits when a loader asks for other keys.
type run struct {
	b       *Bucket
	flights []*flight // to be landed; set before the loader begins
	depth   int       // how many runs it is nested in
	waits   []*flight // for which the loader waits; protected by rings.mu

	free       func()        // releases its slot; called once
	background bool          // nobody waits for it
	refreshed  chan struct{} // closed when EventRefresh was sent for its flights; nil if nobody listens
	noRoom     atomic.Bool   // a result could not be stored because there was no room

	mu        sync.Mutex // protects what follows
	returned  bool       // the loader
	abandoned bool       // its flights landed before that
}

// starter runs a loader for the flights of r and lands them. request is the context of the request.
type starter = func(request context.Context, r *run)

// newRun returns a run for a request with the given context.
func (b *Bucket) newRun(ctx context.Context) *run {
	r := &run{b: b, free: func() {}}
	if outer := runOf(ctx); outer != nil {
		r.depth = outer.depth + 1
	}
	return r
}

// launch starts r in a goroutine of its own. Its flights have been registered by join. After Close it lands them
// instead.
func (r *run) launch(request context.Context, start starter) {
	begun := r.b.db.loads.begin(func() {
		defer r.free()
		start(request, r)
	})
	if begun {
		return
	}
	r.free()
	for _, f := range r.flights {
		if f.claim() {
			f.land(nil, ErrClosed, nil, new(laterEvents))
		}
	}
}

// watch returns the context for a loader that is about to run, and arranges that its flights land when its time is
// over. The caller calls the returned function when the loader has returned; it may call it more than once.
func (r *run) watch(request context.Context, o *LoadOptions) (context.Context, func()) {
	l := r.b.db.loads
	ctx := loadContext{l.ctx, request, r}
	stop := context.AfterFunc(l.ctx, func() { // nobody waits longer than Close
		time.AfterFunc(closeGrace, func() { r.abandon(o, ErrClosed) })
	})
	if o.LoadTimeout < 0 {
		return ctx, sync.OnceFunc(func() { stop(); r.ended() })
	}
	late := fmt.Errorf("the load was given up after %v: %w", o.LoadTimeout, context.DeadlineExceeded)
	limited, cancel := context.WithTimeoutCause(l.ctx, o.LoadTimeout, late)
	ctx.Context = limited
	timer := time.AfterFunc(o.LoadTimeout, func() {
		if !l.begin(func() { r.abandon(o, late) }) {
			r.abandon(o, ErrClosed)
		}
	})
	return ctx, sync.OnceFunc(func() { timer.Stop(); stop(); cancel(); r.ended() })
}

// abandon lands, with err, the flights for which the loader has brought nothing yet. The loader may go on, but nobody
// uses what it returns.
func (r *run) abandon(o *LoadOptions, err error) {
	var late []*flight
	for _, f := range r.flights {
		if f.claim() {
			late = append(late, f)
		}
	}
	if len(late) == 0 {
		return
	}
	counts := &r.b.db.counts.loadCounters
	r.mu.Lock()
	if !r.returned {
		r.abandoned = true
		counts.abandoned.Add(1)
		if r.background {
			r.b.db.loads.stuck.Add(1)
		}
	}
	r.mu.Unlock()
	r.free()
	var told laterEvents
	for _, f := range late {
		if errors.Is(err, ErrClosed) {
			f.land(nil, err, nil, &told)
			continue
		}
		f.finish(f.newLoad(o), o, lateAnswer(err), &told)
	}
	r.send(told)
}

// lateAnswer is the answer of a loader that ran for longer than LoadTimeout. err is the cause in its context.
func lateAnswer(err error) answer {
	return answer{err: err, verdict: verdict{lasting: true, timedOut: true, text: err.Error()}}
}

// ended notes that the loader has returned.
func (r *run) ended() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.returned = true
	if r.abandoned {
		r.b.db.counts.abandoned.Add(-1)
		if r.background {
			r.b.db.loads.stuck.Add(-1)
		}
	}
}

// loadOne runs a loader for one flight and lands it.
func (r *run) loadOne(request context.Context, o *LoadOptions, load Loader) {
	f := r.flights[0]
	if f.superseded(o) {
		return
	}
	ctx, end := r.watch(request, o)
	defer end()
	l := f.newLoad(o)
	var a answer
	r.contain(&a, func() {
		value, err := load(ctx, l)
		if err == nil && !l.NotModified {
			a.encoded, a.unfit, err = r.b.encode(value)
		}
		a.judge(ctx, f, err)
	}, func() {
		end()
		var told laterEvents
		if f.claim() {
			f.finish(l, o, a, &told)
		} else {
			f.drop(&a)
		}
		r.send(told)
	})
}

// answer is what a loader returned for one flight.
type answer struct {
	encoded []byte // the value
	unfit   error  // why the value cannot be stored; those who wait get it all the same
	err     error
	verdict
}

// verdict is what a loader's error says. The error's methods are user code, so they are called once, in judge.
type verdict struct {
	notFound   bool   // it is ErrNotFound
	callerGone bool   // the context of the caller who began the load has ended, which does not concern others
	closing    bool   // the cache is being closed
	timedOut   bool   // the load ran for longer than LoadTimeout
	lasting    bool   // the source failed: the error is remembered
	text       string // of the error
}

// judge sets a.err and the verdict on it. err may be nil. It calls methods of the error and of the caller's context,
// which are user code, so it must run within contain.
func (a *answer) judge(ctx context.Context, f *flight, err error) {
	if a.err = err; err == nil {
		return
	}
	caller, closed := f.caller.Err(), f.b.db.loads.ctx.Err() != nil
	if over := ctx.Err(); over == context.DeadlineExceeded && errors.Is(err, over) {
		// The loader heeded its context. The timer that abandons the load does the same, and it does not matter which is
		// quicker.
		*a = lateAnswer(context.Cause(ctx))
		a.lasting = !closed
		return
	}
	a.notFound = errors.Is(err, ErrNotFound)
	a.closing = closed && errors.Is(err, context.Canceled)
	a.callerGone = ctx.Err() == nil && caller != nil && errors.Is(err, caller)
	a.lasting = !closed && !a.notFound && !a.callerGone && !errors.Is(err, ErrLoadCycle) && !errors.Is(err, ErrClosed)
	if a.lasting {
		a.text = err.Error()
	}
}

// contain runs fn, which fills in a, and then land. If fn panics or ends its goroutine, a is an error.
func (r *run) contain(a *answer, fn, land func()) {
	returned := false
	defer func() {
		if returned {
			return
		}
		*a = answer{err: errGoexit}
		var panicked *PanicError
		if v := recover(); v != nil {
			panicked = newPanicError(v, debug.Stack())
			a.err = panicked
		}
		a.verdict = verdict{lasting: true, text: a.err.Error()}
		land()
		if panicked != nil {
			r.b.db.options.Logger.Error("keepcache: a loader panicked", "bucket", r.b.at.Name, "key",
				errs.Quote(r.flights[0].key),
				"panic", panicked.text, "stack", string(panicked.Stack))
		}
	}()
	fn()
	returned = true
	land()
}

// PanicError is the error of a load whose loader panicked, or a method of the value that it returned. Its text does not
// have the stack.
type PanicError struct {
	Value any    // what the loader panicked with; errors.Is does not look into it
	Stack []byte // of the goroutine, from runtime/debug.Stack; must not be changed. Options.Logger gets it too

	text string
}

// Error returns a text that has the value of the panic.
func (e *PanicError) Error() string { return "the loader panicked: " + e.text }

// newPanicError formats v, which may run user code that panics or ends its goroutine in turn.
func newPanicError(v any, stack []byte) *PanicError {
	e := &PanicError{Value: v, Stack: stack, text: "a value that cannot be printed"}
	foreign.Apart(func() { e.text = cutText(fmt.Sprint(v), maxErrorText) })
	return e
}

// loadContext is the context of a loader. It has the values of the request, and ends when the DB is closed or the
// loader's time is over.
type loadContext struct {
	context.Context
	values context.Context
	run    *run
}

// runKey is the key of a run in its loader's context.
type runKey struct{}

func (c loadContext) Value(key any) any {
	if key == (runKey{}) {
		return c.run
	}
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.values.Value(key)
}

// runOf returns the run whose loader got ctx, or nil.
func runOf(ctx context.Context) *run {
	r, _ := ctx.Value(runKey{}).(*run)
	return r
}

// refresh starts r in the background, for those of the flights whose keys are not being loaded already.
func (b *Bucket) refresh(ctx context.Context, r *run, fs []*flight, start starter) {
	l := b.db.loads
	if r.depth > maxNested {
		return
	}
	free := l.stuck.Load() < maxStuck
	if free {
		select {
		case l.slots <- struct{}{}:
		default:
			free = false
		}
	}
	if !free {
		for _, f := range fs {
			if !f.underWay() {
				b.db.counts.refreshesSkipped.Add(1)
			}
		}
		return
	}
	for _, f := range fs {
		f.run = r
		if f, mine := f.join(); mine {
			r.flights = append(r.flights, f)
		}
	}
	if len(r.flights) == 0 {
		<-l.slots
		return
	}
	r.free, r.background = sync.OnceFunc(func() { <-l.slots }), true
	r.launch(ctx, func(ctx context.Context, r *run) {
		b.db.counts.refreshes.Add(uint64(len(r.flights)))
		r.tellRefresh()
		start(ctx, r)
		if r.refreshed != nil {
			<-r.refreshed // the slot of the load is kept until the handler returns
		}
	})
}

// tellRefresh reports that r has begun. It does so in a goroutine of its own, because a handler may wait for the load.
func (r *run) tellRefresh() {
	events := r.b.db.events
	if !events.wants(EventRefresh) {
		return
	}
	told, keys := make(chan struct{}), make([]string, len(r.flights)) // start may remove flights
	for i, f := range r.flights {
		keys[i] = f.key
	}
	r.refreshed = told
	begun := r.b.db.loads.begin(func() {
		defer close(told)
		for _, key := range keys {
			events.tell(Event{Kind: EventRefresh, Bucket: r.b.at.Name, Key: key})
		}
	})
	if !begun { // the cache is being closed
		close(told)
	}
}

// laterEvents are events that are sent when all flights of their run have landed: a handler may ask for their keys, and
// may take its time.
type laterEvents []Event

// send sends them, after EventRefresh.
func (r *run) send(told laterEvents) {
	if len(told) == 0 {
		return
	}
	if r.refreshed != nil {
		<-r.refreshed
	}
	for _, e := range told {
		r.b.db.events.tell(e)
	}
}
