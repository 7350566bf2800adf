package keepcache_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// The text of a load's error begins with what the loader said, and has neither the path nor a stack in it.
func TestLoadError_Text(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		db := open(t, path, nil)
		opts := &keepcache.LoadOptions{RetryAfter: -1}
		plain, users := db.Bucket(keepcache.DefaultBucket), db.Bucket("users")
		for want, c := range map[string]struct {
			b    *keepcache.Bucket
			key  string
			load func() (any, error)
		}{
			`connection refused (load "k")`: {plain, "k",
				func() (any, error) { return nil, errors.New("connection refused") }},
			`connection refused (load "k" in bucket "users")`: {users, "k",
				func() (any, error) { return nil, errors.New("connection refused") }},
			`not found (load "k")`: {plain, "k",
				func() (any, error) { return nil, keepcache.ErrNotFound }},
			`the loader panicked: cause (load "k")`: {plain, "k",
				func() (any, error) { panic("cause") }},
			`the loader panicked: value's cause (load "k")`: {plain, "k",
				func() (any, error) { return panicking{}, nil }},
			`the loader ended its goroutine (load "k")`: {plain, "k",
				func() (any, error) { runtime.Goexit(); return nil, nil }},
			`unsupported value: json: unsupported type: chan int (load "k")`: {plain, "k",
				func() (any, error) { return make(chan int), nil }},
			`the load was given up after 2m0s: context deadline exceeded (load "k")`: {plain, "k",
				func() (any, error) { time.Sleep(time.Hour); return 1, nil }},
			`connection refused (load "` + strings.Repeat("k", 32) + `"..."` + strings.Repeat("k", 16) + `")`: {
				plain, strings.Repeat("k", 1000), func() (any, error) { return nil, errors.New("connection refused") },
			},
		} {
			_, err := plain.GetOrLoad(t.Context(), c.key, new(any), nil, nil)
			require.Error(t, err, "a nil loader panics, and no more than that")
			_, err = c.b.GetOrLoad(t.Context(), c.key, new(any),
				func(context.Context, *keepcache.Load) (any, error) { return c.load() }, opts)
			require.EqualError(t, err, want)
			requireLoadError(t, err, path)
			_, err = keepcache.Of[any](c.b).GetOrLoad(t.Context(), c.key,
				func(context.Context, *keepcache.Load) (any, error) { return c.load() }, opts)
			require.EqualError(t, err, want)
			if strings.HasPrefix(want, "not found") {
				continue
			}
			_, err = keepcache.Of[any](c.b).GetOrLoadMany(t.Context(), []string{c.key},
				func(_ context.Context, keys []string) (map[string]any, error) {
					value, err := c.load()
					return map[string]any{keys[0]: value}, err
				}, opts)
			require.EqualError(t, err, want)
			var e *keepcache.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, keepcache.Error{Op: "load", Path: path, Bucket: c.b.Name(), Key: c.key, Err: e.Err}, *e)
		}
		// Of loads within loads the innermost comes first.
		_, err := plain.GetOrLoad(t.Context(), "outer", new(any), func(ctx context.Context, _ *keepcache.Load) (any, error) {
			return nil, errorOf(users.GetOrLoad(ctx, "inner", new(any), func(context.Context, *keepcache.Load) (any, error) {
				return nil, errors.New("connection refused")
			}, nil))
		}, nil)
		require.EqualError(t, err, `connection refused (load "inner" in bucket "users") (load "outer")`)
		// Those of the cache itself have the same form.
		mustSet(t, plain, "text", "text", 0)
		_, err = plain.GetOrLoad(t.Context(), "number", new(int),
			func(context.Context, *keepcache.Load) (any, error) { return "text", nil }, nil)
		require.ErrorIs(t, err, keepcache.ErrMismatch)
		requireLoadError(t, err, path)
		_, err = plain.GetOrLoadMany(t.Context(), []string{"k"}, nil, &keepcache.LoadOptions{TTL: -5})
		require.ErrorIs(t, err, keepcache.ErrInvalidTTL)
		requireLoadError(t, err, path)
		require.NoError(t, db.Close())
		_, err = plain.GetOrLoadMany(t.Context(), []string{"k"}, nil, nil)
		require.EqualError(t, err, `cache is closed (load bucket "default")`)
		time.Sleep(2 * time.Hour) // until the loaders that hang have returned
	})
}

// A panic's stack is in the error and goes to the Logger; what the loader panicked with says nothing of the load.
func TestLoadError_Panic(t *testing.T) {
	for name, value := range map[string]any{
		"string": "cause", "an answer": keepcache.ErrNotFound, "one that panics": panickingText{},
		"one that exits": exitingText{},
	} {
		for _, many := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var log lockedBuffer
					db := newDB(t, &keepcache.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
					b := db.Bucket("b")
					var err error
					if many {
						_, err = b.GetOrLoadMany(t.Context(), []string{"k"},
							func(context.Context, []string) (map[string]any, error) { panic(value) }, nil)
					} else {
						_, err = b.GetOrLoad(t.Context(), "k", new(any),
							func(context.Context, *keepcache.Load) (any, error) { panic(value) }, nil)
					}
					var p *keepcache.PanicError
					require.ErrorAs(t, err, &p)
					require.Equal(t, value, p.Value)
					require.Contains(t, string(p.Stack), "load_error_test.go")
					require.NotErrorIs(t, err, keepcache.ErrNotFound)
					require.Equal(t, uint64(1), db.Stats().Loads.Failures)
					synctest.Wait()
					require.Contains(t, log.String(), "load_error_test.go")
					require.Contains(t, log.String(), "a loader panicked")
				})
			})
		}
	}
}

type (
	panickingText struct{}
	exitingText   struct{}
	panickingErr  struct{ exit bool }
)

func (panickingText) String() string { panic("again") }
func (exitingText) String() string   { runtime.Goexit(); return "" }

func (e panickingErr) Error() string {
	if e.exit {
		runtime.Goexit()
	}
	panic("the text of an error")
}
func (e panickingErr) Is(error) bool { _ = e.Error(); return false }

// An error whose own methods panic or end the goroutine costs its own load.
func TestLoadError_Methods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		for _, exit := range []bool{false, true} {
			_, err := b.GetOrLoad(t.Context(), "k", new(any),
				func(context.Context, *keepcache.Load) (any, error) { return nil, panickingErr{exit} },
				&keepcache.LoadOptions{RetryAfter: -1})
			require.Error(t, err)
			require.Contains(t, err.Error(), "the loader ")
			_, err = b.GetOrLoadMany(t.Context(), []string{"k"},
				func(context.Context, []string) (map[string]any, error) { return nil, panickingErr{exit} },
				&keepcache.LoadOptions{RetryAfter: -1})
			require.Error(t, err)
			require.Contains(t, err.Error(), "the loader ")
		}
	})
}

// lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A key that is empty or too long is loaded, once for all who wait, handed out and not stored, which is counted and
// told.
func TestLoadAnswer_InvalidKey(t *testing.T) {
	for name, key := range map[string]string{"empty": "", "long": strings.Repeat("k", keepcache.MaxKeyBytes+1)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var told []keepcache.Event
				s := newLoadScene(t, keepcache.LoadOptions{NegativeTTL: time.Hour, StaleFor: time.Hour, RefreshAhead: 0.5})
				require.NoError(t, s.db.Close())
				s.db = open(t, s.path, &keepcache.Options{Events: keepcache.Events{
					Handle: func(e keepcache.Event) { mu.Lock(); defer mu.Unlock(); told = append(told, e) },
					Kinds:  keepcache.EventLoadFailed | keepcache.EventLoad,
				}})
				s.b = s.db.Bucket("b")
				s.answer("one", nil, time.Second)
				var callers sync.WaitGroup
				for range 3 {
					callers.Go(func() {
						var got string
						_, err := s.b.GetOrLoad(t.Context(), key, &got, s.load, &s.opts)
						if err != nil || got != "one" {
							t.Error(got, err)
						}
					})
				}
				callers.Wait()
				synctest.Wait() // until it has been told
				require.Equal(t, int64(1), s.loads.Load())
				require.Equal(t, uint64(1), s.db.Stats().Loads.CacheErrors)
				require.Len(t, told, 2)
				for _, e := range told {
					require.Empty(t, e.Key)
				}
				require.ErrorIs(t, told[1].Err, keepcache.ErrInvalidKey)
				require.Less(t, len(told[1].Err.Error()), 200)
				values, err := keepcache.Of[string](s.b).GetOrLoadMany(t.Context(), []string{"k", key},
					func(_ context.Context, keys []string) (map[string]string, error) {
						return map[string]string{key: "two", "k": "three"}, nil
					}, &s.opts)
				require.NoError(t, err)
				require.Equal(t, map[string]string{key: "two", "k": "three"}, values)
				requireValue(t, s.b, "k", "three")
				s.answer(nil, keepcache.ErrNotFound, 0)
				for range 2 {
					_, err = s.b.GetOrLoad(t.Context(), key, new(any), s.load, &s.opts)
					require.ErrorIs(t, err, keepcache.ErrNotFound)
				}
				require.Equal(t, int64(3), s.loads.Load())
				down := errors.New("down")
				s.answer(nil, down, 0)
				for range 2 {
					_, err = s.b.GetOrLoad(t.Context(), key, new(any), s.load, &s.opts)
					require.ErrorIs(t, err, down)
				}
				require.Equal(t, int64(4), s.loads.Load(), "the failure is remembered")
				require.ErrorIs(t, s.b.Set(key, 1, 0), keepcache.ErrInvalidKey)
			})
		})
	}
}

// What a handle cannot tag as it should is handed out and not stored: it could not be invalidated.
func TestLoadAnswer_InvalidTags(t *testing.T) {
	db := newDB(t, nil)
	b := db.Bucket("b").WithTags("fine", "")
	for range 2 {
		var got string
		_, err := b.GetOrLoad(t.Context(), "k", &got,
			func(context.Context, *keepcache.Load) (any, error) { return "v", nil }, nil)
		require.NoError(t, err)
		require.Equal(t, "v", got)
		requireAbsent(t, b, "k")
	}
	require.Equal(t, uint64(2), db.Stats().Loads.CacheErrors)
}

type settings struct {
	Name  string
	Port  int
	Tags  map[string]int
	List  []int
	Inner *settings
}

// A destination keeps the contents of its own where a stored value does not fit, and the loaded value is decoded into
// it as Get would do.
func TestLoadAnswer_Prefilled(t *testing.T) {
	prefilled := func() settings {
		return settings{Name: "default", Port: 80, Tags: map[string]int{"a": 1}, List: []int{1, 2, 3},
			Inner: &settings{Name: "inner", Port: 8}}
	}
	stored := map[string]any{"Name": "stored", "Tags": map[string]int{"b": 2}, "List": []int{9},
		"Inner": map[string]any{"Port": 9}, "Port": "no number"}
	loaded := map[string]any{"Name": "loaded", "Tags": map[string]int{"c": 3}, "Inner": map[string]any{"Name": "loaded"}}
	want := prefilled()
	want.Name, want.Tags["c"], want.Inner.Name = "loaded", 3, "loaded"
	for how, opts := range map[string]keepcache.LoadOptions{
		"fresh": {}, "ahead": {RefreshAhead: 0.5}, "stale": {TTL: time.Hour},
		"soft": {TTL: time.Hour, SoftTimeout: time.Second},
	} {
		for name, dst := range map[string]func() (any, func() any){
			"struct":  func() (any, func() any) { s := prefilled(); return &s, func() any { return s } },
			"pointer": func() (any, func() any) { s := new(prefilled()); return &s, func() any { return *s } },
			"pointer in an any": func() (any, func() any) {
				s := new(prefilled())
				var a any = s
				return &a,
					func() any { return *s }
			},
		} {
			t.Run(how+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newDB(t, nil).Bucket("b")
					_, err := b.GetOrLoad(t.Context(), "k", new(any),
						func(context.Context, *keepcache.Load) (any, error) { return stored, nil },
						&keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour})
					require.NoError(t, err)
					if how == "stale" || how == "soft" {
						time.Sleep(time.Minute)
					}
					into, got := dst()
					_, err = b.GetOrLoad(t.Context(), "k", into,
						func(context.Context, *keepcache.Load) (any, error) { return nil, errors.New("down") },
						&keepcache.LoadOptions{RetryAfter: -1, RefreshAhead: opts.RefreshAhead, SoftTimeout: opts.SoftTimeout})
					require.Error(t, err)
					require.Equal(t, prefilled(), got(), "as it was")
					_, err = b.GetOrLoad(t.Context(), "k", into,
						func(context.Context, *keepcache.Load) (any, error) { return loaded, nil }, &opts)
					require.NoError(t, err)
					require.Equal(t, want, got())
				})
			})
		}
	}
}

// strangeCtx is a context whose methods panic, or end the goroutine, from some moment on.
type strangeCtx struct {
	context.Context
	after *atomic.Bool
	exit  bool
}

func (c strangeCtx) Err() error {
	if c.after.Load() {
		_ = panickingErr{c.exit}.Error()
	}
	return c.Context.Err()
}

type panickingChain struct{ exit bool }

func (panickingChain) Error() string   { return "a chain" }
func (e panickingChain) Unwrap() error { _ = panickingErr(e).Error(); return nil }

// A caller's context and a loader's error whose methods panic or end the goroutine cost that load, and neither the
// process nor others.
func TestLoadError_Strange(t *testing.T) {
	for _, exit := range []bool{false, true} {
		for name, cause := range map[string]error{"context": errors.New("down"), "chain": panickingChain{exit}} {
			for _, how := range []string{"one", "many", "stale"} {
				t.Run(name+" "+how, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						db := newDB(t, nil)
						b, opts := db.Bucket("b"), &keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour}
						if how == "stale" {
							_, err := b.GetOrLoad(t.Context(), "k", new(any),
								func(context.Context, *keepcache.Load) (any, error) { return 1, nil }, opts)
							require.NoError(t, err)
							time.Sleep(time.Minute)
						}
						var strange atomic.Bool
						ctx := strangeCtx{t.Context(), &strange, exit}
						fails := func() error { strange.Store(name == "context"); return cause }
						var err error
						if how == "many" {
							_, err = b.GetOrLoadMany(ctx, []string{"k", "l"},
								func(context.Context, []string) (map[string]any, error) { return nil, fails() }, opts)
						} else {
							_, err = b.GetOrLoad(ctx, "k", new(any),
								func(context.Context, *keepcache.Load) (any, error) { return nil, fails() }, opts)
						}
						require.Equal(t, how == "stale", err == nil)
						synctest.Wait()
						require.Zero(t, db.Stats().Loads.Running)
						require.Positive(t, db.Stats().Loads.Failures)
					})
				})
			}
		}
	}
}
