package powerloss_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/torture/boltpatch"
	"github.com/keepcache/keepcache/internal/torture/powerloss"
)

// What the processes are told that explore.
var (
	childSeed = flag.Uint64("powerloss.seed", 0,
		"for the exploring process: the first seed; it takes each powerloss.step-th")
	childStep   = flag.Uint64("powerloss.step", 1, "for the exploring process")
	childStates = flag.Int("powerloss.explore", 0, "for the exploring process: how many states")
	childSkip   = flag.String("powerloss.skip", "",
		"for the exploring process: syncs that do nothing: all, journal, file, names")
	childStop   = flag.Int("powerloss.stop", 5, "for the exploring process: after how many bad states it stops")
	childKilled = flag.Int("powerloss.killed", againOften,
		"for the exploring process: in percent, for how many states a killed process leaves the files to one that the power is cut under")
	childDamage = flag.Int("powerloss.damaged", damagedOften,
		"for the exploring process: in percent, for how many states the file is damaged before they are opened")
	childHang = flag.Duration("powerloss.hang", 8*time.Second,
		"for the exploring process: how long opening and proving a state may take")
)

const (
	cutsOfRun   = 60
	statesOfCut = 8
	// againOften is how many of the states have the power cut again while they are opened, in percent; and as many times
	// it is a killed process that leaves the files, and the power is cut under the one that comes after it.
	againOften    = 2
	statesOfAgain = 12
	// damagedOften is how many of the states are damaged before they are opened, with the power cut again then, in
	// percent.
	damagedOften = 2
)

// summary is what an exploring process tells.
type summary struct {
	Runs, Events   int
	Cuts           int
	States         int // that were opened
	Again          int // of those, states of a power cut during the recovery from another
	Damaged        int // of those, states in which the file was damaged besides
	Fresh          int // of those, states with a fresh file in the place of a damaged one
	Same           int // that were not opened, because they had been
	Always         int // states of runs with SyncAlways
	Bad            int
	Failures       []string
	Lost, Elsewise int // of the bad states, those that lost something, and others
	Acked          int // operations that had returned, over all states
	Unacked        int // operations of which states had something although they had not returned
}

// TestExplore is the exploring process.
func TestExplore(t *testing.T) {
	if *childStates == 0 {
		t.Skip("runs in processes of TestPowerLoss")
	}
	require.True(t, boltpatch.Patched)
	x := &explorer{t: t, seen: map[uint64]bool{}, seed: maphash.MakeSeed(), at: make(chan string, 1)}
	go x.watch()
	for seed := *childSeed; x.States < *childStates && x.Bad < *childStop; seed += *childStep {
		x.explore(seed)
	}
	boltpatch.Summarise(t, x.summary)
}

type explorer struct {
	summary
	t    *testing.T
	seen map[uint64]bool
	seed maphash.Seed
	at   chan string // what is being opened now, or "" while nothing is
}

// watch ends the process when a state takes too long.
func (x *explorer) watch() {
	now := ""
	for {
		timeout := time.After(*childHang)
		if now == "" {
			timeout = nil
		}
		select {
		case now = <-x.at:
		case <-timeout:
			panic("a state hangs: " + now)
		}
	}
}

// tempDir makes a directory where syncs cost nothing, if there is such a place.
func tempDir(t *testing.T) string {
	base := ""
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "keepcache-powerloss-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// explore records one run and opens what power cuts leave of it.
func (x *explorer) explore(seed uint64) {
	dir := tempDir(x.t)
	defer os.RemoveAll(dir)
	recorded, opened := filepath.Join(dir, "run"), filepath.Join(dir, "state")
	require.NoError(x.t, os.Mkdir(recorded, 0o700))
	run := record(x.t, seed, recorded)
	if x.t.Failed() {
		x.t.FailNow()
	}
	require.NoError(x.t, os.RemoveAll(recorded))
	d := run.recorder.Disk()
	d.Skips = skips(*childSkip)
	x.Runs++
	x.Events += d.Events()

	r := rand.New(rand.NewPCG(seed, 99))
	l := newLedger(run)
	for _, cut := range cuts(r, d, cutsOfRun) {
		d.Advance(cut, l.happened)
		x.Cuts++
		b := l.bounds(timeOf(d, cut))
		for range statesOfCut {
			if x.States >= *childStates || x.Bad >= *childStop {
				return
			}
			s, b := d.Cut(r), b
			var again func(*powerloss.Recorder) *powerloss.Disk
			switch {
			case r.IntN(100) < againOften:
				again = (*powerloss.Recorder).Disk
			case r.IntN(100) < *childKilled:
				s = d.Live()
				again = func(r *powerloss.Recorder) *powerloss.Disk { return d.Then(s, r) }
			case r.IntN(100) < *childDamage:
				again = (*powerloss.Recorder).Disk
				if r.IntN(2) == 0 {
					s = d.Live()
					again = func(r *powerloss.Recorder) *powerloss.Disk { return d.Then(s, r) }
				}
				b = b.damage(r, s)
			}
			x.open(run, s, b, opened, fmt.Sprintf("seed %d, cut %d of %d: %s", seed, cut, d.Events(), s), r, again)
		}
	}
}

// cuts chooses moments: half of them anywhere, the others beside syncs and renamings.
func cuts(r *rand.Rand, d *powerloss.Disk, n int) (at []int) {
	syncs := d.Syncs()
	for range n {
		if len(syncs) == 0 || r.IntN(2) == 0 {
			at = append(at, 1+r.IntN(d.Events()))
		} else {
			at = append(at, min(syncs[r.IntN(len(syncs))]+r.IntN(3), d.Events()))
		}
	}
	slices.Sort(at)
	return slices.Compact(at)
}

// timeOf returns when the power goes: the moment before the next event.
func timeOf(d *powerloss.Disk, cut int) time.Time {
	return d.Time(min(cut, d.Events()-1))
}

// skips says for which files the syncs do nothing.
func skips(what string) func(string) bool {
	switch what {
	case "":
		return nil
	case "all":
		return func(string) bool { return true }
	case "journal":
		return func(name string) bool { return strings.HasSuffix(name, "-journal") }
	case "file":
		return func(name string) bool { return name == cacheName || strings.HasPrefix(name, cacheName+".") }
	case "names":
		return func(name string) bool { return name == "." }
	}
	panic("unknown: " + what)
}

// open makes a state, opens it, and looks whether it keeps what was promised. With again the power is cut while it
// does, and again gives the disk for the record of that.
func (x *explorer) open(run *run, s *powerloss.State, b bounds, dir, what string, r *rand.Rand,
	again func(*powerloss.Recorder) *powerloss.Disk) {
	hash := s.Hash(x.seed) ^ maphash.String(x.seed, fmt.Sprint(b.least, b.most, b.loose, b.after, run.options.Sync))
	if x.seen[hash] && again == nil {
		x.Same++
		return
	}
	x.seen[hash] = true
	if len(x.seen) > 1<<20 {
		clear(x.seen)
	}
	x.States++
	if run.options.Sync == keepcache.SyncAlways {
		x.Always++
	}
	for w := range b.least {
		x.Acked += b.least[w]
	}
	require.NoError(x.t, os.Mkdir(dir, 0o700))
	defer os.RemoveAll(dir)
	require.NoError(x.t, s.Write(dir))
	var recorder *powerloss.Recorder
	if again != nil {
		var err error
		recorder, err = powerloss.NewRecorder(dir)
		require.NoError(x.t, err)
		disk.Between = recorder.Between
	}
	x.at <- what
	lost, err := x.look(run, b, s, filepath.Join(dir, cacheName), r, func() {
		if recorder != nil {
			recorder.Mark(written{})
		}
	})
	x.at <- ""
	disk.Between = nil
	if err != nil {
		x.Bad++
		if lost {
			x.Lost++
		} else {
			x.Elsewise++
		}
		if len(x.Failures) < 5 {
			x.Failures = append(x.Failures, fmt.Sprintf("%s: %v", what, err))
		}
		return
	}
	if again == nil {
		return
	}
	recorder.End()
	d := again(recorder)
	d.Skips = skips(*childSkip)
	if d.Events() == 0 {
		return // a closed cache that nothing was written to
	}
	for _, cut := range cuts(r, d, statesOfAgain) {
		d.Advance(cut, func(any, time.Time) { b.after = true })
		s := d.Cut(r)
		x.Again++
		x.open(run, s, b, dir+"-again", fmt.Sprintf("%s; then again, cut %d of %d: %s", what, cut, d.Events(), s), r, nil)
		if x.Bad > 0 {
			return
		}
	}
}

var errLost = errors.New("something is lost, or was never there")

// written is the mark of an opener: what it wrote is durable.
type written struct{}

// look opens a state through the public API and proves it. It calls wrote when what it wrote has to be durable.
func (x *explorer) look(
	run *run, b bounds, s *powerloss.State, path string, r *rand.Rand, wrote func(),
) (lost bool, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	var log bytes.Buffer
	o := run.options
	o.SweepInterval = -1
	o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
	db, err := keepcache.Open(path, &o)
	if err != nil {
		return false, fmt.Errorf("does not open: %w", err)
	}
	err = x.compare(run, b, db)
	if err == nil && b.after {
		err = checkAfter(db)
	}
	if err == nil {
		var report keepcache.Report
		if report, err = db.Verify(context.Background()); err == nil && !report.OK() {
			err = fmt.Errorf("not sound: %v", report.Problems)
		}
	}
	lost = errors.Is(err, errLost)
	write := r.IntN(4) == 0
	if err == nil && write {
		if err = db.Bucket("after").Set("k", "after", 0); err == nil {
			err = db.Sync(context.Background())
		}
		wrote()
	}
	quarantined := db.Stats().Health.Quarantined
	if e := db.Close(); err == nil && e != nil {
		err = fmt.Errorf("does not close: %w", e)
	}
	if err == nil {
		err = x.checkAside(b, s, path, quarantined, log.String())
	}
	if err == nil && write {
		err = checkPages(path)
	}
	if err == nil && write {
		db, err = keepcache.Open(path, &o)
		if err != nil {
			return false, fmt.Errorf("does not open again: %w", err)
		}
		err = errors.Join(checkAfter(db), x.compare(run, b, db), db.Close())
		lost = errors.Is(err, errLost)
	}
	return lost, err
}

// checkAfter returns an error if what an opener wrote is not there.
func checkAfter(db *keepcache.DB) error {
	var after string
	if _, err := db.Bucket("after").Get("k", &after); err != nil {
		return err
	}
	if after != "after" {
		return fmt.Errorf("%w: what was set after a power cut", errLost)
	}
	return nil
}

// checkPages has bbolt check its pages.
func checkPages(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, ReadOnly: true})
	if err != nil {
		return err
	}
	return errors.Join(db.View(func(tx *bolt.Tx) (err error) {
		for e := range tx.Check() {
			err = errors.Join(err, e)
		}
		return err
	}), db.Close())
}
