package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/keepcache/keepcache/internal/display"
)

// output is standard output. It remembers the first error, so that callers need not check each Print.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	o.err = err
	return n, err
}

// isTerminal reports whether a person reads what is written to w.
func isTerminal(w io.Writer) bool {
	if o, ok := w.(*output); ok {
		w = o.w
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// nameAfter returns a function that formats a name for the end of a line of w, after so many columns. On a terminal, it
// leaves out the middle of a name that does not fit the line.
func nameAfter(w io.Writer, columns int) func(name string) string {
	if !isTerminal(w) {
		return display.Name
	}
	if o, ok := w.(*output); ok {
		w = o.w
	}
	width, _, err := term.GetSize(int(w.(*os.File).Fd()))
	if err != nil || width < 1 {
		width = 80
	}
	return func(name string) string { return fitMiddle(display.Name(name), max(width-columns, leastName)) }
}

// leastName is the minimum width of a shortened name, in columns.
const leastName = 16

// tellTyping says on w what a command waits for, if it reads from a terminal.
func tellTyping(in io.Reader, w io.Writer, what string) {
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(w, "reading %s from the terminal; end with Ctrl-D\n", what)
	}
}

// canAsk reports whether there is a person to ask.
func canAsk(cmd *cobra.Command) bool {
	in, ok := cmd.InOrStdin().(*os.File)
	return ok && term.IsTerminal(int(in.Fd()))
}

var errNotDone = errors.New("nothing was done")

// ask asks the person at the terminal whether to continue. Any answer except y and yes is an error.
func ask(ctx context.Context, cmd *cobra.Command, question string) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s? [y/N] ", question)
	answered := make(chan string, 1)
	go func() { // a read of a terminal cannot be interrupted, and ends with the process
		line, _ := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 1024)).ReadString('\n')
		answered <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case answer := <-answered:
		if answer == "y" || answer == "yes" {
			return nil
		}
		return errNotDone
	case <-ctx.Done():
		fmt.Fprintln(cmd.ErrOrStderr())
		return errInterrupted
	}
}

// style writes in colour on a terminal that supports it, unless the environment has NO_COLOR (no-color.org).
type style struct{ on bool }

func styleOf(w io.Writer) style {
	plain := os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" ||
		runtime.GOOS == "windows" && os.Getenv("WT_SESSION") == ""
	return style{on: !plain && isTerminal(w)}
}

func (s style) paint(code, text string) string {
	if !s.on {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s style) bold(text string) string { return s.paint("1", text) }
func (s style) dim(text string) string  { return s.paint("2", text) }
func (s style) good(text string) string { return s.paint("32", text) }
func (s style) bad(text string) string  { return s.paint("1;31", text) }

// progress shows the progress of long work on a terminal, in a line that it removes again. Elsewhere it is silent. A
// nil progress is silent too.
type progress struct {
	w     io.Writer
	shown time.Time
	begun time.Time
}

func newProgress(w io.Writer) *progress {
	if !isTerminal(w) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return &progress{w: w, begun: time.Now()}
}

// show replaces the line, at most ten times a second, and only after the work has taken 300 ms.
func (p *progress) show(format string, args ...any) {
	if p == nil || time.Since(p.shown) < 100*time.Millisecond || time.Since(p.begun) < 300*time.Millisecond {
		return
	}
	p.shown = time.Now()
	fmt.Fprintf(p.w, "\r"+format+"\x1b[K", args...)
}

func (p *progress) end() {
	if p != nil && !p.shown.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// count writes a number with its digits in groups of three.
func count[N int | int64 | uint64](n N) string {
	digits := strconv.FormatInt(int64(n), 10)
	var groups []string
	for len(digits) > 3 {
		groups = append([]string{digits[len(digits)-3:]}, groups...)
		digits = digits[:len(digits)-3]
	}
	return strings.Join(append([]string{digits}, groups...), ",")
}

// plural writes a number with the word for one or for many of a thing.
func plural[N int | int64 | uint64](n N, one, many string) string {
	if n == 1 {
		return count(n) + " " + one
	}
	return count(n) + " " + many
}

// size writes a number of bytes for a person.
func size(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f /= 1024; f < 1023.95 {
			break
		}
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + unit
}
