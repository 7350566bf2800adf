package keepcache

import (
	"context"
	"log/slog"
	"reflect"
	"runtime"
	"runtime/debug"
)

// apart runs code that is not ours in a goroutine of its own, and waits for it. That a panic or runtime.Goexit in it ends
// is that goroutine alone. Where the caller's goroutine is the user's own, Goexit may end that too, and recover is enough.
func apart(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		fn()
	}()
	<-done
}

// contained calls a handler of events, whose panic is to do no harm. What the handler itself brings about is told of later,
// see inHandler.
//
//go:noinline
func contained(handle func(Event), e Event) {
	was := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(was)
		_ = recover()
	}()
	handle(e)
}

// forHandler runs, in a goroutine of its own, what a handler of events has begun.
//
//go:noinline
func forHandler(fn func()) {
	debug.SetPanicOnFault(true)
	fn()
}

// inHandler reports whether the caller's goroutine is in a call of a handler of events, of whatever cache, or runs for one. An
// event in there that called the handler at once could bring about another, and so on until the stack overflows, which nothing can contain.
//
// The question comes with every event, and looking through the stack for an answer takes microseconds. So contained leaves a mark on
// its goroutine: the setting of debug.SetPanicOnFault is the one thing that a goroutine keeps for itself and that can be asked for.
// Only where that is set, by us or by others who have a use for it, is it worth looking.
func inHandler() bool {
	if marked := debug.SetPanicOnFault(true); marked {
		return calledBy(handlerFrames)
	}
	debug.SetPanicOnFault(false)
	return false
}

// handlerFrames are where the functions begin that mark a goroutine.
var handlerFrames = [...]uintptr{reflect.ValueOf(contained).Pointer(), reflect.ValueOf(forHandler).Pointer()}

// calledBy reports whether one of the functions is among the callers.
func calledBy(functions [2]uintptr) bool {
	var pcs [64]uintptr
	for skip := 2; ; {
		n := runtime.Callers(skip, pcs[:])
		frames := runtime.CallersFrames(pcs[:n])
		for more := n > 0; more; {
			var f runtime.Frame
			if f, more = frames.Next(); f.Entry == functions[0] || f.Entry == functions[1] {
				return true
			}
		}
		if n < len(pcs) {
			return false
		}
		skip += n
	}
}

// guarded is a handler of logs that is not ours: a panic or runtime.Goexit in it loses what was to be logged, and nothing else.
// Such a one is t.Log after the end of its test. Logs are rare enough for a goroutine each.
type guarded struct{ slog.Handler }

func (g guarded) Enabled(ctx context.Context, level slog.Level) (enabled bool) {
	apart(func() { enabled = g.Handler.Enabled(ctx, level) })
	return enabled
}

func (g guarded) Handle(ctx context.Context, r slog.Record) (err error) {
	apart(func() { err = g.Handler.Handle(ctx, r) })
	return err
}

func (g guarded) WithAttrs(attrs []slog.Attr) slog.Handler {
	var h slog.Handler = slog.DiscardHandler
	apart(func() { h = g.Handler.WithAttrs(attrs) })
	return guarded{h}
}

func (g guarded) WithGroup(name string) slog.Handler {
	var h slog.Handler = slog.DiscardHandler
	apart(func() { h = g.Handler.WithGroup(name) })
	return guarded{h}
}
