package keepcache

import (
	"context"
	"log/slog"
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
