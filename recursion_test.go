package keepcache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// recursive opens a cache with a handler of events that may use it.
func recursive(
	t *testing.T, o keepcache.Options, kinds keepcache.EventKind, handle func(b *keepcache.Bucket, e keepcache.Event),
) (*keepcache.DB, *keepcache.Bucket) {
	var b atomic.Pointer[keepcache.Bucket]
	o.Events = keepcache.Events{Kinds: kinds, Handle: func(e keepcache.Event) {
		if b := b.Load(); b != nil {
			handle(b, e)
		}
	}}
	db := newDB(t, &o)
	b.Store(db.Bucket("b"))
	return db, b.Load()
}

// What a handler of events does itself is told of after it, once each and in order, and never from within it.
func TestRecursion_Order(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var told []string
		running := 0
		through := make(chan struct{}) // closed when the handler of the first event has done all
		_, b := recursive(t, keepcache.Options{}, keepcache.EventSet|keepcache.EventMiss|keepcache.EventLoad,
			func(b *keepcache.Bucket, e keepcache.Event) {
				mu.Lock()
				told = append(told, e.Kind.String()+" "+e.Key)
				running++
				if running > 2 { // that of the test and that of the queue
					t.Error("handlers within handlers")
				}
				mu.Unlock()
				switch e.Key {
				case "a":
					mustSet(t, b, "b", 1, 0)
					_, _ = b.Get("c", new(any))
					close(through)
				case "b":
					<-through // what two handlers do at the same time has no order
					_, err := b.GetOrLoad(t.Context(), "d", new(any),
						func(context.Context, *keepcache.Load) (any, error) { return 1, nil }, nil)
					if err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				running--
				mu.Unlock()
			})
		mustSet(t, b, "a", 1, 0)
		synctest.Wait()
		require.Equal(t, []string{"set a", "set b", "miss c", "miss d", "load d"}, told)
	})
}

// That holds for long work too, which is done in another goroutine than that of the handler: who is told in the middle
// of it, and waits for the call that has begun it, waits for nothing.
func TestRecursion_LongWork(t *testing.T) {
	for name, work := range map[string]func(*keepcache.DB) error{
		"backup":  func(db *keepcache.DB) error { return db.Backup(context.Background(), io.Discard) },
		"compact": func(db *keepcache.DB) error { return db.Compact(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "compact" {
				skipOnWindows(t, "an open file cannot be replaced")
			}
			synctest.Test(t, func(t *testing.T) {
				var db *keepcache.DB
				returned := make(chan struct{})
				late := 0
				db, b := recursive(t, keepcache.Options{}, keepcache.EventSet|keepcache.EventProgress|keepcache.EventCompact,
					func(_ *keepcache.Bucket, e keepcache.Event) {
						if e.Kind == keepcache.EventSet {
							if err := work(db); err != nil {
								t.Error(err)
							}
							close(returned)
							return
						}
						select {
						case <-returned:
							late++
						case <-time.After(time.Minute):
							t.Error("told from within the handler of another event")
						}
					})
				mustSet(t, b, "k", 1, 0)
				synctest.Wait()
				require.Positive(t, late)
			})
		})
	}
}

// A handler whose every event brings about another one, or two, neither overflows the stack nor fills memory, and holds
// up neither callers nor Close.
func TestRecursion_Endless(t *testing.T) {
	load := func(context.Context, *keepcache.Load) (any, error) { return 1, nil }
	for name, do := range map[string]func(db *keepcache.DB, b *keepcache.Bucket, e keepcache.Event){
		"set": func(_ *keepcache.DB, b *keepcache.Bucket, e keepcache.Event) { _ = b.Set(e.Key, 1, 0) },
		"set two": func(_ *keepcache.DB, b *keepcache.Bucket, e keepcache.Event) {
			_, _ = b.Set(e.Key, 1, 0), b.Set(e.Key, 1, 0)
		},
		"get": func(_ *keepcache.DB, b *keepcache.Bucket, e keepcache.Event) { _, _ = b.Get("absent", new(any)) },
		"get many": func(_ *keepcache.DB, b *keepcache.Bucket, e keepcache.Event) {
			_, _ = b.GetMany([]string{"x", "y", "z"})
		},
		"delete": func(_ *keepcache.DB, b *keepcache.Bucket, e keepcache.Event) {
			_, _ = b.Set("k", 1, 0), second(b.Delete("k"))
		},
		"load": func(_ *keepcache.DB, b *keepcache.Bucket, e keepcache.Event) {
			_, _ = b.GetOrLoad(context.Background(), "k", new(any), load, &keepcache.LoadOptions{TTL: 1})
		},
		"failing loads": func(_ *keepcache.DB, b *keepcache.Bucket, e keepcache.Event) {
			_, _ = b.GetOrLoad(context.Background(), fmt.Sprint(len(e.Key)), new(any),
				func(context.Context, *keepcache.Load) (any, error) { return nil, errors.New("down") }, nil)
		},
		"apply": func(db *keepcache.DB, b *keepcache.Bucket, e keepcache.Event) {
			var batch keepcache.Batch
			batch.Set(b, "k", 1, 0)
			_ = db.Apply(&batch)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int64
			var opened atomic.Pointer[keepcache.DB]
			db, b := recursive(t, keepcache.Options{CommitInterval: -1}, ^keepcache.EventKind(0)&^keepcache.EventProgress,
				func(b *keepcache.Bucket, e keepcache.Event) {
					calls.Add(1)
					if db := opened.Load(); db != nil {
						do(db, b, e)
					}
				})
			opened.Store(db)
			mustSet(t, b, "begin", 1, 0)
			for end := time.Now().Add(10 * time.Second); calls.Load() < 2_000 && time.Now().Before(end); {
				runtime.Gosched()
			}
			require.GreaterOrEqual(t, calls.Load(), int64(2_000))
			require.Less(t, runtime.NumGoroutine(), 100)
			require.NoError(t, db.Close())
		})
	}
}

// Handlers of two caches that each use the other one are no recursion either.
func TestRecursion_TwoCaches(t *testing.T) {
	var calls atomic.Int64
	var other atomic.Pointer[keepcache.Bucket]
	_, a := recursive(t, keepcache.Options{}, keepcache.EventSet, func(*keepcache.Bucket, keepcache.Event) {
		if b := other.Load(); b != nil {
			_ = b.Set("k", 1, 0)
		}
	})
	_, b := recursive(t, keepcache.Options{}, keepcache.EventSet, func(*keepcache.Bucket, keepcache.Event) {
		calls.Add(1)
		_ = a.Set("k", 1, 0)
	})
	other.Store(b)
	mustSet(t, a, "k", 1, 0)
	for end := time.Now().Add(10 * time.Second); calls.Load() < 2_000 && time.Now().Before(end); {
		runtime.Gosched()
	}
	require.GreaterOrEqual(t, calls.Load(), int64(2_000))
	other.Store(nil)
}

// A handler that brings about more than there is room for loses events, and the Logger is told how many.
func TestRecursion_Dropped(t *testing.T) {
	var log syncBuffer
	var told atomic.Int64
	full := make(chan struct{})
	db, b := recursive(t, keepcache.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, keepcache.EventSet,
		func(b *keepcache.Bucket, e keepcache.Event) {
			told.Add(1)
			if e.Key == "begin" {
				for i := range 8_000 {
					_ = b.Set(numbered(i), 1, 0)
				}
				close(full)
			}
			<-full
		})
	mustSet(t, b, "begin", 1, 0)
	require.NoError(t, db.Close())
	dropped := 0
	for line := range strings.Lines(log.String()) {
		if _, n, ok := strings.Cut(line, "events="); ok {
			var some int
			_, err := fmt.Sscan(n, &some)
			require.NoError(t, err)
			dropped += some
		}
	}
	require.Positive(t, dropped)
	require.Equal(t, int64(8_001), told.Load()+int64(dropped))
}

// A caller who has set debug.SetPanicOnFault for himself is told of events at once, as others are.
func TestRecursion_PanicOnFault(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	told := 0
	_, b := recursive(t, keepcache.Options{}, keepcache.EventSet, func(*keepcache.Bucket, keepcache.Event) { told++ })
	mustSet(t, b, "k", 1, 0)
	require.Equal(t, 1, told)
	require.True(t, debug.SetPanicOnFault(true))
}

// syncBuffer is a buffer for several writers.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
