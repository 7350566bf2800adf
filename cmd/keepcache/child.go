package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// self returns a command that runs this program with other arguments.
func self(ctx context.Context, args ...string) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Args[0] = os.Args[0]
	return cmd, nil
}

// Bounds of the output of a child, in bytes.
const (
	mostChildOutput = 4 << 20
	mostChildWords  = 64 << 10
)

// runChild runs this program with args and returns what the child wrote to standard output. If the child does not exit
// with code 0, or writes too much, the error says how it ended. The child ends with ctx, and with this process, however
// that ends: its standard input is a pipe that breaks then, which watchParent notices, and if the system supports it,
// the system kills the child.
func runChild(ctx context.Context, timeout time.Duration, args ...string) ([]byte, error) {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd, err := self(bounded, args...)
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, words := &capped{most: mostChildOutput}, &capped{most: mostChildWords}
	cmd.Stdout, cmd.Stderr = out, words
	cmd.WaitDelay = time.Second
	// For Linux, the parent is the thread that started the child, so this thread must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dieWithParent(cmd)
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, errInterrupted
	case bounded.Err() != nil:
		return nil, fmt.Errorf("did not finish within %s", showLifetime(timeout))
	case err == nil && out.over:
		return nil, errors.New("wrote too much output")
	case err == nil:
		return out.text, nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return nil, err
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(words.text)), "\n")
	if first == "" {
		first = exit.String()
	}
	for _, words := range []string{"out of memory", "cannot allocate memory", "pthread_create failed"} {
		if strings.Contains(first, words) {
			return nil, errors.New("needed more memory than an intact file does")
		}
	}
	return nil, fmt.Errorf("crashed: %s", strings.TrimPrefix(first, "panic: "))
}

// watchParent ends this process, a child of runChild, when the other end of its standard input is closed.
func watchParent(in io.Reader) {
	go func() {
		_, _ = io.Copy(io.Discard, in)
		os.Exit(exitError)
	}()
}

// limitMemory limits the memory, in bytes, that this process may use from now on. It sets a soft limit for the garbage
// collector and, if the system supports it, a hard limit. The memory map of a file does not count.
func limitMemory(n int64) {
	debug.SetMemoryLimit(n / 4 * 3)
	limitData(n)
}

// capped keeps the beginning of what is written to it.
type capped struct {
	text []byte
	most int
	over bool
}

func (c *capped) Write(p []byte) (int, error) {
	room := c.most - len(c.text)
	if len(p) > room {
		c.over = true
	}
	c.text = append(c.text, p[:min(room, len(p))]...)
	return len(p), nil
}
