package keepcache_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// A handler of events about loads that panics or ends its goroutine costs its own call: the load is stored, and those
// who wait go on.
func TestForeign_Handler(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("a test") }, "exit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				var calls atomic.Int64
				b := newDB(t, &keepcache.Options{Events: keepcache.Events{
					Handle: func(keepcache.Event) { calls.Add(1); end() },
					Kinds:  keepcache.EventLoad | keepcache.EventLoadFailed | keepcache.EventRefresh,
				}}).Bucket("b")
				var got string
				_, err := b.GetOrLoad(ctx, "k", &got, func(context.Context, *keepcache.Load) (any, error) { return "v", nil }, nil)
				require.NoError(t, err)
				requireValue(t, b, "k", "v")
				values, err := keepcache.Of[int](b).GetOrLoadMany(ctx, []string{"x", "y"},
					func(context.Context, []string) (map[string]int, error) {
						return map[string]int{"x": 1, "y": 2}, nil
					}, nil)
				require.NoError(t, err)
				require.Len(t, values, 2)
				down := errors.New("down")
				_, err = b.GetOrLoad(ctx, "z", &got, func(context.Context, *keepcache.Load) (any, error) { return nil, down }, nil)
				require.ErrorIs(t, err, down)
				synctest.Wait()
				require.Equal(t, int64(4), calls.Load())
			})
		})
	}
}

// logs is a Logger whose handler ends in some way.
type logs struct {
	slog.Handler
	end func()
}

func (l logs) Enabled(context.Context, slog.Level) bool  { return true }
func (l logs) Handle(context.Context, slog.Record) error { l.end(); return nil }
func (l logs) WithAttrs([]slog.Attr) slog.Handler        { l.end(); return l }
func (l logs) WithGroup(string) slog.Handler             { l.end(); return l }

// A Logger that panics or ends its goroutine while Open puts a file aside does not keep the cache from being opened, or
// from being closed and opened again.
func TestForeign_Logger(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("a test") }, "exit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			skipOnWindows(t, "an open file cannot be replaced")
			path := newPath(t)
			db := open(t, path, nil)
			fill(t, db.Bucket("b"), 1000, 0)
			require.NoError(t, db.Close())
			file, err := os.ReadFile(path)
			require.NoError(t, err)
			clear(file[:8192]) // both meta pages
			require.NoError(t, os.WriteFile(path, file, 0o600))
			for range 2 {
				db, err = keepcache.Open(path, &keepcache.Options{Logger: slog.New(logs{end: end})})
				require.NoError(t, err)
				mustSet(t, db.Bucket("b"), "k", 1, 0)
				require.NoError(t, db.Close())
			}
		})
	}
}

// Who waits for a load that fails because the caller who began it has gone is not told of that: he begins another one.
func TestForeign_CallersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		gone, leave := context.WithCancel(t.Context())
		var first sync.WaitGroup
		first.Go(func() {
			_, err := b.GetOrLoad(gone, "k", new(any), func(context.Context, *keepcache.Load) (any, error) {
				<-gone.Done() // and not its own ctx
				return nil, gone.Err()
			}, nil)
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		first.Go(func() {
			var got string
			_, err := b.GetOrLoad(t.Context(), "k", &got,
				func(context.Context, *keepcache.Load) (any, error) { return "mine", nil }, nil)
			if err != nil || got != "mine" {
				t.Error(got, err)
			}
		})
		synctest.Wait()
		leave()
		first.Wait()
	})
}

// Who waits for a load when the cache is closed gets ErrClosed.
func TestForeign_Close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, nil)
		b := db.Bucket("b")
		var waiters sync.WaitGroup
		for range 3 {
			waiters.Go(func() {
				_, err := b.GetOrLoad(t.Context(), "k", new(any), func(ctx context.Context, _ *keepcache.Load) (any, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}, nil)
				if !errors.Is(err, keepcache.ErrClosed) {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Second)
		require.NoError(t, db.Close())
		waiters.Wait()
	})
}

// A nil ctx is context.Background, on a hit and on a miss.
func TestForeign_NilContext(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	var none context.Context
	for range 2 {
		var got string
		_, err := b.GetOrLoad(none, "k", &got, func(context.Context, *keepcache.Load) (any, error) { return "v", nil }, nil)
		require.NoError(t, err)
		require.Equal(t, "v", got)
		values, err := keepcache.Of[int](b).GetOrLoadMany(none, []string{"x"},
			func(context.Context, []string) (map[string]int, error) { return map[string]int{"x": 1}, nil }, nil)
		require.NoError(t, err)
		require.Equal(t, map[string]int{"x": 1}, values)
	}
}
