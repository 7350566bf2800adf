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

// run is one run of a loader, for one flight or, of GetOrLoadMany, for several. Its context carries it, so that it is known
// who waits when a loader asks for other keys.
type run struct {
	b       *Bucket
	flights []*flight // those that are to be brought; set before the loader begins
	depth   int       // how many runs it is nested in
	waits   []*flight // for which the loader waits; protected by rings.mu

	free       func()        // lets go of its slot; called once
	background bool          // nobody waits for it
	refreshed  chan struct{} // closed when EventRefresh has been told of its flights; nil where nobody wants to know
	noRoom     atomic.Bool   // what it brought for one key could not be stored for want of room

	mu        sync.Mutex // protects what follows
	returned  bool       // the loader
	abandoned bool       // its flights landed before that
}

// starter runs a loader for the flights of r and lands them. request is the context of who asks.
type starter = func(request context.Context, r *run)

// newRun returns a run that is begun by a request with that ctx.
func (b *Bucket) newRun(ctx context.Context) *run {
	r := &run{b: b, free: func() {}}
	if outer := runOf(ctx); outer != nil {
		r.depth = outer.depth + 1
	}
	return r
}

// launch begins r for its flights, which have boarded, in a goroutine of its own. After Close it lands them.
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
			f.land(nil, ErrClosed, nil, new(news))
		}
	}
}

// watch returns the context for a loader that is about to run, and sees to it that the flights land when its time is over. What
// it returns besides is to be called when the loader has returned, and may be called again.
func (r *run) watch(request context.Context, o *LoadOptions) (context.Context, func()) {
	l := r.b.db.loads
	ctx := loadContext{l.ctx, request, r}
	stop := context.AfterFunc(l.ctx, func() { // who waits does so no longer than Close
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

// abandon lands the flights for which the loader has brought nothing yet. The loader runs on, if it does, for nobody.
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
	var told news
	for _, f := range late {
		if errors.Is(err, ErrClosed) {
			f.land(nil, err, nil, &told)
			continue
		}
		f.conclude(f.newLoad(o), o, lateAnswer(err), &told)
	}
	r.tell(told)
}

// lateAnswer is that of a loader that has passed LoadTimeout. err is what its context says.
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

// one lets a loader run for one flight, and lands it.
func (r *run) one(request context.Context, o *LoadOptions, load Loader) {
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
		var told news
		if f.claim() {
			f.conclude(l, o, a, &told)
		} else {
			f.drop(&a)
		}
		r.tell(told)
	})
}

// answer is what a loader brought for one flight, or why it brought nothing.
type answer struct {
	encoded []byte // the value
	unfit   error  // why that cannot be stored; it is handed to those who wait all the same
	err     error
	verdict
}

// verdict is what there is to know of the error of a loader, whose methods are not ours and are asked once.
type verdict struct {
	notFound bool   // it says that there is no such thing
	strange  bool   // it says that the caller's ctx has ended who began the load, which is no matter of others
	closing  bool   // it says that the cache is being closed
	timedOut bool   // it says that the load has passed LoadTimeout
	lasting  bool   // it speaks of the source: it is to be remembered
	text     string // what it says
}

// judge enters an error of a loader, which may be nil. It calls methods that are not ours, of the error and of the caller's ctx, and
// so runs within contain.
func (a *answer) judge(ctx context.Context, f *flight, err error) {
	if a.err = err; err == nil {
		return
	}
	caller, closed := f.caller.Err(), f.b.db.loads.ctx.Err() != nil
	if over := ctx.Err(); over == context.DeadlineExceeded && errors.Is(err, over) {
		// It heeds its ctx, as the timer that gives the load up does: which of the two is quicker is no matter.
		*a = lateAnswer(context.Cause(ctx))
		a.lasting = !closed
		return
	}
	a.notFound = errors.Is(err, ErrNotFound)
	a.closing = closed && errors.Is(err, context.Canceled)
	a.strange = ctx.Err() == nil && caller != nil && errors.Is(err, caller)
	a.lasting = !closed && !a.notFound && !a.strange && !errors.Is(err, ErrLoadCycle) && !errors.Is(err, ErrClosed)
	if a.lasting {
		a.text = err.Error()
	}
}

// contain runs fn, which enters into a what a loader brought, and then land. A panic in fn is an error, and if fn ends the
// goroutine that is one too.
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
			r.b.db.options.Logger.Error("keepcache: a loader panicked", "bucket", r.b.at.Name, "key", errs.Quote(r.flights[0].key),
				"panic", panicked.text, "stack", string(panicked.Stack))
		}
	}()
	fn()
	returned = true
	land()
}

// PanicError says that a loader, or a method of the value that it returned, panicked. Its text does not have the stack.
type PanicError struct {
	Value any    // what it panicked with. That it is an error says nothing of the load: errors.Is does not look into it
	Stack []byte // of the goroutine, as runtime/debug.Stack gives it; not to be changed. Options.Logger gets it too

	text string
}

// Error says that the loader panicked, and with what.
func (e *PanicError) Error() string { return "the loader panicked: " + e.text }

// newPanicError asks a value that is not ours for its text, which may panic or end the goroutine in its turn.
func newPanicError(v any, stack []byte) *PanicError {
	e := &PanicError{Value: v, Stack: stack, text: "a value that cannot be printed"}
	foreign.Apart(func() { e.text = cutText(fmt.Sprint(v), mostErrorText) })
	return e
}

// loadContext has the values of a request and ends with the DB, or when its time is over. It knows the run that it is for.
type loadContext struct {
	context.Context
	values context.Context
	run    *run
}

// runKey finds the run of a loader in its context.
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

// runOf returns the run of the loader that ctx was given to, or nil.
func runOf(ctx context.Context) *run {
	r, _ := ctx.Value(runKey{}).(*run)
	return r
}

// refresh begins r in the background, for those of the flights that are not under way already.
func (b *Bucket) refresh(ctx context.Context, r *run, fs []*flight, start starter) {
	l := b.db.loads
	if r.depth > mostNested {
		return
	}
	free := l.stuck.Load() < mostStuck
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
		if f, mine := f.board(); mine {
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
			<-r.refreshed // the handler keeps the slot of the load until it returns
		}
	})
}

// tellRefresh tells that r has begun, beside the load: a handler may wait for that.
func (r *run) tellRefresh() {
	events := r.b.db.events
	if !events.wants(EventRefresh) {
		return
	}
	told, keys := make(chan struct{}), make([]string, len(r.flights)) // start may take flights out
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

// news are events of flights that are to be told when all flights of their run have landed: a handler may ask for their keys, and
// may take its time.
type news []Event

// tell tells them, after EventRefresh.
func (r *run) tell(told news) {
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
