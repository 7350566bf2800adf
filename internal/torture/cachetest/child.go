package cachetest

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// Children are the programs that tests run in processes of their own, by name. The tests of a package add theirs in
// functions init.
var Children = map[string]func(t Tester, args []string){}

const childVariable = "KEEPCACHE_TEST_CHILD"

// Main is what TestMain does in each package that uses this one. It runs the tests, or a child.
func Main(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		runChild(name)
	}
	flag.Parse()
	parallel := false
	flag.Visit(func(f *flag.Flag) { parallel = parallel || f.Name == "test.parallel" })
	if !parallel { // what runs in parallel waits most of the time, for disks, clocks and processes
		_ = flag.Set("test.parallel", strconv.Itoa(4*runtime.GOMAXPROCS(0)))
	}
	if variants[os.Getenv("KEEPCACHE_VARIANT")] == nil {
		fmt.Fprintln(os.Stderr, "unknown KEEPCACHE_VARIANT")
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// ChildCommand is a command that runs a child in this test binary.
func ChildCommand(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), childVariable+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// StartChild runs a child until the test is over. Its standard output arrives at the returned reader.
func StartChild(t testing.TB, name string, args ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := ChildCommand(name, args...)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, out
}

// runChild is the main of a child. It exits with 0 if what the child requires is so.
func runChild(name string) {
	t := &childTester{}
	Children[name](t, os.Args[1:])
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
	os.Exit(0)
}

// childTester is the tester of a child: a requirement that is not met ends the process.
type childTester struct{ cleanups []func() }

func (*childTester) Helper()                           {}
func (*childTester) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (*childTester) FailNow()                          { os.Exit(1) }
func (t *childTester) Cleanup(fn func())               { t.cleanups = append(t.cleanups, fn) }
