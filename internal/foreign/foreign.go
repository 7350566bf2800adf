// Package foreign calls code that is not ours, such as handlers of events and loggers, so that a panic or
// runtime.Goexit in it ends nothing else.
package foreign

import (
	"context"
	"log/slog"
	"reflect"
	"runtime"
	"runtime/debug"
)

// Apart runs fn in a goroutine of its own and waits for it, so that a panic or runtime.Goexit ends that goroutine
// alone. Where the caller's goroutine is the user's own, Goexit may end that too, and recover is enough.
func Apart(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		fn()
	}()
	<-done
}

// Handle calls a handler of events and contains its panic. InHandler is true in there.
//
//go:noinline
func Handle(handler func()) {
	was := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(was)
		_ = recover()
	}()
	handler()
}

// ForHandler runs what a handler of events has started in another goroutine. InHandler is true in there too.
//
//go:noinline
func ForHandler(fn func()) {
	debug.SetPanicOnFault(true)
	fn()
}

// InHandler reports whether the caller's goroutine is in a call of a handler of events, of whatever cache, or runs for
// one. An event in there that called the handler at once could bring about another, and so on until the stack
// overflows, which nothing can contain.
//
// The question comes with every event, and a look through the stack takes microseconds. So Handle leaves a mark on its
// goroutine: the setting of debug.SetPanicOnFault is the one thing that a goroutine keeps for itself and that can be
// asked for. Only where that is set, by us or by others who have a use for it, is the stack looked through.
func InHandler() bool {
	if marked := debug.SetPanicOnFault(true); marked {
		return calledBy(marking)
	}
	debug.SetPanicOnFault(false)
	return false
}

// marking are where the functions begin that mark a goroutine.
var marking = [...]uintptr{reflect.ValueOf(Handle).Pointer(), reflect.ValueOf(ForHandler).Pointer()}

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

// Logger returns a handler of logs that calls h, and to which a panic or runtime.Goexit in h does no harm: what was to
// be logged is lost. Such an h is t.Log after the end of its test. Logs are rare enough for a goroutine each.
func Logger(h slog.Handler) slog.Handler { return guarded{h} }

type guarded struct{ slog.Handler }

func (g guarded) Enabled(ctx context.Context, level slog.Level) (enabled bool) {
	Apart(func() { enabled = g.Handler.Enabled(ctx, level) })
	return enabled
}

func (g guarded) Handle(ctx context.Context, r slog.Record) (err error) {
	Apart(func() { err = g.Handler.Handle(ctx, r) })
	return err
}

func (g guarded) WithAttrs(attrs []slog.Attr) slog.Handler {
	h := slog.DiscardHandler
	Apart(func() { h = g.Handler.WithAttrs(attrs) })
	return guarded{h}
}

func (g guarded) WithGroup(name string) slog.Handler {
	h := slog.DiscardHandler
	Apart(func() { h = g.Handler.WithGroup(name) })
	return guarded{h}
}
