package keepcache_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

var (
	deadlineRounds = flag.Int("deadline.rounds", effort.Of(10, 25),
		"how many deadlines are watched, in the time of synctest")
	deadlineTime = flag.Duration("deadline.time", effort.Of(400*time.Millisecond, time.Second),
		"for how long deadlines are watched in real time, in each way")
)

// A sum of TTL and StaleFor that is too large is never: the entry does not land in the past.
func TestDeadline_StaleForEver(t *testing.T) {
	ctx := context.Background()
	one := func(change func(*keepcache.Load)) keepcache.Loader {
		return func(_ context.Context, l *keepcache.Load) (any, error) {
			change(l)
			return "v", nil
		}
	}
	many := func(_ context.Context, keys []string) (map[string]any, error) { return map[string]any{"k": "v"}, nil }
	for name, load := range map[string]func(b *keepcache.Bucket, stale time.Duration) error{
		"options": func(b *keepcache.Bucket, stale time.Duration) error {
			_, err := b.GetOrLoad(ctx, "k", new(any), one(func(*keepcache.Load) {}),
				&keepcache.LoadOptions{TTL: time.Hour, StaleFor: stale})
			return err
		},
		"loader": func(b *keepcache.Bucket, stale time.Duration) error {
			_, err := b.GetOrLoad(ctx, "k", new(any), one(func(l *keepcache.Load) { l.TTL, l.StaleFor = time.Hour, stale }), nil)
			return err
		},
		"many": func(b *keepcache.Bucket, stale time.Duration) error {
			_, err := b.GetOrLoadMany(ctx, []string{"k"}, many, &keepcache.LoadOptions{TTL: time.Hour, StaleFor: stale})
			return err
		},
		"touch": func(b *keepcache.Bucket, stale time.Duration) error {
			_, err := b.GetOrLoad(ctx, "k", new(any), one(func(*keepcache.Load) {}),
				&keepcache.LoadOptions{TTL: time.Minute, StaleFor: stale})
			if err == nil {
				_, err = b.Touch("k", time.Hour)
			}
			return err
		},
	} {
		for _, stale := range []time.Duration{keepcache.NoExpiry, keepcache.NoExpiry - 1, keepcache.NoExpiry - time.Hour} {
			t.Run(fmt.Sprint(name, " ", int64(stale)), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					path := newPath(t)
					db := open(t, path, nil)
					require.NoError(t, load(db.Bucket("b"), stale))
					committed(t, db)
					db = reopen(t, db, path, nil)
					b := db.Bucket("b")
					requireValue(t, b, "k", "v")
					requireTTL(t, b, "k", time.Hour)
					e, found, err := b.Stat("k")
					require.NoError(t, err)
					require.True(t, found)
					require.Equal(t, stale == keepcache.NoExpiry, e.StaleUntil.IsZero(), e.StaleUntil)
					time.Sleep(2 * time.Hour)
					committed(t, db)
					var got string
					result, err := b.GetOrLoad(ctx, "k", &got,
						func(context.Context, *keepcache.Load) (any, error) { return nil, errors.New("down") }, nil)
					require.NoError(t, err)
					require.True(t, result.Stale)
					require.Equal(t, "v", got)
				})
			})
		}
	}
}

// A value is not served stale once it is gone, however long a request was willing to wait before it would serve it.
func TestDeadline_GoneWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Minute, SoftTimeout: 10 * time.Second})
		s.get("one", false, 1)
		time.Sleep(2*time.Minute - 500*time.Millisecond) // half a second before it is gone
		s.answer("two", nil, 30*time.Second)
		begun := time.Now()
		s.get("two", false, 2)
		require.Equal(t, 30*time.Second, time.Since(begun))

		beforeGone := func() {
			e, _, err := s.b.Stat("k")
			require.NoError(t, err)
			time.Sleep(time.Until(e.StaleUntil) - 500*time.Millisecond)
		}
		// HardTimeout holds from there on, and counts from the beginning.
		s.opts.HardTimeout = 5 * time.Second
		beforeGone()
		begun = time.Now()
		s.fails(context.DeadlineExceeded, 3)
		require.Equal(t, 5*time.Second, time.Since(begun))
		time.Sleep(time.Minute)

		// Where that was over already, the request ends as soon as there is nothing to serve any more.
		s.opts.HardTimeout = 100 * time.Millisecond
		s.answer("three", nil, 0)
		s.get("two", false, 3)
		beforeGone()
		s.answer("three", nil, 30*time.Second)
		begun = time.Now()
		s.fails(context.DeadlineExceeded, 4)
		require.Equal(t, 500*time.Millisecond, time.Since(begun))
	})
}

// A stale value of GetOrLoadMany that is gone when the rest has come is loaded too.
func TestDeadline_GoneWhileOthersLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		opts := &keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Minute}
		version := "old"
		load := func(_ context.Context, keys []string) (map[string]any, error) {
			values := map[string]any{}
			for _, key := range keys {
				values[key] = key + version
			}
			if version == "new" {
				time.Sleep(10 * time.Second)
			}
			return values, nil
		}
		_, err := b.GetOrLoadMany(t.Context(), []string{"a", "b"}, load, opts)
		require.NoError(t, err)
		time.Sleep(2*time.Minute - time.Second)
		version = "new"
		entries, err := b.GetOrLoadMany(t.Context(), []string{"a", "b", "c"}, load, opts)
		require.NoError(t, err)
		for _, key := range []string{"a", "b", "c"} {
			var got string
			require.NoError(t, entries[key].Decode(&got))
			require.Equal(t, key+"new", got)
		}
	})
}

// An entry whose life is prolonged while a range is under way is in the range.
func TestDeadline_ProlongedWhileRanging(t *testing.T) {
	for _, sliding := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			db := newDB(t, &keepcache.Options{Buckets: map[string]keepcache.BucketOptions{"b": {Sliding: sliding}}})
			b := db.Bucket("b")
			fill(t, b, 10, time.Second)
			committed(t, db)
			n := 0
			for e, err := range b.All() {
				require.NoError(t, err)
				if n++; n == 1 {
					time.Sleep(500 * time.Millisecond)
					for i := range 9 { // the last one is left to end
						if sliding {
							requireValue(t, b, numbered(i), int64(i))
							continue
						}
						found, err := b.Touch(numbered(i), time.Minute)
						require.NoError(t, err)
						require.True(t, found)
					}
					time.Sleep(600 * time.Millisecond)
				}
				require.Equal(t, numbered(n-1), e.Key)
			}
			require.Equal(t, 9, n)
		})
	}
}

// A pinned entry whose life a read prolongs while a commit is under way comes into the file.
func TestDeadline_ProlongedWhileCommitting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		slowSyncs(t, &slow, func() time.Duration { return 50 * time.Millisecond })
		path := newPath(t)
		opts := slidingOptions()
		opts.SyncInterval, opts.CommitInterval, opts.SweepInterval = time.Hour, time.Hour, -1
		db := open(t, path, opts)
		b := db.Bucket("b")
		mustSet(t, b, "k", "v", 20*time.Second)
		time.Sleep(20*time.Second - 10*time.Millisecond)
		slow.Store(true)
		done := make(chan error)
		go func() { _, err := db.Sweep(context.Background()); done <- err }()
		synctest.Wait() // what is pinned has been collected, and the journal is being flushed
		requireValue(t, b, "k", "v")
		require.NoError(t, <-done)
		slow.Store(false)
		time.Sleep(time.Second)
		requireValue(t, b, "k", "v")
		db = reopen(t, db, path, opts)
		requireValue(t, db.Bucket("b"), "k", "v")
	})
}

// slowSyncs has each flush of a journal take its time while slow is true.
func slowSyncs(t *testing.T, slow *atomic.Bool, takes func() time.Duration) {
	disk.Between = func(op *disk.Op, do func() error) error {
		if slow.Load() && op.Kind == disk.KindSync && strings.HasSuffix(op.File.Name(), "-journal") {
			time.Sleep(takes())
		}
		return do()
	}
	t.Cleanup(func() { disk.Between = nil })
}

// life is what callers saw of one entry, which is written once and then only prolonged, read and changed in place.
type life struct {
	b  *keepcache.Bucket
	at atomic.Int64 // rises with each beginning and end of a call

	mu     sync.Mutex
	absent int64 // the first end of a call that saw it absent
	by     string
	risen  string // what saw it again
}

// saw makes a call and notes what it saw.
func (l *life) saw(name string, call func() (live bool, err error)) error {
	begun := l.at.Add(1)
	live, err := call()
	ended := l.at.Add(1)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !live && (l.absent == 0 || ended < l.absent):
		l.absent, l.by = ended, name
	case live && l.absent != 0 && begun > l.absent && l.risen == "":
		l.risen = name + " after " + l.by
	}
	return nil
}

var errAbsent = errors.New("absent")

// look makes one call at random.
func (l *life) look(key string) error {
	b := l.b
	switch rand.N(12) {
	case 0, 1:
		return l.saw("Touch", func() (bool, error) { return b.Touch(key, time.Minute) })
	case 2:
		return l.saw("Exists", func() (bool, error) { return b.Exists(key) })
	case 3:
		return l.saw("TTL", func() (bool, error) { _, live, err := b.TTL(key); return live, err })
	case 4:
		return l.saw("Update", func() (bool, error) {
			err := update(b, key, func(_ keepcache.Entry, found bool) (any, error) {
				if !found {
					return nil, errAbsent
				}
				return "updated", nil
			})
			if errors.Is(err, errAbsent) {
				return false, nil
			}
			return true, err
		})
	case 5:
		return l.saw("GetMany", func() (bool, error) { found, err := b.GetMany([]string{key}); return len(found) == 1, err })
	case 6:
		return l.saw("All", func() (live bool, err error) {
			for _, err := range b.Prefix(key) {
				return err == nil, err
			}
			return false, nil
		})
	case 7:
		e, found, err := b.Stat(key)
		if err != nil || !found {
			return err
		}
		// That somebody else was quicker says nothing.
		return l.saw("CompareAndSwap", func() (bool, error) {
			swapped, err := compareAndSwap(b, key, e.Revision, "swapped")
			if !swapped && err == nil {
				return b.Exists(key)
			}
			return swapped, err
		})
	case 8:
		return l.saw("Look", func() (bool, error) {
			e, found, err := b.Stat(key)
			return found && time.Now().Before(e.ExpiresAt), err
		})
	}
	return l.saw("Get", func() (bool, error) { return b.Get(key, new(any)) })
}

// watchDeadlines lets entries reach their deadlines while callers look at them and writers leave them no room, until
// done, and returns how often one was seen again that had been seen absent.
func watchDeadlines(t *testing.T, opts keepcache.Options, round func(b *keepcache.Bucket, key string) error,
	done func(rounds, risen int) bool) (risen int) {
	opts.CommitInterval = time.Hour
	db := open(t, newPath(t), &opts)
	b, filled := db.Bucket("b"), db.Bucket("filled")
	ctx, stop := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	value := make([]byte, opts.MemoryBytes/5)
	for w := range 3 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := filled.SetBytes(fmt.Sprint(w, i%4), value, time.Minute); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	defer writers.Wait()
	defer stop()
	for n := 0; !done(n, risen); n++ {
		key := numbered(n)
		if err := round(b, key); err != nil {
			t.Error(err)
			break
		}
		e, found, err := b.Stat(key)
		if err != nil || !found {
			continue // the writer waited for too long
		}
		l := &life{b: b}
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				time.Sleep(time.Until(e.ExpiresAt) - time.Duration(rand.N(4_000_000)))
				for range 6 {
					if err := l.look(key); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Duration(rand.N(1_500_000)))
				}
			})
		}
		callers.Wait()
		if l.risen != "" {
			risen++
			t.Logf("round %d: %s", n, l.risen)
		}
		if _, err := b.Delete(key); err != nil {
			t.Error(err)
		}
	}
	return risen
}

// deadlineScenes are ways in which an entry comes to its deadline.
var deadlineScenes = map[string]struct {
	opts  keepcache.Options
	round func(b *keepcache.Bucket, key string) error
}{
	"plain": {keepcache.Options{}, func(b *keepcache.Bucket, key string) error {
		return b.Set(key, "v", 20*time.Millisecond)
	}},
	"sliding": {*slidingOptions(), func(b *keepcache.Bucket, key string) error {
		return b.Set(key, "v", 20*time.Millisecond)
	}},
	"stale": {keepcache.Options{}, func(b *keepcache.Bucket, key string) error {
		_, err := b.GetOrLoad(context.Background(), key, new(any),
			func(context.Context, *keepcache.Load) (any, error) { return "v", nil },
			&keepcache.LoadOptions{TTL: 20 * time.Millisecond, StaleFor: time.Minute})
		return err
	}},
}

// Once one caller has seen a key absent at its deadline, nobody sees that value again.
func TestDeadline_NeverRises(t *testing.T) {
	for name, scene := range deadlineScenes {
		t.Run(name, func(t *testing.T) {
			require.Zero(t, watchInBubble(t, scene.opts, scene.round, func(n, _ int) bool { return n >= *deadlineRounds }))
		})
	}
}

// The test before this one can fail.
func TestDeadline_Control(t *testing.T) {
	keepcache.Without("deadlines")
	defer keepcache.Without("")
	for name, scene := range deadlineScenes {
		t.Run(name, func(t *testing.T) {
			require.NotZero(t, watchInBubble(t, scene.opts, scene.round,
				func(n, risen int) bool { return n >= 500 || risen > 0 }))
		})
	}
}

func watchInBubble(t *testing.T, opts keepcache.Options, round func(b *keepcache.Bucket, key string) error,
	done func(rounds, risen int) bool) (risen int) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		slow.Store(true)
		// Nobody waits for a lock while a flush takes its time: for that no time passes here.
		opts.SyncInterval, opts.SweepInterval, opts.CompactBytes = time.Hour, -1, -1
		slowSyncs(t, &slow, func() time.Duration { return time.Duration(1+rand.N(8)) * time.Millisecond })
		opts.MemoryBytes = 128 << 10
		risen = watchDeadlines(t, opts, round, done)
		slow.Store(false)
		time.Sleep(time.Second) // until nobody is in a flush any more
	})
	return risen
}

// The same in real time, where calls are really at one time.
func TestDeadline_NeverRisesInRealTime(t *testing.T) {
	for name, scene := range deadlineScenes {
		t.Run(name, func(t *testing.T) {
			end := time.Now().Add(*deadlineTime)
			opts := scene.opts
			opts.MemoryBytes = 1 << 20
			require.Zero(t, watchDeadlines(t, opts, scene.round, func(int, int) bool { return time.Now().After(end) }))
		})
	}
}
