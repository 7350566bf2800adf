package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// parent is a program that runs a child, which never ends by itself, as verify runs a check, and for "pipe" as other
// systems than Linux do. The child writes its number to a file. For "signal" it does not look whether its parent is
// still there.
func parent() {
	how, file := os.Args[1], os.Args[2]
	if how == "stuck" {
		if os.Args[3] != "signal" {
			watchParent(os.Stdin)
		}
		if err := os.WriteFile(file, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
			os.Exit(exitError)
		}
		//lint:ignore SA5002 it is as a check that has gone astray
		for {
		}
	}
	if how == "pipe" {
		cmd, err := self(context.Background(), "stuck", file, how)
		if err == nil {
			_, err = cmd.StdinPipe()
		}
		if err == nil {
			err = cmd.Run()
		}
		fmt.Fprintln(os.Stderr, err)
		return
	}
	_, err := runChild(context.Background(), time.Hour, "stuck", file, how)
	fmt.Fprintln(os.Stderr, err)
}

// program returns a command that runs a program of TestMain.
func program(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(path, args...)
	cmd.Args[0] = name
	return cmd
}

// peakOf returns the most memory that a process had, in bytes, or what this one had when it was started, if that is
// more.
func peakOf(cmd *exec.Cmd) int64 {
	return int64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) << 10
}

// until waits until something holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 6000 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: it does not come to that", what)
}

// numberIn returns the number of a process that it has written to a file, or 0.
func numberIn(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(string(text))
	return pid
}

// runs reports whether a process of a number runs: one that has ended and that nobody has asked for does not.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return len(rest) > 0 && rest[0] != 'Z' && rest[0] != 'X'
}

// A child ends when its parent is killed: by the pipe alone, by the system alone, and by both.
func TestRunChild_ParentKilled(t *testing.T) {
	for _, how := range []string{"pipe", "signal", "both"} {
		t.Run(how, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			p := program(t, "parent", how, file)
			require.NoError(t, p.Start())
			until(t, "the child starts", func() bool { return numberIn(file) != 0 })
			child := numberIn(file)
			t.Cleanup(func() { _ = syscall.Kill(child, syscall.SIGKILL) })
			require.True(t, runs(child))
			require.NoError(t, p.Process.Kill())
			_ = p.Wait()
			until(t, "the child ends", func() bool { return !runs(child) })
		})
	}
}

// A child ends with ctx, and with its time.
func TestRunChild_Ends(t *testing.T) {
	old := os.Args[0]
	os.Args[0] = "parent" // which program the child is
	defer func() { os.Args[0] = old }()
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		for range 6000 {
			if numberIn(file) != 0 {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	_, err := runChild(ctx, time.Hour, "stuck", file, "signal")
	require.ErrorIs(t, err, errInterrupted)
	require.NotZero(t, numberIn(file))
	require.False(t, runs(numberIn(file)))

	_, err = runChild(context.Background(), 50*time.Millisecond, "stuck", file, "signal")
	require.ErrorContains(t, err, "did not finish within 50ms")
}

// The checks of verify look whether their parent is there: here one that waits for a lock.
func TestCheck_WatchesParent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.cache")
	soundFile(t, path, 10)
	for _, name := range []string{checkPagesName, checkEntriesName} {
		// It reads the end of its input before it has done anything, or after the answer that it would have given.
		cmd := program(t, "keepcache", name, "--", path)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		locked, err := os.Open(path)
		require.NoError(t, err)
		if name == checkPagesName {
			require.NoError(t, syscall.Flock(int(locked.Fd()), syscall.LOCK_EX))
		}
		var out bytes.Buffer
		cmd.Stdout = &out
		require.NoError(t, cmd.Start())
		if name == checkPagesName { // which waits for the lock for a second, and then does without
			require.NoError(t, in.Close())
			require.Error(t, cmd.Wait())
			require.Equal(t, exitError, cmd.ProcessState.ExitCode())
			require.Empty(t, out.String())
		} else {
			require.NoError(t, cmd.Wait())
			var c checked
			require.NoError(t, json.Unmarshal(out.Bytes(), &c))
			require.Equal(t, int64(10), c.Entries)
		}
		require.NoError(t, locked.Close())
	}
}

// What a child says is bounded, and so is what becomes of it.
func TestCheck_Words(t *testing.T) {
	long := oneLine("keepcache: " + string(bytes.Repeat([]byte("\x00\xff"), 1<<20)))
	require.LessOrEqual(t, len(long), mostLine+3)
	c := checked{}
	for range 200 {
		c.problem("x")
	}
	require.Len(t, c.Problems, 100)
	require.Equal(t, int64(100), c.More)
}

// More memory than a check may have ends it, and that is said.
func TestLimitMemory(t *testing.T) {
	skipRaced(t)
	old := os.Args[0]
	os.Args[0] = "glutton"
	defer func() { os.Args[0] = old }()
	_, err := runChild(context.Background(), time.Minute)
	require.ErrorContains(t, err, "needed more memory than an intact file does")
}

// glutton is a program that takes 2 GiB where it may have 64 MiB.
func glutton() {
	limitMemory(64 << 20)
	var all [][]byte
	for range 2048 {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
	}
	fmt.Println(len(all))
}

func init() {
	programs["parent"] = parent
	programs["glutton"] = glutton
}
