package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
)

func newDemoCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "See a cache survive kill -9, in a few seconds",
		Long: `Demo shows what a cache does. A process stores values and is killed. Another
process finds all of them, with their lifetimes still running. Then an entry
expires, a miss is filled from a source, and a key is deleted. Each step prints
what was expected and what was seen. The exit code is 1 if they differ.

Demo creates a new file, in a temporary directory or at --file. It leaves the
file there, so that you can look at it.`,
		Example: `  keepcache demo
  keepcache demo --file demo.cache`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := demoFile(f.file)
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			d := &demo{out: cmd.OutOrStdout(), style: styleOf(cmd.OutOrStdout()), path: path}
			return d.run(ctx)
		},
	}
}

// demoFile returns the path for the demo's file. It refuses an existing file. It ignores the environment, which may
// name a real cache.
func demoFile(path string) (string, error) {
	if path == "" {
		dir, err := os.MkdirTemp("", "keepcache-demo-")
		return filepath.Join(dir, "demo.cache"), err
	}
	if _, err := os.Lstat(path); err == nil {
		return "", fmt.Errorf("%s exists; demo needs a new file", display.Name(path))
	}
	return path, nil
}

// demo is one run of the demo.
type demo struct {
	out    io.Writer
	style  style
	path   string
	step   int
	checks int
	failed int

	begun time.Time            // just before the writer was started
	set   map[string]time.Time // when the writer's Set returned, by key
}

func (d *demo) run(ctx context.Context) error {
	d.say("%s: a cache in one file that survives kill -9\n", d.style.bold("keepcache demo"))
	d.say("file: %s\n", display.Name(d.path))
	if err := d.write(ctx); err != nil {
		return err
	}
	d.heading("Another process (pid %d) opens the file and reads everything back", os.Getpid())
	opened := time.Now()
	db, err := keepcache.Open(d.path, nil)
	if err != nil {
		return err
	}
	took := time.Since(opened)
	err = d.read(ctx, db, took)
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	d.end()
	if d.failed > 0 {
		return fmt.Errorf("demo: %d of %d checks failed", d.failed, d.checks)
	}
	return nil
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

func (d *demo) heading(format string, args ...any) {
	d.step++
	d.say("\n%s\n", d.style.bold(fmt.Sprintf("%d. "+format, append([]any{d.step}, args...)...)))
}

// columns prints the headings of the columns of check.
func (d *demo) columns() {
	d.say("   %s\n", d.style.dim(fmt.Sprintf("%-21s %-22s %s", "", "expected", "seen")))
}

// check prints a step with what was expected and what was seen.
func (d *demo) check(what, expected, seen string) { d.judge(what, expected, seen, expected == seen) }

func (d *demo) judge(what, expected, seen string, ok bool) {
	d.checks++
	verdict := d.style.good("ok")
	if !ok {
		d.failed++
		verdict = d.style.bad("NOT OK")
	}
	d.say("   %-21s %-22s %-22s %s\n", what, expected, seen, verdict)
}

// write starts a process that sets the values, and kills it as soon as the last Set has returned.
func (d *demo) write(ctx context.Context) error {
	writer, err := self(ctx, demoWriterName, "--", d.path)
	if err != nil {
		return err
	}
	in, err := writer.StdinPipe() // held open: when this process ends, so does the writer
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := writer.StdoutPipe()
	if err != nil {
		return err
	}
	words := &capped{most: mostChildWords}
	writer.Stderr = words
	d.begun = time.Now()
	if err := writer.Start(); err != nil {
		return err
	}
	d.heading("A process (pid %d) sets the values of a service", writer.Process.Pid)
	d.set = make(map[string]time.Time)
	entries := demoEntries()
	lines := bufio.NewScanner(out)
	for len(d.set) < len(entries) && lines.Scan() {
		d.set[lines.Text()] = time.Now()
	}
	killed := writer.Process.Kill()
	ended := writer.Wait()
	if ctx.Err() != nil {
		return errInterrupted
	}
	if len(d.set) < len(entries) {
		return fmt.Errorf("demo: the writer failed: %s", strings.TrimSpace(string(words.text)))
	}
	for _, e := range entries {
		d.say("   set %-15s %-36s %s\n", e.key, e.shown, lifetimeWords(e.ttl))
	}
	how := "SIGKILL"
	if runtime.GOOS == "windows" {
		how = "TerminateProcess"
	}
	var exit *exec.ExitError
	if killed != nil || !errors.As(ended, &exit) {
		return fmt.Errorf("demo: the writer could not be killed: %w", errors.Join(killed, ended))
	}
	d.say("   %s right after its last write returned: no Close, no warning\n", d.style.bold("killed with "+how))
	return nil
}

func lifetimeWords(ttl time.Duration) string {
	if ttl == keepcache.NoExpiry {
		return "no lifetime"
	}
	return "for " + showRound(ttl)
}

// read checks the promises.
func (d *demo) read(ctx context.Context, db *keepcache.DB, took time.Duration) error {
	d.say("   %s\n", d.style.dim(fmt.Sprintf("open took %s", took.Round(100*time.Microsecond))))
	steps := []func(context.Context, *keepcache.DB) error{
		d.everything, d.expiry, d.miss, d.deletion, d.soundness,
	}
	for _, step := range steps {
		if err := step(ctx, db); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return errInterrupted
		}
	}
	return nil
}

func (d *demo) everything(_ context.Context, db *keepcache.DB) error {
	d.columns()
	// The token first, because it expires soon.
	if err := d.checkGet(db, "session-token", `"abc123xyz"`); err != nil {
		return err
	}
	if err := d.checkTTL(db, "session-token", demoToken); err != nil {
		return err
	}
	if err := d.checkGet(db, "greeting", `"Hello, World!"`); err != nil {
		return err
	}
	var user struct {
		Username string
		Email    string
		Roles    []string
	}
	if _, err := db.Get("user:123", &user); err != nil {
		return err
	}
	d.check("user:123 .username", `"john"`, toJSON(user.Username))
	d.check("user:123 .email", `"john@example.com"`, toJSON(user.Email))
	d.check("user:123 .roles", `["admin","user"]`, toJSON(user.Roles))
	if err := d.checkTTL(db, "user:123", 300*time.Second); err != nil {
		return err
	}
	if err := d.checkGet(db, "flag-key", "true"); err != nil {
		return err
	}
	if err := d.checkGet(db, "last-error", "null"); err != nil {
		return err
	}
	return d.checkGet(db, "temp-key", `"temporary"`)
}

func (d *demo) expiry(ctx context.Context, db *keepcache.DB) error {
	d.heading("session-token expires while you watch")
	e, found, err := db.Bucket(keepcache.DefaultBucket).Stat("session-token")
	if err != nil {
		return err
	}
	if !found {
		d.check("session-token", "there", "gone before its time")
		return nil
	}
	countdown := isTerminal(d.out) && os.Getenv("TERM") != "dumb"
	var there bool
	var last time.Time // when the entry was last found
	for {
		before := time.Now()
		if there, err = db.Exists("session-token"); err != nil {
			return err
		}
		left := e.ExpiresAt.Sub(before)
		if !there || left < -2*time.Second {
			break
		}
		last = before
		if countdown {
			d.say("\r   session-token has %.1f s to live\x1b[K", max(left.Seconds(), 0))
		}
		pause := 100 * time.Millisecond
		if left < pause {
			pause = max(left, time.Millisecond)
		}
		select {
		case <-ctx.Done():
			d.say("\n")
			return errInterrupted
		case <-time.After(pause):
		}
	}
	gone := time.Now()
	if countdown {
		d.say("\r\x1b[K")
	}
	d.columns()
	d.judge("at its deadline", "gone", presence(there),
		!there && !gone.Before(e.ExpiresAt) && last.Before(e.ExpiresAt))
	var token string
	if found, err = db.Get("session-token", &token); err != nil {
		return err
	}
	d.check("get session-token", "absent", foundWord(found))
	ttl, found, err := db.Bucket(keepcache.DefaultBucket).TTL("user:123")
	if err != nil {
		return err
	}
	d.judge("user:123 lives on", "found", foundWord(found)+", "+showLeft(ttl), found)
	return nil
}

func (d *demo) miss(_ context.Context, db *keepcache.DB) error {
	d.heading("A miss is filled from a source")
	d.columns()
	calls := 0
	source := func() map[string]any {
		calls++
		return map[string]any{"plan": "pro"}
	}
	for i, expected := range []string{"absent", "found"} {
		var plan map[string]any
		found, err := db.Get("no-such-key", &plan)
		if err != nil {
			return err
		}
		d.check([]string{"first read", "second read"}[i], expected, foundWord(found))
		if !found {
			if err := db.Set("no-such-key", source(), 120*time.Second); err != nil {
				return err
			}
		}
	}
	d.check("calls of the source", "1", fmt.Sprint(calls))
	if err := d.checkGet(db, "no-such-key", `{"plan":"pro"}`); err != nil {
		return err
	}
	ttl, _, err := db.Bucket(keepcache.DefaultBucket).TTL("no-such-key")
	if err != nil {
		return err
	}
	d.judge("  its lifetime", "2m, from now on", showLeft(ttl), ttl <= 120*time.Second+rounding && ttl > 110*time.Second)
	return nil
}

func (d *demo) deletion(_ context.Context, db *keepcache.DB) error {
	d.heading("temp-key is deleted")
	d.columns()
	for i, expected := range []string{"found", "absent"} {
		found, err := db.Delete("temp-key")
		if err != nil {
			return err
		}
		d.check([]string{"delete", "delete again"}[i], expected, foundWord(found))
	}
	there, err := db.Exists("temp-key")
	if err != nil {
		return err
	}
	d.check("exists", "false", fmt.Sprint(there))
	return nil
}

func (d *demo) soundness(ctx context.Context, db *keepcache.DB) error {
	d.heading("The file is checked")
	d.columns()
	report, err := db.Verify(ctx)
	if err != nil {
		return err
	}
	d.check("checksums and index", "0 problems", plural(len(report.Problems)+report.More, "problem", "problems"))
	n, err := db.Bucket(keepcache.DefaultBucket).Len()
	if err != nil {
		return err
	}
	d.check("live entries", "5", fmt.Sprint(n))
	return nil
}

func (d *demo) end() {
	verdict := d.style.good("All as promised") + fmt.Sprintf(": %d of %d checks ok.", d.checks, d.checks)
	if d.failed > 0 {
		verdict = d.style.bad("Not as promised") + fmt.Sprintf(": %d of %d checks failed.", d.failed, d.checks)
	}
	d.say("\n%s The file is yours to look into:\n\n", verdict)
	program, file := programName(), shellQuote(d.path)
	for _, args := range []string{"keys --long", "get user:123", "ttl user:123", "set mine 1 --ttl 1h", "export",
		"verify"} {
		d.say("   %s -f %s %s\n", program, file, args)
	}
}

// programName returns the command line name of this program, if possible as it was started.
func programName() string {
	program, err := os.Executable()
	if err == nil && strings.Contains(program, "go-build") {
		return "go run ./cmd/keepcache"
	}
	return shellQuote(os.Args[0])
}

// checkGet reads key into an any and checks it against JSON.
func (d *demo) checkGet(db *keepcache.DB, key, expected string) error {
	var v any
	found, err := db.Get(key, &v)
	if err != nil {
		return err
	}
	seen := "absent"
	if found {
		seen = toJSON(v)
	}
	d.check(key, expected, seen)
	return nil
}

// checkTTL checks that the lifetime of key has run down by the time since its Set.
func (d *demo) checkTTL(db *keepcache.DB, key string, lifetime time.Duration) error {
	before := time.Now()
	ttl, found, err := db.Bucket(keepcache.DefaultBucket).TTL(key)
	if err != nil {
		return err
	}
	most := lifetime - before.Sub(d.set[key]) + rounding
	least := lifetime - time.Since(d.begun)
	seen := "absent"
	if found {
		seen = showLeft(ttl)
	}
	d.judge("  its lifetime", showRound(lifetime)+", counted on", seen, found && ttl <= most && ttl >= least)
	return nil
}

// rounding is the most by which the library rounds a deadline up.
const rounding = time.Millisecond

func showLeft(d time.Duration) string { return showLifetime(d) + " left" }

// showRound formats a lifetime of whole minutes or seconds without trailing zero units.
func showRound(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}

func foundWord(found bool) string {
	if found {
		return "found"
	}
	return "absent"
}

func presence(there bool) string {
	if there {
		return "still there"
	}
	return "gone"
}

func toJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
