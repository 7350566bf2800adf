//go:build unix

package mutate_test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/torture/cachetest"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

var (
	mutateFiles = flag.Int("mutate.files", effort.Of(100, 150), "how many files to damage")
	mutateSeed  = flag.Uint64("mutate.seed", 0, "seed of the damages; 0 for a new one")
	mutateFrom  = flag.Int("mutate.from", 0, "number of the first file, to repeat one of a seed")
	mutateDir   = flag.String("mutate.dir", "", "directory of the shapes, to be kept or used again")
)

func TestMain(m *testing.M) { cachetest.Main(m) }

// hangAfter is how long a child may take for one file. Most take less than a hundredth of a second.
const hangAfter = 8 * time.Second

// batch is how many files a child takes, so that its start costs little.
const batch = 100

// mutation is a run over damaged files.
type mutation struct {
	dir     string
	seed    uint64
	without string // what the children do without

	mu       sync.Mutex // protects what follows
	outcomes map[string]int
	failures []string
}

// newMutation makes the shapes.
func newMutation(t *testing.T) *mutation {
	m := &mutation{dir: *mutateDir, seed: *mutateSeed, outcomes: make(map[string]int)}
	if m.dir == "" {
		parent := t.TempDir()
		if _, err := os.Stat("/dev/shm"); err == nil { // where a sync costs nothing
			parent = "/dev/shm"
		}
		dir, err := os.MkdirTemp(parent, "keepcache-mutate-")
		require.NoError(t, err)
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		m.dir = dir
	}
	if m.seed == 0 {
		m.seed = rand.Uint64()
	}
	t.Logf("seed %d", m.seed)
	for i := range shapes {
		if _, err := os.Stat(shapePath(m.dir, i)); err != nil {
			shapes[i].make(t, shapePath(m.dir, i))
		}
	}
	return m
}

// run damages and uses the files with the numbers from one up to another, in as many processes as there are processors.
// It stops at 50 failures.
func (m *mutation) run(t *testing.T, from, to int) {
	starts := make(chan int)
	var work sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		work.Go(func() {
			for start := range starts {
				for at, end := start, min(start+batch, to); at < end; {
					at = m.child(t, at, end)
				}
			}
		})
	}
	for start := from; start < to && m.failed() < 50; start += batch {
		starts <- start
	}
	close(starts)
	work.Wait()
}

func (m *mutation) failed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.failures)
}

func (m *mutation) fail(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failures = append(m.failures, fmt.Sprintf(format, args...))
}

// child runs a child over a range of numbers and watches it. It returns the number at which the next child is to go on.
func (m *mutation) child(t *testing.T, from, to int) (next int) {
	cmd := cachetest.ChildCommand("mutated opener", m.dir, strconv.FormatUint(m.seed, 10), strconv.Itoa(from),
		strconv.Itoa(to), m.without)
	cmd.Env = append(cmd.Env, "GOTRACEBACK=all", "GOMAXPROCS=2")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := make(chan string)
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(out)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	patience := time.NewTimer(hangAfter)
	defer patience.Stop()
	what, hung := "", false
	next = from
	for running := true; running; {
		select {
		case <-patience.C:
			hung = true
			_ = cmd.Process.Signal(syscall.SIGQUIT) // has it print all its stacks
			patience.Reset(hangAfter)
			time.AfterFunc(time.Second, func() { _ = cmd.Process.Kill() })
		case line, ok := <-lines:
			if running = ok; !ok {
				break
			}
			verb, rest, _ := strings.Cut(line, " ")
			switch verb {
			case "begin":
				patience.Reset(hangAfter)
				what = rest
			case "wrong":
				m.fail("WRONG %s\n    %s", rest, what)
			case "end":
				_, outcome, _ := strings.Cut(rest, " ")
				m.mu.Lock()
				m.outcomes[outcome]++
				m.mu.Unlock()
				what = ""
				next++
			}
		}
	}
	err = cmd.Wait()
	switch {
	case hung:
		m.fail("HANG %s\n%s", what, lastOf(stderr.String(), 20_000))
	case err != nil && what == "":
		m.fail("child of %d to %d: %v\n%s", from, to, err, lastOf(stderr.String(), 3000))
		return to
	case err != nil:
		m.fail("CRASH %s: %v\n%s", what, err, firstOf(stderr.String(), 4000))
	}
	if err != nil {
		next++
	}
	return next
}

func firstOf(s string, n int) string { return s[:min(len(s), n)] }
func lastOf(s string, n int) string  { return s[max(0, len(s)-n):] }

// report logs the outcomes.
func (m *mutation) report(t *testing.T, took time.Duration) {
	files := len(m.failures)
	for _, n := range m.outcomes {
		files += n
	}
	text := fmt.Sprintf("%d files in %v, %.0f a second:", files, took.Round(time.Millisecond),
		float64(files)/took.Seconds())
	for _, outcome := range slices.Sorted(func(yield func(string) bool) {
		for o := range m.outcomes {
			if !yield(o) {
				return
			}
		}
	}) {
		text += fmt.Sprintf(" %d %s;", m.outcomes[outcome], outcome)
	}
	t.Log(text)
}

// Damaged files take no process down, hang no call and lead to no value that was never set under its key.
func TestMutate(t *testing.T) {
	m := newMutation(t)
	start := time.Now()
	m.run(t, *mutateFrom, *mutateFrom+*mutateFiles)
	m.report(t, time.Since(start))
	for _, f := range m.failures {
		t.Errorf("%s", f)
	}
	left, _ := filepath.Glob(filepath.Join(m.dir, "child*"))
	for _, dir := range left {
		_ = os.RemoveAll(dir)
	}
}

// A leaf whose keys lead back to those of the leaf before it makes no range endless.
func TestMutate_Disorder(t *testing.T) {
	m := newMutation(t)
	m.seed = 10564050875249752860
	start := time.Now()
	m.run(t, 77, 78)
	m.report(t, time.Since(start))
	require.Empty(t, m.failures)
}

// Without one of its defences, the cache fails the same test. One of them takes a thousand files to show.
func TestMutate_Controls(t *testing.T) {
	if *mutateFiles < 1000 {
		t.Skip("with -mutate.files 1000 or more, as .ci/run has it")
	}
	if cachetest.Raced {
		t.Skip("takes minutes with the race detector, and shows nothing that it does not show without")
	}
	for _, without := range []string{"preflight", "checksum", "guard"} {
		t.Run(without, func(t *testing.T) {
			m := newMutation(t)
			m.without = without
			start, from := time.Now(), 0
			for step := 100; from < 4000 && m.failed() == 0; from += step {
				m.run(t, from, from+step)
			}
			m.report(t, time.Since(start))
			require.NotEmpty(t, m.failures, "the harness finds nothing without the %s", without)
			t.Logf("%d failures, such as %.300s", len(m.failures), m.failures[0])
		})
	}
}
