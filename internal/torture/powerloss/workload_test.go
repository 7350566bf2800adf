package powerloss_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/torture/powerloss"
)

// Marks of a run. Writers have buckets of their own, in which their operations happen one after the other, so that
// after a power cut each has to find what it had after some number of its operations.
type (
	tried   struct{ writer, n int } // operation n of a writer begins
	acked   struct{ writer, n int } // it has returned
	flushes struct{ n int }         // a call begins after which all is durable that returned before it
	flushed struct{ n int }         // it has returned
)

// cacheName is the base name of the cache.
const cacheName = "c"

// syncSlack is how much longer than SyncInterval a write may take to be durable. Syncs take no time in a run.
const syncSlack = time.Millisecond

// entry is what a test remembers of an entry.
type entry struct {
	value  string
	year   int // of the deadline, 0 for none
	tagged bool
	unsure bool // a damaged file may have taken it away
}

// writer is one writer and what it knows.
type writer struct {
	number int
	r      *rand.Rand
	state  map[string]map[string]entry   // bucket, key
	states []map[string]map[string]entry // after each number of operations
	digest []uint64                      // of these
	log    []string                      // what the operations were
}

// did remembers the state after one more operation.
func (w *writer) did(what string, args ...any) {
	state := map[string]map[string]entry{}
	for name, b := range w.state {
		state[name] = maps.Clone(b)
	}
	w.states = append(w.states, state)
	w.digest = append(w.digest, w.sum())
	w.log = append(w.log, fmt.Sprintf(what, args...))
}

// digestOf makes a number of all entries, whatever their order.
func digestOf(bucket, key string, e entry) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s %s %d", bucket, key, e.value, e.year)
	return h.Sum64()
}

func (w *writer) sum() (sum uint64) {
	for name, b := range w.state {
		for key, e := range b {
			sum ^= digestOf(name, key, e)
		}
	}
	return sum
}

// run is one recorded run.
type run struct {
	options  keepcache.Options
	writers  []*writer
	recorder *powerloss.Recorder
	revision uint64 // the highest one so far
	floor    uint64 // while it is not 0, all that is there has a higher revision
	harmed   string // how the file was damaged last
}

// optionsOf are options under which files are made, committed and used again all the time.
func optionsOf(r *rand.Rand) keepcache.Options {
	o := keepcache.Options{
		Sync:           keepcache.SyncMode(r.IntN(2)),
		SyncInterval:   time.Duration(10+r.IntN(30)) * time.Millisecond,
		JournalBytes:   64 << 10,
		MemoryBytes:    int64(128<<10) << r.IntN(4),
		CommitInterval: time.Duration(20+r.IntN(200)) * time.Millisecond,
		SweepInterval:  time.Duration(20+r.IntN(50)) * time.Millisecond,
		CompactBytes:   -1,
	}
	if r.IntN(3) == 0 {
		o.JournalBytes = 256 << 10
	}
	if r.IntN(3) == 0 {
		o.CommitInterval = time.Hour // until the journal is full
	}
	return o
}

// record runs a cache in dir and records what reaches the disk.
func record(t *testing.T, seed uint64, dir string) *run {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	recorder, err := powerloss.NewRecorder(dir)
	require.NoError(t, err)
	run := &run{options: optionsOf(r), recorder: recorder}
	for i := range 1 + r.IntN(3) {
		run.writers = append(run.writers, &writer{
			number: i, r: rand.New(rand.NewPCG(seed, uint64(i)+1)), state: map[string]map[string]entry{},
			states: []map[string]map[string]entry{nil}, digest: []uint64{0},
		})
	}
	synctest.Test(t, func(t *testing.T) {
		// Others come in during a sync, but no time passes: the bubble's clock stands still while anybody waits for a lock.
		recorder.Pause = func() {
			for range rand.IntN(40) {
				runtime.Gosched()
			}
		}
		disk.Between = recorder.Between
		defer func() { disk.Between = nil }()
		calls := 0
		flushing := func(fn func() error) {
			calls++
			recorder.Mark(flushes{calls})
			require.NoError(t, fn())
			recorder.Mark(flushed{calls})
		}
		damages := r.IntN(3) == 0
		for session := range 2 + r.IntN(2) {
			harmed := damages && session > 0 && r.IntN(3) > 0 && run.harm(t, r, false)
			db, err := keepcache.Open(filepath.Join(dir, cacheName), &run.options)
			require.NoError(t, err)
			if harmed {
				require.EqualValues(t, 1, db.Stats().Health.Quarantined)
				run.survey(t, db, false)
			}
			for range 1 + r.IntN(3) {
				var working sync.WaitGroup
				for _, w := range run.writers {
					working.Go(func() {
						for range 5 + w.r.IntN(25) {
							w.operate(t, db, recorder)
							if w.r.IntN(3) == 0 {
								time.Sleep(time.Duration(w.r.IntN(20)) * time.Millisecond)
							}
						}
					})
				}
				ctx := context.Background()
				what := r.IntN(6)
				if what < 3 {
					time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
				}
				switch what {
				case 0, 3:
					require.NoError(t, db.Compact(ctx))
				case 1:
					_, err := db.Sweep(ctx)
					require.NoError(t, err)
				case 2, 4:
					flushing(func() error { return db.Sync(ctx) })
				}
				working.Wait()
				if damages && r.IntN(4) == 0 {
					run.cutShort(t, r, db)
				}
			}
			run.checkRevisions(t, db)
			flushing(db.Close)
			run.closed()
		}
		recorder.End()
	})
	return run
}

// operate does one operation and remembers what it came to.
func (w *writer) operate(t *testing.T, db *keepcache.DB, recorder *powerloss.Recorder) {
	n := len(w.digest)
	name := fmt.Sprintf("w%d%c", w.number, 'a'+rune(w.r.IntN(2)))
	if w.state[name] == nil {
		w.state[name] = map[string]entry{}
	}
	b, state := db.Bucket(name), w.state[name]
	tag := fmt.Sprint("t", w.number)
	key := fmt.Sprint("k", w.r.IntN(12))
	size := w.r.IntN(600)
	switch w.r.IntN(30) {
	case 0:
		size = 20_000 + w.r.IntN(30_000) // may be too large for the journal
	case 1, 2, 3:
		size = w.r.IntN(9000)
	}
	value := fmt.Sprintf("%d %d %s", w.number, n, strings.Repeat(string(rune('a'+n%26)), size))
	ttl, year := keepcache.NoExpiry, 0
	if k := w.r.IntN(50); k > 0 && w.r.IntN(2) == 0 {
		year = 2100 + k
		ttl = time.Until(time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC))
	}
	e := entry{value: value, year: year}
	ctx := context.Background()
	what := w.r.IntN(100)
	recorder.Mark(tried{w.number, n})

	// The new state is made beside the call: what the digest of operation n is must be known even if it never returns.
	var do func() error
	kind := ""
	switch {
	case what < 40:
		kind = "set"
		if w.r.IntN(4) == 0 {
			b, e.tagged = b.WithTags(tag), true
		}
		state[key] = e
		do = func() error { return b.Set(key, value, ttl) }
	case what < 52:
		kind = "set many"
		values := map[string]any{}
		for i := range 2 + w.r.IntN(6) {
			key := fmt.Sprint("k", i)
			values[key], state[key] = value, e
		}
		do = func() error { return b.SetMany(values, ttl) }
	case what < 62:
		kind = "delete"
		delete(state, key)
		do = func() error { _, err := b.Delete(key); return err }
	case what < 70:
		kind = "touch"
		if old, ok := state[key]; ok {
			state[key] = entry{value: old.value, year: year, tagged: old.tagged}
		}
		do = func() error { _, err := b.Touch(key, ttl); return err }
	case what < 74:
		kind = "add"
		if _, ok := state[key]; !ok {
			state[key] = e
		}
		do = func() error { _, err := b.Add(key, value, ttl); return err }
	case what < 82:
		kind, key = "increment", "n"
		old := state[key]
		var sum int
		fmt.Sscan(old.value, &sum)
		state[key] = entry{value: fmt.Sprint(sum + 3), tagged: old.tagged}
		do = func() error { _, err := b.Increment(key, 3, keepcache.NoExpiry); return err }
	case what < 88:
		kind = "apply"
		other := fmt.Sprintf("w%d%c", w.number, 'a'+rune(w.r.IntN(2)))
		if w.state[other] == nil {
			w.state[other] = map[string]entry{}
		}
		gone := fmt.Sprint("k", w.r.IntN(12))
		var batch keepcache.Batch
		batch.Set(b, key, value, ttl)
		state[key] = e
		batch.Delete(db.Bucket(other), gone)
		delete(w.state[other], gone)
		do = func() error { return db.Apply(&batch) }
	case what < 93:
		kind, key = "brief", fmt.Sprint("brief", w.r.IntN(4)) // is over when the state is looked at
		do = func() error { return b.Set(key, value, time.Duration(1+w.r.IntN(60))*time.Millisecond) }
	case what < 95:
		kind = "clear"
		w.state[name] = map[string]entry{}
		do = func() error { return b.Clear(ctx) }
	case what < 96:
		kind = "drop"
		w.state[name] = map[string]entry{}
		do = func() error { _, err := db.DropBucket(name); return err }
	case what < 98:
		kind = "take"
		delete(state, key)
		do = func() error { var v any; _, err := b.Take(key, &v); return err }
	default:
		kind = "invalidate " + tag
		for _, b := range w.state {
			for key, e := range b {
				if e.tagged {
					delete(b, key)
				}
			}
		}
		do = func() error { return db.InvalidateTags(tag) }
	}
	w.did("%d: %s %s %s, %d bytes, year %d", n, kind, name, key, len(value), year)
	require.NoError(t, do())
	recorder.Mark(acked{w.number, n})
}
