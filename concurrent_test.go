package keepcache_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// Of 16 goroutines that each add the same 1,000 keys exactly one wins each key, and its value stays.
func TestAdd_ExactlyOneWins(t *testing.T) {
	db := newDB(t, nil)
	var winners [1000]atomic.Int64 // 1 + goroutine, summed up
	var wins atomic.Int64
	var adders sync.WaitGroup
	for g := range 16 {
		adders.Go(func() {
			b := db.Bucket("b")
			for i := range winners {
				i = (i + g*7) % len(winners)
				added, err := b.Add(numbered(i), g, time.Hour)
				if err != nil {
					t.Errorf("add: %v", err)
					return
				}
				if added {
					wins.Add(1)
					winners[i].Add(int64(1 + g))
				}
			}
		})
	}
	adders.Wait()
	require.Equal(t, int64(len(winners)), wins.Load())
	for i := range winners {
		requireValue(t, db.Bucket("b"), numbered(i), winners[i].Load()-1)
	}
	require.Equal(t, uint64(len(winners)), db.Stats().Sets)
}

// Of many goroutines that delete or touch one key that appears once, exactly one deletes it.
func TestDelete_ExactlyOneFinds(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	for round := range 50 {
		mustSet(t, b, "k", round, 0)
		var found atomic.Int64
		var deleters sync.WaitGroup
		for range 8 {
			deleters.Go(func() {
				if ok, err := b.Delete("k"); err != nil {
					t.Errorf("delete: %v", err)
				} else if ok {
					found.Add(1)
				}
			})
		}
		deleters.Wait()
		require.Equal(t, int64(1), found.Load())
	}
}

// A goroutine reads its own writes at once, whatever others do.
func TestReadYourWrites(t *testing.T) {
	db := newDB(t, &keepcache.Options{SweepInterval: time.Millisecond})
	var users sync.WaitGroup
	for g := range 16 {
		users.Go(func() {
			b, key := db.Bucket(fmt.Sprint("b", g%3)), fmt.Sprint("own", g)
			for i := range 50 {
				if err := b.Set(key, i, time.Hour); err != nil {
					t.Errorf("set: %v", err)
				}
				var got int
				if found, err := b.Get(key, &got); err != nil || !found || got != i {
					t.Errorf("get: %v %v, want %d, got %d", found, err, i, got)
				}
				if i%5 == 0 {
					if found, err := b.Delete(key); err != nil || !found {
						t.Errorf("delete: %v %v", found, err)
					}
					if found, err := b.Exists(key); err != nil || found {
						t.Errorf("exists after delete: %v %v", found, err)
					}
				}
			}
		})
	}
	users.Wait()
}

// A large value that is overwritten while it is read is one of the values that were written, and never missed.
func TestGet_WhileOverwritten(t *testing.T) {
	db := newDB(t, nil)
	b := db.Bucket("b")
	value := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 1<<20) }
	require.NoError(t, b.SetBytes("k", value(0), 0))
	var done atomic.Bool
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for !done.Load() {
				got, found, err := b.GetBytes("k")
				if err != nil || !found || bytes.Count(got, got[:1]) != 1<<20 {
					t.Errorf("get: %v %v, %d bytes", found, err, len(got))
					return
				}
			}
		})
	}
	for i := range effort.Of(30, 100) {
		require.NoError(t, b.SetBytes("k", value(i), 0))
	}
	done.Store(true)
	readers.Wait()
	require.Zero(t, db.Stats().Damaged)
}

// keyInput and keyOutput are a call on one key as the linearizability check sees it.
type keyInput struct {
	op    string
	value int
	hours int // lifetime
}

type keyOutput struct {
	ok    bool
	value int
	hours int
}

// keyState is what a key holds; value is 0 where it is absent.
type keyState struct{ value, hours int }

var keyModel = porcupine.Model{
	Init: func() any { return keyState{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(keyState), input.(keyInput), output.(keyOutput)
		there := s.value != 0
		switch in.op {
		case "set":
			return true, keyState{in.value, in.hours}
		case "get":
			return out.ok == there && out.value == s.value, s
		case "ttl":
			return out.ok == there && out.hours == s.hours, s
		case "delete":
			return out.ok == there, keyState{}
		case "add":
			if out.ok != !there || there {
				return out.ok == !there, s
			}
			return true, keyState{in.value, in.hours}
		case "touch":
			if out.ok != there || !there {
				return out.ok == there, s
			}
			return true, keyState{s.value, in.hours}
		case "clear":
			return true, keyState{}
		case "update": // keeps the lifetime; out has what fn saw
			if out.ok != there || out.value != s.value {
				return false, s
			}
			if !there {
				return true, keyState{in.value, 0}
			}
			return true, keyState{in.value, s.hours}
		case "swap":
			return out.ok == there && out.value == s.value, keyState{in.value, in.hours}
		case "take":
			return out.ok == there && out.value == s.value, keyState{}
		}
		return false, s
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

func keyCall(b *keepcache.Bucket, in keyInput) (out keyOutput, err error) {
	const key = "k"
	ttl := time.Duration(in.hours)*time.Hour + time.Minute
	switch in.op {
	case "set":
		err = b.Set(key, in.value, ttl)
	case "get":
		out.ok, err = b.Get(key, &out.value)
	case "ttl":
		var left time.Duration
		left, out.ok, err = b.TTL(key)
		out.hours = int(left / time.Hour)
	case "delete":
		out.ok, err = b.Delete(key)
	case "add":
		out.ok, err = b.Add(key, in.value, ttl)
	case "touch":
		out.ok, err = b.Touch(key, ttl)
	case "clear":
		err = b.Clear(context.Background())
	case "update":
		err = update(b, key, func(old keepcache.Entry, found bool) (any, error) {
			out = keyOutput{ok: found}
			if !found {
				return in.value, nil
			}
			return in.value, old.Decode(&out.value)
		})
	case "swap":
		out.ok, err = b.Swap(key, in.value, ttl, &out.value)
	case "take":
		out.ok, err = b.Take(key, &out.value)
	}
	return out, err
}

// Calls on one key are linearizable, with sweeps, clears and other keys' commits going on.
func TestLinearizable(t *testing.T) {
	rounds := 15
	if long {
		rounds = 300
	}
	ops := []string{"set", "set", "get", "get", "ttl", "delete", "add", "add", "touch", "touch", "clear", "update",
		"update", "swap", "take"}
	db := newDB(t, &keepcache.Options{SweepInterval: time.Millisecond, DefaultTTL: time.Minute})
	ctx, stop := context.WithCancel(context.Background())
	var noise sync.WaitGroup
	noise.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if err := db.Bucket("noise").Set(numbered(i%100), i, time.Millisecond); err != nil {
				t.Errorf("set: %v", err)
			}
		}
	})
	for round := range rounds {
		b := db.Bucket(fmt.Sprint("round", round))
		var mu sync.Mutex
		var history []porcupine.Operation
		start := time.Now()
		var callers sync.WaitGroup
		for client := range 8 {
			callers.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(client)))
				for i := range 40 {
					in := keyInput{op: ops[r.IntN(len(ops))], value: 1 + client*1000 + i, hours: 1 + r.IntN(5)}
					call := time.Since(start)
					out, err := keyCall(b, in)
					returned := time.Since(start)
					if err != nil {
						t.Errorf("%s: %v", in.op, err)
						return
					}
					mu.Lock()
					history = append(history, porcupine.Operation{
						ClientId: client, Input: in, Call: int64(call), Output: out, Return: int64(returned),
					})
					mu.Unlock()
				}
			})
		}
		callers.Wait()
		result, info := porcupine.CheckOperationsVerbose(keyModel, history, 20*time.Second)
		if result == porcupine.Illegal {
			file := t.ArtifactDir() + "/linearizability.html"
			require.NoError(t, porcupine.VisualizePath(keyModel, info, file))
			t.Fatalf("round %d is not linearizable; see %s", round, file)
		}
		require.Equal(t, porcupine.Ok, result, "the check came to no end")
	}
	stop()
	noise.Wait()
}

// All operations at once, on few keys and buckets: nothing fails, and the cache is sound meanwhile and after.
func TestStress(t *testing.T) {
	length := 1500 * time.Millisecond
	if long {
		length = time.Minute
	}
	path := newPath(t)
	db := open(t, path, &keepcache.Options{SweepInterval: time.Millisecond})
	ctx := context.Background()
	end := time.Now().Add(length)
	var users sync.WaitGroup
	for g := range 12 {
		users.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for time.Now().Before(end) {
				name := fmt.Sprint("b", r.IntN(4))
				b, key := db.Bucket(name), numbered(r.IntN(50))
				ttl := []time.Duration{0, time.Millisecond, 10 * time.Millisecond, time.Hour}[r.IntN(4)]
				var err error
				var value any
				switch r.IntN(26) {
				case 0:
					err = b.Clear(ctx)
				case 1:
					_, err = db.DropBucket(name)
				case 2:
					_, err = b.DeletePrefix(ctx, key[:5])
				case 3:
					_, err = db.Sweep(ctx)
				case 4:
					report, verifyErr := db.Verify(ctx)
					if err = verifyErr; err == nil && !report.OK() {
						err = fmt.Errorf("%v", report.Problems)
					}
				case 5:
					for _, e := range b.All() {
						if e != nil {
							err = e
						}
					}
				case 6:
					_, err = b.Len()
				case 7:
					_, err = db.Buckets()
					_ = db.Stats()
				case 8, 9:
					_, err = b.Delete(key)
				case 10, 11:
					_, err = b.Add(key, g, ttl)
				case 12, 13:
					_, err = b.Touch(key, ttl)
				case 14:
					_, err = b.Get(key, &value)
				case 15:
					_, _, err = b.Stat(key)
				case 16:
					_, err = b.GetOrLoad(ctx, key, &value, func(context.Context, *keepcache.Load) (any, error) { return g, nil },
						&keepcache.LoadOptions{TTL: time.Millisecond, StaleFor: 5 * time.Millisecond, RefreshAhead: 0.5})
				case 17:
					err = b.WithTags("t"+key[5:]).Set(key, g, ttl)
				case 18:
					err = db.InvalidateTags("t" + key[5:])
				case 19:
					err = update(b, key, func(keepcache.Entry, bool) (any, error) { return g, nil })
				case 20:
					_, err = b.Take(key, nil)
				case 21:
					var batch keepcache.Batch
					batch.Set(b, key, g, ttl)
					batch.Delete(db.Bucket("b0"), key)
					err = db.Apply(&batch)
				default:
					err = b.Set(key, make([]int, r.IntN(200)), ttl)
				}
				if err != nil {
					t.Errorf("%v", err)
					return
				}
			}
		})
	}
	users.Wait()
	_, err := db.Sweep(ctx)
	require.NoError(t, err)
	report := sound(t, db)
	require.Zero(t, report.Pending, "entries in a bucket that was cleared before they came")
	require.Zero(t, db.Stats().Damaged)
	require.Zero(t, db.Stats().Sweep.Orphans)
}
