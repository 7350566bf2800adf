package faults_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/torture/boltpatch"
	"github.com/keepcache/keepcache/internal/torture/effort"
	"github.com/keepcache/keepcache/internal/torture/faults"
	"github.com/keepcache/keepcache/internal/torture/powerloss"
)

// What the processes are told that let calls fail.
var (
	childFirst = flag.Int("faults.first", -1, "for the failing process: the first case; it takes each faults.step-th")
	childStep  = flag.Int("faults.step", 1, "for the failing process")
	perCall    = flag.Int("faults.calls", 1,
		"how many of the calls of one kind on one file fail, each in its own run; 0 is all")
	commits = flag.Int("faults.commits", effort.Of(1, 4), "how many times the runs commit")
	kinds   = flag.String("faults.kinds", "", "which kinds of calls fail, separated by commas; empty is all")
	stop    = flag.Int("faults.stop", 20, "for the failing process: after how many findings it stops")
	always  = flag.Bool("faults.always", false, "only with SyncAlways, where the power is cut too")
	only    = flag.Int("faults.only", -1, "run a single case")
)

// hangMost is how long a run may take, in real time; callMost how long one call of the cache, in the time of the run.
const (
	hangMost = 20 * time.Second
	callMost = 12 * time.Second
	healMost = 20 * time.Second
)

const cacheName = "c"

// failure is one case.
type failure struct {
	call   faults.Call
	nth    int
	way    faults.Way
	always bool
	mode   keepcache.SyncMode
}

func (f failure) String() string {
	often := "once"
	if f.always {
		often = "from then on"
	}
	return fmt.Sprintf("%s %d of %q: %v, %s, mode %d", f.call.Kind, f.nth, f.call.Role, f.way, often, f.mode)
}

// summary is what a failing process tells.
type summary struct {
	Cases, Hit, Errors, Unknown int
	Failed                      int // calls
	Cuts                        int // states of power cuts
	Kinds                       map[string]int
	Bad                         []string
}

// TestFail is the failing process.
func TestFail(t *testing.T) {
	if *childFirst < 0 {
		t.Skip("runs in processes of TestFaults")
	}
	require.True(t, boltpatch.Patched)
	s := summary{Kinds: map[string]int{}}
	for i, f := range cases(t) {
		if len(s.Bad) >= *stop {
			break
		}
		if i%*childStep != *childFirst || *only >= 0 && i != *only {
			continue
		}
		fmt.Printf("case %d: %v\n", i, f)
		w := runCase(t, f)
		s.Cases++
		s.Failed += w.injector.Failed()
		s.Errors += w.errors
		s.Unknown += w.unknown
		s.Cuts += w.cuts
		if w.injector.Failed() > 0 {
			s.Hit++
			s.Kinds[string(f.call.Kind)]++
		}
		for _, bad := range w.bad {
			s.Bad = append(s.Bad, fmt.Sprintf("case %d, %v: %s", i, f, bad))
			fmt.Printf("bad: %s\n", s.Bad[len(s.Bad)-1])
		}
	}
	boltpatch.Summarise(t, s)
}

// cases lists what fails: calls of each kind on each file, as a run without failures makes them.
func cases(t *testing.T) (all []failure) {
	for _, mode := range []keepcache.SyncMode{keepcache.SyncPeriodic, keepcache.SyncAlways} {
		if *always && mode != keepcache.SyncAlways {
			continue
		}
		w := runCase(t, failure{nth: -1, mode: mode})
		require.Empty(t, w.bad)
		require.Zero(t, w.errors)
		counts := w.injector.Calls()
		byName := func(a, b faults.Call) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }
		for _, call := range slices.SortedFunc(maps.Keys(counts), byName) {
			if *kinds != "" && !slices.Contains(strings.Split(*kinds, ","), string(call.Kind)) {
				continue
			}
			for _, nth := range choose(counts[call], *perCall) {
				for i, way := range faults.Ways {
					if !way.Fits(call.Kind) {
						continue
					}
					for _, always := range []bool{false, true} {
						// With the small counts what fails once in one mode fails from then on in the other.
						if effort.Full || *perCall != 1 || always == ((i+int(mode))%2 == 0) {
							all = append(all, failure{call, nth, way, always, mode})
						}
					}
				}
			}
		}
	}
	return all
}

// choose returns n of the numbers below count, spread over all of them, or all if n is 0.
func choose(count, n int) (chosen []int) {
	if n == 0 || n > count {
		n = count
	}
	for i := range n {
		chosen = append(chosen, (2*i+1)*count/(2*n))
	}
	return chosen
}

// work is one run.
type work struct {
	t        *testing.T
	f        failure
	injector *faults.Injector
	r        *rand.Rand
	dir      string
	db       *keepcache.DB
	options  keepcache.Options
	may      map[string]map[string]bool // by bucket/key: the values that may be there, "" for none
	bad      []string
	errors   int // of calls
	cuts     int
	unknown  int // of these, with an outcome that is unknown
	lifted   bool
	recorder *powerloss.Recorder // not nil: the power is cut too
	since    int                 // calls of the cache since the first failure
}

func (w *work) wrong(format string, args ...any) {
	if len(w.bad) < 3 {
		w.bad = append(w.bad, fmt.Sprintf(format, args...))
	}
}

// runCase runs the workload with one failure.
func runCase(t *testing.T, f failure) *work {
	base := ""
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "keepcache-faults-")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	w := &work{
		t: t, f: f, injector: &faults.Injector{}, r: rand.New(rand.NewPCG(1, 1)), dir: dir,
		may: map[string]map[string]bool{},
		options: keepcache.Options{
			Sync: f.mode, SyncInterval: 20 * time.Millisecond, CommitInterval: 100 * time.Millisecond,
			SweepInterval: 50 * time.Millisecond,
			JournalBytes:  64 << 10, MemoryBytes: 512 << 10, CompactBytes: -1,
			Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		},
	}
	if f.nth >= 0 {
		w.injector.Arm(f.call, f.nth, f.way, f.always)
	}
	if f.mode == keepcache.SyncAlways && matters(f.call.Kind) {
		w.recorder, err = powerloss.NewRecorder(dir)
		require.NoError(t, err)
		w.injector.Next = w.recorder.Between
		w.injector.Told = func(op *disk.Op, way faults.Way) {
			if way != faults.After && way != faults.Short {
				w.recorder.Failed(op)
			}
			w.recorder.Mark(failed{})
		}
	}
	hang := time.AfterFunc(hangMost, func() { panic(fmt.Sprintf("hangs: %v", f)) })
	defer hang.Stop()
	synctest.Test(t, func(t *testing.T) {
		disk.Between = w.injector.Between
		defer func() { disk.Between = nil }()
		w.work()
		if disk.Between = nil; w.recorder != nil {
			w.cut()
		}
	})
	return w
}

// matters reports whether a failure of such calls may leave the disk behind what processes see.
func matters(kind disk.Kind) bool {
	switch kind {
	case disk.KindWrite, disk.KindTruncate, disk.KindSync, disk.KindSyncDir, disk.KindRename, disk.KindLink:
		return true
	}
	return false
}

// failed marks a call that failed. The other marks of a record are what may be there from then on, as in work.may.
type failed struct{}

// cutsOfCase is how often the power is cut in one case.
const cutsOfCase = 32

// cut opens what power cuts leave after the first failure: all that was acknowledged has to be there.
func (w *work) cut() {
	w.recorder.End()
	d := w.recorder.Disk()
	d.Rand = w.r
	first := d.Events()
	numbers, marks := d.Marks()
	for i, m := range marks {
		if _, ok := m.(failed); ok {
			first = numbers[i]
			break
		}
	}
	var cuts []int
	for range cutsOfCase {
		if first < d.Events() {
			cuts = append(cuts, first+1+w.r.IntN(d.Events()-first))
		}
	}
	slices.Sort(cuts)
	w.may = map[string]map[string]bool{}
	for _, cut := range cuts {
		d.Advance(cut, func(v any, _ time.Time) {
			if may, ok := v.(map[string]map[string]bool); ok {
				w.may = may
			}
		})
		s := d.Cut(w.r)
		dir, err := os.MkdirTemp(w.dir, "cut-")
		require.NoError(w.t, err)
		require.NoError(w.t, s.Write(dir))
		w.cuts++
		w.after(dir, fmt.Sprintf("after a power cut at %d of %d, the failure was at %d: %v", cut, d.Events(), first, s))
		os.RemoveAll(dir)
	}
}

// moment tells the record what may be there from now on: leaves too, where a call is under way.
func (w *work) moment(leaves map[string]string) {
	if w.recorder == nil {
		return
	}
	may := map[string]map[string]bool{}
	for id, values := range w.may {
		may[id] = maps.Clone(values)
	}
	for id, value := range leaves {
		if may[id] == nil {
			may[id] = map[string]bool{"": true}
		}
		may[id][value] = true
	}
	w.recorder.Mark(may)
}

// after opens a state.
func (w *work) after(dir, when string) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			w.wrong("panic %s: %v", when, p)
		}
	}()
	defer func(before string) { w.dir = before }(w.dir)
	w.dir = dir
	db, err := keepcache.Open(filepath.Join(dir, cacheName), &w.options)
	if err != nil {
		w.wrong("does not open %s: %v", when, err)
		return
	}
	w.db = db
	w.read(when)
	w.sound(when)
}

// work is the workload: creation, commits, sweeps, a compaction, a backup, closing and opening, and a replay.
func (w *work) work() {
	ctx := context.Background()
	w.open()
	for range *commits {
		for range 12 {
			w.operate()
		}
		time.Sleep(120 * time.Millisecond)
	}
	w.call("sweep", nil, func() error { _, err := w.db.Sweep(ctx); return err })
	w.operate()
	w.call("compact", nil, func() error { return w.db.Compact(ctx) })
	for range 12 {
		w.operate()
	}
	w.call("backup", nil, func() error { return w.db.Backup(ctx, io.Discard) })
	w.call("sync", nil, func() error { return w.db.Sync(ctx) })
	w.close()
	w.open()
	for range 12 {
		w.operate()
	}
	if w.recorder == nil {
		w.crash()
	}
	for range 6 {
		w.operate()
	}
	w.close()
	w.open()
	w.operate()

	// The cause is gone: from here on everything works.
	w.lift()
	for range 12 {
		w.operate()
	}
	if err := w.db.Sync(ctx); err != nil {
		w.wrong("sync after the cause is gone: %v", err)
	}
	w.read("at the end")
	if err := w.db.Close(); err != nil {
		w.wrong("close after the cause is gone: %v", err)
	}
	db, err := keepcache.Open(filepath.Join(w.dir, cacheName), &w.options)
	if err != nil {
		w.wrong("open after the end: %v", err)
		return
	}
	w.db = db
	w.read("after the end")
	w.sound("after the end")
	if err := w.db.Close(); err != nil {
		w.wrong("last close: %v", err)
	}
}

// lift takes the cause away, and requires that the cache works again: by itself, within some time.
func (w *work) lift() {
	if w.lifted {
		return
	}
	w.lifted = true
	w.injector.Lift()
	start := time.Now()
	for {
		err := w.db.Set("lifted", "v", 0)
		if err == nil {
			err = w.db.Sync(context.Background())
		}
		if err == nil {
			_, err = w.db.Sweep(context.Background())
		}
		if err == nil {
			return
		}
		if time.Since(start) > healMost {
			w.wrong("does not work again %v after the cause is gone: %v", healMost, err)
			w.db.Close()
			w.open()
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// open opens the cache, if need be when the cause is gone.
func (w *work) open() {
	for try := 0; ; try++ {
		var db *keepcache.DB
		err := w.bounded("open", func() (err error) {
			db, err = keepcache.Open(filepath.Join(w.dir, cacheName), &w.options)
			return err
		})
		if err == nil {
			w.db = db
			break
		}
		w.clear("open", err)
		if errors.Is(err, keepcache.ErrLocked) {
			w.wrong("open after an open that failed: %v", err)
		}
		if try == 2 {
			w.lifted = true
			w.injector.Lift()
		}
		if try == 5 {
			w.wrong("does not open after the cause is gone: %v", err)
			panic(strings.Join(w.bad, "; "))
		}
	}
	w.read("after open")
}

func (w *work) close() {
	if err := w.bounded("close", w.db.Close); err != nil {
		w.clear("close", err)
	}
}

// crash goes on with the files as a process that was killed leaves them.
func (w *work) crash() {
	synctest.Wait() // nobody is to write while the files are copied
	before := w.dir
	w.dir = filepath.Join(before, "next")
	require.NoError(w.t, os.Mkdir(w.dir, 0o700))
	entries, err := os.ReadDir(before)
	require.NoError(w.t, err)
	for _, e := range entries {
		if !e.IsDir() {
			b, err := os.ReadFile(filepath.Join(before, e.Name()))
			require.NoError(w.t, err)
			require.NoError(w.t, os.WriteFile(filepath.Join(w.dir, e.Name()), b, 0o600))
		}
	}
	old := w.db
	w.open()
	if err := w.bounded("close", old.Close); err != nil {
		w.clear("close", err)
	}
}

// bounded requires that a call does not take too long.
func (w *work) bounded(what string, fn func() error) error {
	start := time.Now()
	err := fn()
	if took := time.Since(start); took > callMost {
		w.wrong("%s took %v: %v", what, took, err)
	}
	return err
}

// clear requires that an error says which call failed and why.
func (w *work) clear(what string, err error) {
	w.errors++
	var ours *keepcache.Error
	switch {
	case w.injector.Failed() == 0:
		w.wrong("%s fails although no call did: %v", what, err)
	case !errors.As(err, &ours):
		w.wrong("%s returns an error that is none of ours: %v", what, err)
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENOSPC), errors.Is(err, keepcache.ErrClosed):
	case strings.Contains(err.Error(), "cannot be read any more"): // bbolt keeps the cause to itself
	case strings.Contains(err.Error(), "input/output error"), strings.Contains(err.Error(), "no space left on device"):
	default:
		w.wrong("%s returns an error that does not tell the cause: %v", what, err)
	}
}

// call makes a call of the cache that is to leave what may says, by bucket and key.
func (w *work) call(what string, leaves map[string]string, fn func() error) {
	if w.injector.Failed() > 0 {
		if w.since++; w.since > 30 {
			w.lift()
		}
	}
	w.moment(leaves)
	err := w.bounded(what, fn)
	unknown := err != nil && errors.Is(err, keepcache.ErrUnknownOutcome)
	if err != nil {
		w.clear(what, err)
		if w.lifted {
			w.wrong("%s fails after the cause is gone: %v", what, err)
		}
	}
	if unknown {
		w.unknown++
	}
	for key, value := range leaves {
		switch {
		case err == nil:
			w.may[key] = map[string]bool{value: true}
		case unknown:
			if w.may[key] == nil {
				w.may[key] = map[string]bool{"": true}
			}
			w.may[key][value] = true
		}
	}
	w.moment(nil)
	if len(leaves) > 0 {
		w.read(what)
	}
}

// operate makes one write.
func (w *work) operate() {
	bucket := fmt.Sprint("b", w.r.IntN(2))
	b := w.db.Bucket(bucket)
	key := fmt.Sprint("k", w.r.IntN(10))
	id := bucket + "/" + key
	size := w.r.IntN(2000)
	what := w.r.IntN(20)
	if what == 19 {
		size = 30_000 + w.r.IntN(20_000)
	}
	value := fmt.Sprint(w.r.Uint32(), strings.Repeat("v", size))
	switch {
	case what < 3:
		w.call("delete "+id, map[string]string{id: ""}, func() error { _, err := b.Delete(key); return err })
	case what < 6:
		values, leaves := map[string]any{}, map[string]string{}
		for i := range 4 {
			key := fmt.Sprint("k", i)
			values[key], leaves[bucket+"/"+key] = value, value
		}
		w.call("set many "+bucket, leaves, func() error { return b.SetMany(values, 0) })
	case what < 7:
		leaves := map[string]string{}
		for i := range 10 {
			leaves[fmt.Sprint(bucket, "/k", i)] = ""
		}
		w.call("clear "+bucket, leaves, func() error { return b.Clear(context.Background()) })
	case what < 8:
		w.call("brief "+id, map[string]string{id: ""}, func() error {
			err := b.Set(key, value, time.Millisecond)
			time.Sleep(2 * time.Millisecond)
			return err
		})
	default:
		w.call("set "+id, map[string]string{id: value}, func() error { return b.Set(key, value, time.Hour) })
	}
}

// read requires that each key has a value that it may have.
func (w *work) read(when string) {
	for id, may := range w.may {
		bucket, key, _ := strings.Cut(id, "/")
		var value string
		found, err := w.db.Bucket(bucket).Get(key, &value)
		switch {
		case err != nil:
			w.wrong("get %s %s: %v", id, when, err)
		case !may[value]:
			w.wrong("%s: %s is %.12q (found %t) and not one of %.12q", when, id, value, found, slices.Collect(maps.Keys(may)))
		}
	}
}

// sound proves the cache and its pages.
func (w *work) sound(when string) {
	report, err := w.db.Verify(context.Background())
	if err != nil {
		w.wrong("verify %s: %v", when, err)
	}
	if !report.OK() {
		w.wrong("not sound %s: %v", when, report.Problems)
	}
	if err := w.db.Close(); err != nil {
		w.wrong("close %s: %v", when, err)
	}
	db, err := bolt.Open(filepath.Join(w.dir, cacheName), 0o600, &bolt.Options{Timeout: time.Second, ReadOnly: true})
	if err != nil {
		w.wrong("plain bbolt does not open it %s: %v", when, err)
		return
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) (err error) {
		for e := range tx.Check() {
			err = errors.Join(err, e)
		}
		return err
	})
	if err != nil {
		w.wrong("bad pages %s: %v", when, err)
	}
}
