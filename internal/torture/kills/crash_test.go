package kills_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

var crashRuns = flag.Int("crash.runs", effort.Of(3, 5),
	"how many processes to kill of each sort: writing, creating, evicting, compacting, keeping a damaged file aside")

// kill calls fn for each run, several at a time (see go test -parallel): most of a run is waiting for a process.
func kill(t *testing.T, fn func(t *testing.T, run int)) {
	t.Helper()
	cachetest.SkipOnWindows(t, "a killed process's locks and pipes end too late there to be told from a bug")
	t.Run("kill", func(t *testing.T) {
		for run := range *crashRuns {
			t.Run(strconv.Itoa(run), func(t *testing.T) {
				t.Parallel()
				fn(t, run)
			})
		}
	})
}

// What a killed process writes to its pipe, a line before and a line after each operation:
//
//	try WRITER NUMBER MILLIS OP BUCKET KEY TTL
//	did WRITER NUMBER MILLIS RESULT
//
// An operation that was tried and not done may have happened or not.
const (
	crashWriters = 16
	sharedKeys   = 8
	ownKeys      = 6
	briefTTL     = 20 * time.Millisecond
)

var crashBuckets = []string{"default", "sessions", "brief"}

func init() {
	cachetest.Children["crash writer"] = crashWriter
	cachetest.Children["crash creator"] = crashCreator
	cachetest.Children["crash opener"] = crashOpener
}

// crashWriter writes from many goroutines until it is killed.
func crashWriter(t cachetest.Tester, args []string) {
	seed, err := strconv.ParseUint(args[1], 10, 64)
	require.NoError(t, err)
	opts := &keepcache.Options{SweepInterval: 5 * time.Millisecond, CommitInterval: 20 * time.Millisecond}
	if seed%2 == 1 {
		opts.Sync = keepcache.SyncAlways
	}
	db := cachetest.Open(t, args[0], opts)
	failed := make(chan error)
	for writer := range crashWriters {
		go func() {
			r := rand.New(rand.NewPCG(seed, uint64(writer)))
			for number := 0; ; number++ {
				err := crashOperation(db, r, writer, number)
				if errors.Is(err, keepcache.ErrClosed) {
					return
				}
				if err != nil {
					failed <- err
				}
			}
		}()
	}
	if seed%4 >= 2 { // the kill is to meet the Close
		time.Sleep(time.Duration(30+rand.IntN(200)) * time.Millisecond)
		require.NoError(t, db.Close())
	}
	require.NoError(t, <-failed)
}

// crashOpener opens and closes a cache again and again until it is killed, at first most likely in the replay.
func crashOpener(t cachetest.Tester, args []string) {
	for {
		require.NoError(t, cachetest.Open(t, args[0], nil).Close())
	}
}

func crashOperation(db *keepcache.DB, r *rand.Rand, writer, number int) error {
	if r.IntN(20) == 0 {
		return crashMany(db, writer, number)
	}
	op := []string{"set", "set", "set", "set", "set", "delete", "add", "add", "touch", "clear"}[r.IntN(10)]
	bucket := crashBuckets[r.IntN(len(crashBuckets))]
	key := fmt.Sprint("shared", r.IntN(sharedKeys))
	if r.IntN(2) == 0 {
		key = fmt.Sprint("own", writer, "-", r.IntN(ownKeys))
	}
	ttl := []time.Duration{time.Hour, 10 * time.Hour, keepcache.NoExpiry}[r.IntN(3)]
	if bucket == "brief" {
		ttl = briefTTL
	}
	if op == "clear" && r.IntN(20) > 0 {
		op = "prefix"
	}
	value := map[string]any{"id": crashID(writer, number), "fill": strings.Repeat("x", r.IntN(2000))}

	fmt.Fprintf(os.Stdout, "try %d %d %d %s %s %s %d\n", writer, number, time.Now().UnixMilli(), op, bucket, key, ttl)
	b, did := db.Bucket(bucket), true
	var err error
	switch op {
	case "set":
		err = b.Set(key, value, ttl)
	case "delete":
		_, err = b.Delete(key)
	case "add":
		did, err = b.Add(key, value, ttl)
	case "touch":
		did, err = b.Touch(key, ttl)
	case "clear":
		err = b.Clear(context.Background())
	case "prefix":
		_, err = b.DeletePrefix(context.Background(), key)
	}
	if err == nil {
		fmt.Fprintf(os.Stdout, "did %d %d %d %t\n", writer, number, time.Now().UnixMilli(), did)
	}
	return err
}

// crashMany writes all keys that the writer has in a bucket of its own, as one batch.
func crashMany(db *keepcache.DB, writer, number int) error {
	values := map[string]any{}
	for i := range manyKeys {
		values[manyKey(writer, i)] = number
	}
	fmt.Fprintf(os.Stdout, "try %d %d %d many many %s 0\n", writer, number, time.Now().UnixMilli(), manyKey(writer, 0))
	err := db.Bucket("many").SetMany(values, 0)
	if err == nil {
		fmt.Fprintf(os.Stdout, "did %d %d %d true\n", writer, number, time.Now().UnixMilli())
	}
	return err
}

const manyKeys = 5

func manyKey(writer, i int) string { return fmt.Sprint("many", writer, "-", i) }

// checkMany requires that the batches of each writer are there whole, and none older than the last one done.
func checkMany(t *testing.T, b *keepcache.Bucket, ops map[string]*crashOp) {
	t.Helper()
	for writer := range crashWriters {
		least, most := -1, -1
		for id, o := range ops {
			var w, number int
			fmt.Sscanf(id, "%d/%d", &w, &number)
			if o.op == "many" && w == writer {
				most = max(most, number)
				if o.done > 0 {
					least = max(least, number)
				}
			}
		}
		numbers := map[int]int{}
		for i := range manyKeys {
			number := -1
			_, err := b.Get(manyKey(writer, i), &number)
			require.NoError(t, err)
			numbers[number]++
		}
		require.Len(t, numbers, 1, "a batch of writer %d is there in part", writer)
		for number := range numbers {
			require.GreaterOrEqual(t, number, least, "a batch of writer %d is lost", writer)
			require.LessOrEqual(t, number, most)
		}
	}
}

func crashID(writer, number int) string { return fmt.Sprintf("%d/%d", writer, number) }

// crashOp is an operation as its process told of it.
type crashOp struct {
	op, bucket, key string
	ttl             time.Duration
	tried, done     int   // places in the report; done is 0 if it was never done
	from, to        int64 // unix milliseconds; to is the end of time if it was never done
	did             bool
}

// touches reports whether the operation may change the entry.
func (o *crashOp) touches(bucket, key string) bool {
	switch {
	case o.bucket != bucket || o.done > 0 && !o.did:
		return false
	case o.op == "clear":
		return true
	case o.op == "prefix":
		return strings.HasPrefix(key, o.key)
	}
	return o.key == key
}

// before reports whether o was done before p began.
func (o *crashOp) before(p *crashOp) bool { return o.done > 0 && o.done < p.tried }

// readReport reads the lines of a killed process. The last one may be cut short.
func readReport(t *testing.T, r io.Reader) map[string]*crashOp {
	ops := map[string]*crashOp{}
	in := bufio.NewReader(r)
	for place := 1; ; place++ {
		line, err := in.ReadString('\n')
		if err != nil {
			return ops
		}
		var verb, op, bucket, key, did string
		var writer, number int
		var millis, ttl int64
		if strings.HasPrefix(line, "try") {
			_, err = fmt.Sscan(line, &verb, &writer, &number, &millis, &op, &bucket, &key, &ttl)
			require.NoError(t, err, line)
			ops[crashID(writer, number)] = &crashOp{
				op: op, bucket: bucket, key: key, ttl: time.Duration(ttl), tried: place, from: millis, to: 1 << 60,
			}
			continue
		}
		_, err = fmt.Sscan(line, &verb, &writer, &number, &millis, &did)
		require.NoError(t, err, line)
		o := ops[crashID(writer, number)]
		require.NotNil(t, o, line)
		o.done, o.to, o.did = place, millis, did == "true"
	}
}

// A process that is killed while it writes loses no write that returned and leaves nothing that was never
// written; deadlines stay where they were, and the file is sound.
func TestCrash_Kill(t *testing.T) {
	var done, present atomic.Int64
	kill(t, func(t *testing.T, run int) {
		path := filepath.Join(t.TempDir(), "crash.cache")
		cmd, out := cachetest.StartChild(t, "crash writer", path, fmt.Sprint(run))
		reported := make(chan map[string]*crashOp)
		go func() { reported <- readReport(t, out) }()
		time.Sleep(time.Duration(30+rand.IntN(250)) * time.Millisecond)
		require.NoError(t, cmd.Process.Kill())
		ops := <-reported
		for _, o := range ops {
			if o.done > 0 {
				done.Add(1)
			}
		}
		if _, err := os.Stat(path); err != nil {
			return // killed before it had created the file
		}
		if rand.IntN(2) == 0 { // once more, in the replay
			cmd, _ := cachetest.StartChild(t, "crash opener", path)
			time.Sleep(time.Duration(5_000+rand.IntN(25_000)) * time.Microsecond)
			require.NoError(t, cmd.Process.Kill())
			_ = cmd.Wait()
		}
		db := cachetest.Open(t, path, nil)
		cachetest.Sound(t, db)
		checkMany(t, db.Bucket("many"), ops)
		for _, bucket := range crashBuckets {
			present.Add(int64(checkCrashed(t, db.Bucket(bucket), ops)))
		}
		require.NoError(t, db.Close())
	})
	t.Logf("%d runs, %d operations done, %d entries found", *crashRuns, done.Load(), present.Load())
	require.Greater(t, done.Load(), int64(10**crashRuns), "the processes did too little to show anything")
}

// checkCrashed compares the entries of a bucket to what was done to it, and returns how many it found.
func checkCrashed(t *testing.T, b *keepcache.Bucket, ops map[string]*crashOp) (present int) {
	t.Helper()
	all := map[string]bool{}
	for _, o := range ops {
		if o.bucket == b.Name() && (o.op == "set" || o.op == "add") {
			all[o.key] = true
		}
	}
	for e, err := range b.All() {
		require.NoError(t, err)
		require.True(t, all[e.Key], "phantom key %q", e.Key)
	}
	for key := range all {
		var history []*crashOp
		for _, o := range ops {
			if o.touches(b.Name(), key) {
				history = append(history, o)
			}
		}
		entry, found, err := b.Stat(key) // one look, because what is brief may expire between two
		require.NoError(t, err)
		var value struct{ ID string }
		if found {
			require.NoError(t, entry.Decode(&value))
		} else {
			require.True(t, mayBeAbsent(history), "lost: %q in %q: %s", key, b.Name(), describe(history))
			continue
		}
		present++
		wrote := ops[value.ID]
		require.NotNil(t, wrote, "phantom value %q", value.ID)
		require.True(t, wrote.touches(b.Name(), key), "%q holds the value of another key", key)
		for _, o := range history {
			if o.op != "touch" && o.done > 0 {
				require.False(t, wrote.before(o), "%q in %q holds %s, which was overwritten by %+v", key, b.Name(), value.ID, o)
			}
		}
		require.True(t, lifetimeOf(entry, wrote, history), "the deadline of %q, set by %+v, moved to %v: %s", key, *wrote,
			entry.ExpiresAt, describe(history))
	}
	return present
}

// mayBeAbsent reports whether some order of the operations ends without the entry.
func mayBeAbsent(history []*crashOp) bool {
	removable := func(remover *crashOp) bool { // no write that was done came surely after it
		for _, o := range history {
			if (o.op == "set" || o.op == "add") && o.done > 0 && (remover == nil || remover.before(o)) {
				return false
			}
		}
		return true
	}
	if removable(nil) {
		return true
	}
	for _, o := range history {
		removes := o.op == "delete" || o.op == "clear" || o.op == "prefix" || o.ttl == briefTTL
		if removes && removable(o) {
			return true
		}
	}
	return false
}

// lifetimeOf reports whether the deadline of an entry is that of its write, or of a Touch not before it.
func lifetimeOf(entry keepcache.Entry, wrote *crashOp, history []*crashOp) bool {
	for _, o := range history {
		if o != wrote && (o.op != "touch" || o.before(wrote)) {
			continue
		}
		if o.ttl == keepcache.NoExpiry {
			if entry.ExpiresAt.IsZero() {
				return true
			}
			continue
		}
		at, ttl := entry.ExpiresAt.UnixMilli(), o.ttl.Milliseconds()
		if !entry.ExpiresAt.IsZero() && at >= o.from+ttl && at <= min(o.to, time.Now().UnixMilli())+ttl+1 {
			return true
		}
	}
	return false
}

// describe lists operations in the order in which they began.
func describe(history []*crashOp) string {
	history = slices.SortedFunc(slices.Values(history), func(a, b *crashOp) int { return a.tried - b.tried })
	var text strings.Builder
	for _, o := range history {
		fmt.Fprintf(&text, "\n%+v", *o)
	}
	return text.String()
}

// crashCreator creates one cache after the other until it is killed.
func crashCreator(t cachetest.Tester, args []string) {
	for i := 0; ; i++ {
		path := filepath.Join(args[0], fmt.Sprint("cache", i))
		fmt.Println(path)
		db := cachetest.Open(t, path, nil)
		require.NoError(t, db.Set("k", i, 0))
		fmt.Println("set")
		require.NoError(t, db.Close())
	}
}

// A process that is killed while it creates a cache leaves nothing that keeps the next one from opening it.
func TestCrash_KillDuringCreation(t *testing.T) {
	kill(t, func(t *testing.T, _ int) {
		cmd, out := cachetest.StartChild(t, "crash creator", t.TempDir())
		lines := make(chan []string)
		go func() {
			text, _ := io.ReadAll(out)
			lines <- strings.Split(string(text), "\n")
		}()
		time.Sleep(20*time.Millisecond + time.Duration(rand.IntN(60_000))*time.Microsecond)
		require.NoError(t, cmd.Process.Kill())
		told := <-lines
		for i, path := range told[:len(told)-1] {
			if path == "set" {
				continue
			}
			db := cachetest.Open(t, path, nil)
			if i+1 < len(told) && told[i+1] == "set" {
				var n int
				found, err := db.Get("k", &n)
				require.NoError(t, err)
				require.True(t, found)
			}
			require.NoError(t, db.Set("after", 1, 0))
			require.NoError(t, db.Close())
		}
	})
}

// Many processes that create one cache at the same time agree on one file.
func TestCrash_CreationRace(t *testing.T) {
	path := cachetest.NewPath(t)
	var openers sync.WaitGroup
	errs := make(chan error, 8)
	for i := range cap(errs) {
		openers.Go(func() {
			db, err := cachetest.TryOpen(path, &keepcache.Options{LockTimeout: time.Minute})
			if err == nil {
				err = db.Set(fmt.Sprint("k", i), i, 0)
				if closeErr := db.Close(); err == nil {
					err = closeErr
				}
			}
			errs <- err
		})
	}
	openers.Wait()
	for range cap(errs) {
		require.NoError(t, <-errs)
	}
	n, err := cachetest.Open(t, path, nil).Bucket("default").Len()
	require.NoError(t, err)
	require.Equal(t, cap(errs), n)
}
