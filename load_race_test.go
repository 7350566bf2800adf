package keepcache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// Loaders that panic or end their goroutine release all who wait with an error, and the next one may succeed.
func TestLoad_Panic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{})
		for name, load := range map[string]keepcache.Loader{
			"panicked": func(context.Context, *keepcache.Load) (any, error) { time.Sleep(time.Nanosecond); panic("cause") },
			"ended": func(context.Context, *keepcache.Load) (any, error) {
				time.Sleep(time.Nanosecond)
				runtime.Goexit()
				return nil, nil
			},
			"value's cause": func(context.Context, *keepcache.Load) (any, error) {
				time.Sleep(time.Nanosecond)
				return panicking{}, nil
			},
			"several panics ": func(context.Context, *keepcache.Load) (any, error) { panic(errors.New("several panics ")) },
		} {
			var waiters sync.WaitGroup
			for range 10 {
				waiters.Go(func() {
					_, err := s.b.GetOrLoad(t.Context(), "k", new(any), load, &keepcache.LoadOptions{RetryAfter: -1})
					if err == nil {
						t.Error("no error")
						return
					}
					require.ErrorContains(t, err, name)
				})
			}
			waiters.Wait()
		}
		s.opts.RetryAfter = -1
		s.get("one", false, 1)
	})
}

type panicking struct{}

func (panicking) MarshalJSON() ([]byte, error) { panic("value's cause") }

// Waiters obey their own ctx; a cancelled owner does not fail the others, and the load goes on.
func TestLoad_Cancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{})
		s.answer("one", nil, time.Minute)
		type key struct{}
		owner, cancelOwner := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		var waiters sync.WaitGroup
		waiters.Go(func() {
			_, err := s.b.GetOrLoad(owner, "k", new(any), func(ctx context.Context, l *keepcache.Load) (any, error) {
				require.Equal(t, "value", ctx.Value(key{}))
				return s.load(ctx, l)
			}, nil)
			require.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		for i := range 10 {
			waiters.Go(func() {
				ctx, cancel := t.Context(), func() {}
				if i%2 == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Second)
				}
				defer cancel()
				start := time.Now()
				var got string
				_, err := s.b.GetOrLoad(ctx, "k", &got, s.load, nil)
				if i%2 == 0 {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.Equal(t, time.Second, time.Since(start))
					return
				}
				require.NoError(t, err)
				require.Equal(t, "one", got)
			})
		}
		synctest.Wait()
		cancelOwner()
		waiters.Wait()
		require.Equal(t, int64(1), s.loads.Load())
		_, err := s.b.GetOrLoad(owner, "another", new(any), s.load, nil)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, int64(1), s.loads.Load())
	})
}

// A load never overwrites what came after it began: a Set, a Delete also of an absent key, a Clear, or anything else.
func TestLoad_OlderThanWrite(t *testing.T) {
	for name, c := range map[string]struct {
		write func(*keepcache.DB, *keepcache.Bucket) error
		want  any // nil: absent
	}{
		"set": {func(_ *keepcache.DB, b *keepcache.Bucket) error { return b.Set("k", "set", 0) }, "set"},
		"set many": {func(_ *keepcache.DB, b *keepcache.Bucket) error { return b.SetMany(map[string]any{"k": "set"}, 0) },
			"set"},
		"delete": {func(_ *keepcache.DB, b *keepcache.Bucket) error { _, err := b.Delete("k"); return err }, nil},
		"delete many": {func(_ *keepcache.DB, b *keepcache.Bucket) error {
			_,
				err := b.DeleteMany([]string{"k"})
			return err
		}, nil},
		"delete prefix": {func(_ *keepcache.DB, b *keepcache.Bucket) error {
			_, err := b.DeletePrefix(context.Background(), "")
			return err
		}, nil},
		"take":  {func(_ *keepcache.DB, b *keepcache.Bucket) error { _, err := b.Take("k", nil); return err }, nil},
		"clear": {func(_ *keepcache.DB, b *keepcache.Bucket) error { return b.Clear(context.Background()) }, nil},
		"drop":  {func(db *keepcache.DB, _ *keepcache.Bucket) error { _, err := db.DropBucket("b"); return err }, nil},
		"add":   {func(_ *keepcache.DB, b *keepcache.Bucket) error { _, err := b.Add("k", "set", 0); return err }, "set"},
		"batch": {func(db *keepcache.DB, b *keepcache.Bucket) error {
			var batch keepcache.Batch
			batch.Delete(b, "k")
			return db.Apply(&batch)
		}, nil},
		"set and delete, committed": {func(db *keepcache.DB, b *keepcache.Bucket) error {
			if err := b.Set("k", 1, 0); err != nil {
				return err
			}
			_, err := b.Delete("k")
			if err == nil {
				_, err = db.Sweep(context.Background())
			}
			return err
		}, nil},
	} {
		for _, before := range []string{"no bucket", "another key", "stale"} {
			t.Run(name+"/"+before, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour})
					switch before {
					case "another key":
						mustSet(t, s.b, "another", 1, 0)
					case "stale":
						s.get("one", false, 1)
						time.Sleep(time.Minute)
					}
					s.answer("loaded", nil, time.Minute)
					var waiter sync.WaitGroup
					waiter.Go(func() {
						var got string
						result, err := s.b.GetOrLoad(t.Context(), "k", &got, s.load, &s.opts)
						require.NoError(t, err)
						require.Equal(t, before == "stale", result.Stale)
					})
					synctest.Wait()
					require.NoError(t, c.write(s.db, s.b))
					waiter.Wait()
					time.Sleep(time.Minute)
					synctest.Wait()
					if c.want == nil {
						requireAbsent(t, s.b, "k")
						s.answer("newer", nil, 0)
						var got string
						_, err := s.b.GetOrLoad(t.Context(), "k", &got, s.load, &s.opts)
						require.NoError(t, err)
						require.Equal(t, "newer", got)
					} else {
						requireValue(t, s.b, "k", c.want)
					}
					require.Equal(t, uint64(1), s.db.Stats().Loads.Discarded)
				})
			})
		}
	}
}

// Who comes after a Delete does not wait for a load from before it.
func TestLoad_NotJoinedAfterDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{})
		s.answer("old", nil, time.Minute)
		var waiter sync.WaitGroup
		waiter.Go(func() {
			var got string
			_, err := s.b.GetOrLoad(t.Context(), "k", &got, s.load, nil)
			require.NoError(t, err)
			require.Equal(t, "old", got)
		})
		synctest.Wait()
		_, err := s.b.Delete("k")
		require.NoError(t, err)
		s.answer("new", nil, 0)
		s.get("new", false, 2)
		waiter.Wait()
		s.get("new", false, 2)
	})
}

// 1,000 goroutines on one absent key: the loader runs once.
func TestLoad_Once(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	v := keepcache.Of[int](b)
	var loads atomic.Int64
	var callers sync.WaitGroup
	begin := make(chan struct{})
	for range 1000 {
		callers.Go(func() {
			<-begin
			n, err := v.GetOrLoad(context.Background(), "k", func(context.Context, *keepcache.Load) (int, error) {
				loads.Add(1)
				runtime.Gosched()
				return 7, nil
			}, nil)
			if err != nil || n != 7 {
				t.Errorf("%d %v", n, err)
			}
		})
	}
	close(begin)
	callers.Wait()
	require.Equal(t, int64(1), loads.Load())
}

// GetOrLoadMany loads what is missing in one call, waits for what others load, and refreshes what is stale.
func TestLoadMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, nil)
		v := keepcache.Of[string](db.Bucket("b"))
		opts := &keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour, NegativeTTL: time.Minute}
		var mu sync.Mutex
		var calls [][]string
		var fail error
		load := func(_ context.Context, keys []string) (map[string]string, error) {
			mu.Lock()
			calls = append(calls, keys)
			err := fail
			mu.Unlock()
			time.Sleep(time.Second)
			values := map[string]string{"surplus": "x"}
			for _, key := range keys {
				if key != "none" {
					values[key] = "value of " + key
				}
			}
			return values, err
		}
		require.NoError(t, v.Set("a", "own", 0))
		want := map[string]string{"a": "own", "b": "value of b", "c": "value of c"}
		var other sync.WaitGroup
		other.Go(func() {
			got, err := v.GetOrLoad(t.Context(), "c", func(context.Context, *keepcache.Load) (string, error) {
				time.Sleep(2 * time.Second)
				return "value of c", nil
			}, opts)
			require.NoError(t, err)
			require.Equal(t, "value of c", got)
		})
		synctest.Wait()
		got, err := v.GetOrLoadMany(t.Context(), []string{"c", "b", "a", "none", "b"}, load, opts)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, [][]string{{"b", "none"}}, calls)
		other.Wait()
		got, err = v.GetOrLoadMany(t.Context(), []string{"a", "b", "c", "none"}, load, opts)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Len(t, calls, 1)

		time.Sleep(2 * time.Minute)
		synctest.Wait()
		fail = errors.New("down")
		got, err = v.GetOrLoadMany(t.Context(), []string{"a", "b", "c", "none"}, load, opts)
		require.ErrorIs(t, err, fail)
		require.Equal(t, want, got, "with an error for what could not be loaded")
		synctest.Wait() // for the refresh of what was stale
		require.Len(t, calls, 3)
		require.ElementsMatch(t, [][]string{{"b", "c"}, {"none"}}, calls[1:])
		time.Sleep(time.Minute)

		_, err = v.GetOrLoadMany(t.Context(), []string{"p"},
			func(context.Context, []string) (map[string]string, error) { panic("cause") }, opts)
		require.ErrorContains(t, err, "cause")
		_, err = v.GetOrLoadMany(t.Context(), []string{"k"}, load, &keepcache.LoadOptions{TTL: -4})
		require.ErrorIs(t, err, keepcache.ErrInvalidTTL)
		none, err := v.GetOrLoadMany(t.Context(), nil, load, nil)
		require.NoError(t, err)
		require.Empty(t, none)
	})
}

// Close ends loads that heed their ctx, and does not wait long for those that do not, nor does who waits for them.
// Nothing is stored after it.
func TestLoad_Close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour})
		s.get("one", false, 1)
		time.Sleep(time.Minute)
		s.answer("two", nil, time.Hour)
		s.get("one", true, 2)
		start := time.Now()
		require.NoError(t, s.db.Close())
		require.Zero(t, time.Since(start))

		db := open(t, newPath(t), nil)
		var waiter sync.WaitGroup
		waiter.Go(func() {
			var got string
			_, err := db.Bucket("b").GetOrLoad(t.Context(), "k", &got, func(context.Context, *keepcache.Load) (any, error) {
				time.Sleep(time.Minute)
				return "late", nil
			}, nil)
			if !errors.Is(err, keepcache.ErrClosed) {
				t.Error(got, err)
			}
		})
		synctest.Wait()
		start = time.Now()
		require.NoError(t, db.Close())
		require.Equal(t, 5*time.Second, time.Since(start))
		waiter.Wait()
		require.Equal(t, 5*time.Second, time.Since(start))
		time.Sleep(time.Minute) // for the loader
	})
}

// Background loads are bounded in number; the requests are served all the same.
func TestLoad_Bounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		opts := &keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour}
		var running, most atomic.Int64
		load := func(context.Context, *keepcache.Load) (any, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(time.Second)
			return 1, nil
		}
		values := map[string]any{}
		for i := range 200 {
			values[numbered(i)] = i
		}
		var callers sync.WaitGroup
		for key := range values {
			callers.Go(func() {
				_, err := b.GetOrLoad(t.Context(), key, new(any), load, opts)
				require.NoError(t, err)
			})
		}
		callers.Wait()
		most.Store(0)
		time.Sleep(time.Minute)
		for key := range values {
			result, err := b.GetOrLoad(t.Context(), key, new(any), load, opts)
			require.NoError(t, err)
			require.True(t, result.Stale)
		}
		time.Sleep(time.Minute)
		require.Equal(t, int64(64), most.Load())
	})
}

// loadModel says what a key may hold, 0 where it is absent. A load that found nothing may or may not have been
// stored: it is not if a write came in between.
var loadModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{0} },
	Step: func(state, input, output any) []any {
		s, in, out := state.(int), input.(keyInput), output.(keyOutput)
		there, ok, next := s != 0, false, s
		switch in.op {
		case "set":
			ok, next = true, in.value
		case "delete":
			ok, next = out.ok == there, 0
		case "add":
			if ok = out.ok == !there; !there {
				next = in.value
			}
		case "update":
			ok, next = out.ok == there && out.value == s, in.value
		case "get":
			ok = out.ok == there && out.value == s
		case "load":
			if !there && out.value >= loadedValues {
				return []any{s, out.value}
			}
			ok = out.value == s || out.value >= loadedValues
		}
		if !ok {
			return nil
		}
		return []any{next}
	},
}

// loadedValues is the least value that a loader returns; what is written otherwise is less.
const loadedValues = 1_000_000

// Set, Delete, Add, Update and GetOrLoad on one key are linearizable: a load takes effect at one moment between its
// caller's call and return, or not at all.
func TestLoad_Linearizable(t *testing.T) {
	rounds := 15
	if long {
		rounds = 300
	}
	ops := []string{"set", "delete", "add", "update", "load", "load", "load", "get"}
	db := newDB(t, &keepcache.Options{SweepInterval: time.Millisecond})
	var values atomic.Int64
	values.Store(loadedValues)
	model := loadModel.ToModel()
	for round := range rounds {
		b := db.Bucket(fmt.Sprint("round", round))
		var mu sync.Mutex
		var history []porcupine.Operation
		var moment atomic.Int64 // a clock that all agree on
		var callers sync.WaitGroup
		for client := range 6 {
			callers.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(client)))
				for i := range 25 {
					in := keyInput{op: ops[r.IntN(len(ops))], value: 1 + client*1000 + i, hours: 1}
					call := moment.Add(1)
					var out keyOutput
					var err error
					if in.op == "load" {
						_, err = b.GetOrLoad(context.Background(), "k", &out.value, func(context.Context, *keepcache.Load) (any, error) {
							runtime.Gosched()
							return values.Add(1), nil
						}, nil)
					} else {
						out, err = keyCall(b, in)
					}
					returned := moment.Add(1)
					if err != nil {
						t.Errorf("%s: %v", in.op, err)
						return
					}
					mu.Lock()
					history = append(history, porcupine.Operation{
						ClientId: client, Input: in, Call: call, Output: out, Return: returned,
					})
					mu.Unlock()
				}
			})
		}
		callers.Wait()
		require.Equal(t, porcupine.Ok, porcupine.CheckOperationsTimeout(model, history, 20*time.Second), "round %d", round)
	}
}

// The time limits of GetOrLoadMany are for all keys together.
func TestLoadMany_Timeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		hang := make(chan struct{})
		load := func(context.Context, []string) (map[string]any, error) {
			<-hang
			return map[string]any{"k1": 1}, nil
		}
		began := time.Now()
		_, err := b.GetOrLoadMany(t.Context(), []string{"k1", "k2", "k3"}, load,
			&keepcache.LoadOptions{HardTimeout: time.Second})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		close(hang)
		synctest.Wait()
		requireValue(t, b, "k1", int64(1)) // the load went on
	})
}
