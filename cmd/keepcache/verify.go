package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/jsontext"
)

func newVerifyCommand(f *flags) *cobra.Command {
	var asJSON bool
	var timeout string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check the file for damage",
		Long: `Verify checks every entry against its checksum and the expiry index, in the
file and in a journal that a crash left beside it. Then it checks the pages of
the file, also with bbolt's own check. Each check runs in its own process with
bounded memory, so a damaged file cannot crash verify. Verify changes nothing.

If a program serves the cache on its socket, that program checks the entries.
If a program has the cache open without a socket, verify reads without the lock
and skips bbolt's own check. The exit code is 1 if the file is damaged.`,
		Example: `  keepcache verify --file app.cache`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			limit, err := parseLifetime(timeout)
			if err != nil {
				return usagef("--timeout: %q is not a time such as 90s, 10m, 1h or never", timeout)
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			done, silent, err := f.verifyRunning(ctx, cmd, limit, asJSON)
			if done || err != nil {
				return err
			}
			path, err := f.path()
			if err != nil {
				return err
			}
			if err := present(path); err != nil {
				return err
			}
			entries, err := check(ctx, cmd, limit, "entries", checkEntriesName, path)
			if err != nil {
				return err
			}
			pages, err := check(ctx, cmd, limit, "pages", checkPagesName, path)
			if err != nil {
				return err
			}
			if entries.Beside || pages.Beside {
				mark(cmd.ErrOrStderr(), silent)
			}
			return sayChecks(cmd, path, entries, pages, asJSON)
		},
	}
	cmd.Flags().StringVar(&timeout, "timeout", "10m", "how long each check may take")
	addJSON(cmd, &asJSON)
	return cmd
}

// sayChecks prints the results of the checks, and returns the error for them.
func sayChecks(cmd *cobra.Command, path string, entries, pages checked, asJSON bool) error {
	found := entries.More + pages.More + int64(len(entries.Problems)+len(pages.Problems))
	if asJSON {
		cmd.OutOrStdout().Write(verifyJSON(entries, pages))
	} else {
		printChecks(cmd, entries, pages)
	}
	if found > 0 {
		return fmt.Errorf("%s is damaged: %s", strconv.Quote(path), plural(found, "problem", "problems"))
	}
	return nil
}

// verifyRunning asks the program that serves the cache to check the entries, and reports whether there is such a
// program. silent says why a program that may be there did not answer.
func (f *flags) verifyRunning(
	ctx context.Context, cmd *cobra.Command, limit time.Duration, asJSON bool,
) (done bool, silent, err error) {
	var r *remote
	if addr := f.address(); addr != "" {
		if r, err = dial(ctx, addr); err != nil {
			return true, nil, hinted(err, addr)
		}
	} else if path, err := f.path(); err != nil {
		return true, nil, err
	} else if r, silent = f.callSocket(ctx, path); r == nil {
		return false, silent, nil
	}
	defer r.close()
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stop := watch(cmd, func(p *progress) { p.show("checking entries") })
	report, err := r.client.Verify(bounded)
	stop()
	if ctx.Err() != nil {
		err = errInterrupted
	}
	if err != nil {
		return true, nil, err
	}
	entries := checked{
		Buckets: int64(report.Buckets), Entries: int64(report.Entries), Expired: int64(report.Expired),
		Pending: int64(report.Pending), Rows: int64(report.Rows), More: int64(report.More),
		Journal: keepcache.JournalReport{
			FileBytes: report.Journal.FileBytes, Entries: report.Journal.Entries, Removed: report.Journal.Removed,
		},
	}
	for _, p := range report.Problems {
		entries.problem(p)
	}
	pages := checked{Unchecked: "not checked while a program has the file open"}
	return true, nil, sayChecks(cmd, f.shownPath(&remote{hello: r.hello}), entries, pages, asJSON)
}

// checked is the result of a check. A child writes it as JSON; Problems are printable text.
type checked struct {
	Buckets, Entries, Expired, Pending, Rows int64
	Journal                                  keepcache.JournalReport
	Pages, Used, Free                        int64 // of these pages: in use, and in the list of free ones
	Problems                                 []string
	More                                     int64

	Err  string // why the check was not possible
	Code int    // the exit code for it

	Beside    bool   // it was read without the lock, because a program has it open
	Unchecked string // why there was no check
}

// checkError is an error of a check in its own process.
type checkError struct {
	words string
	code  int
}

func (e *checkError) Error() string { return e.words }

func (e *checkError) Unwrap() error {
	switch e.code {
	case exitLocked:
		return keepcache.ErrLocked
	case exitUsage:
		return &usageError{errors.New(e.words)}
	}
	return nil
}

// check runs a check in a separate process. If the process crashes, that is a problem of the file.
func check(ctx context.Context, cmd *cobra.Command, timeout time.Duration, what, name, path string) (checked, error) {
	begun := time.Now()
	stop := watch(cmd, func(p *progress) { p.show("checking %s, %s", what, time.Since(begun).Round(time.Second)) })
	out, err := runChild(ctx, timeout, name, "--", path)
	stop()
	if errors.Is(err, errInterrupted) {
		return checked{}, err
	}
	var c checked
	if err == nil {
		err = json.Unmarshal(out, &c)
	}
	if err != nil {
		return checked{Problems: []string{fmt.Sprintf("the check of the %s %s", what, oneLine(err.Error()))}}, nil
	}
	if c.Err != "" {
		return c, &checkError{oneLine(c.Err), c.Code}
	}
	// The output of a crashed process may be anything.
	found := c.Problems
	c.Problems = nil
	for _, p := range found {
		c.problem(p)
	}
	return c, nil
}

func printChecks(cmd *cobra.Command, entries, pages checked) {
	out := cmd.OutOrStdout()
	s := styleOf(out)
	verdict := func(c checked) string {
		if n := c.More + int64(len(c.Problems)); n > 0 {
			return s.bad("DAMAGED") + ", " + plural(n, "problem", "problems")
		}
		return s.good("ok")
	}
	fmt.Fprintf(out, "entries   %s\n", verdict(entries))
	printProblems(cmd, entries)
	if pages.Unchecked != "" {
		fmt.Fprintf(out, "pages     %s\n", pages.Unchecked)
	} else {
		fmt.Fprintf(out, "pages     %s\n", verdict(pages))
	}
	printProblems(cmd, pages)
	if entries.Buckets > 0 || len(entries.Problems) == 0 {
		fmt.Fprintf(out, "checked   %s (%s expired) in %s, %s\n",
			plural(entries.Entries, "entry", "entries"), count(entries.Expired),
			plural(entries.Buckets, "bucket", "buckets"), plural(entries.Rows, "expiry row", "expiry rows"))
	}
	printJournal(out, entries.Journal)
	if entries.Pending > 0 {
		fmt.Fprintf(out, "pending   %s of cleared buckets, for the sweeper\n", plural(entries.Pending, "entry", "entries"))
	}
}

// printJournal prints what only the journal has.
func printJournal(out io.Writer, j keepcache.JournalReport) {
	switch {
	case j.Foreign:
		fmt.Fprintf(out, "journal   belongs to another cache and is ignored\n")
	case j.Records > 0:
		fmt.Fprintf(out, "journal   has %s and %s not yet in the file, in %s (%s)\n",
			plural(j.Entries, "entry", "entries"), plural(j.Removed, "removal", "removals"),
			plural(j.Records, "intact record", "intact records"), size(j.Bytes))
	case j.Entries+j.Removed > 0:
		fmt.Fprintf(out, "journal   has %s and %s not yet in the file\n",
			plural(j.Entries, "entry", "entries"), plural(j.Removed, "removal", "removals"))
	}
	if j.Torn {
		fmt.Fprintf(out, "journal   has a torn tail, which is normal after a crash\n")
	}
}

func printProblems(cmd *cobra.Command, c checked) {
	for _, p := range c.Problems {
		fmt.Fprintf(cmd.OutOrStdout(), "  %s\n", p)
	}
	if c.More > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "  and %s more\n", count(c.More))
	}
}

func verifyJSON(entries, pages checked) []byte {
	list := []byte{'['}
	for _, c := range []checked{entries, pages} {
		for _, p := range c.Problems {
			if len(list) > 1 {
				list = append(list, ',')
			}
			list = jsontext.AppendString(list, strings.ToValidUTF8(p, "\ufffd"))
		}
	}
	var o, j, p object
	j.int("bytes", entries.Journal.Bytes)
	j.int("entries", int64(entries.Journal.Entries))
	j.int("file_bytes", entries.Journal.FileBytes)
	j.bool("foreign", entries.Journal.Foreign)
	j.int("records", int64(entries.Journal.Records))
	j.int("removed", int64(entries.Journal.Removed))
	j.bool("torn", entries.Journal.Torn)
	p.bool("checked", pages.Unchecked == "")
	p.int("free", pages.Free)
	p.int("used", pages.Used)
	o.int("buckets", entries.Buckets)
	o.int("entries", entries.Entries)
	o.int("expired", entries.Expired)
	o.raw("journal", j.bytes())
	o.int("more_problems", entries.More+pages.More)
	o.bool("ok", len(list) == 1)
	o.raw("pages", p.bytes())
	o.int("pending", entries.Pending)
	o.raw("problems", append(list, ']'))
	o.int("rows", entries.Rows)
	return o.line()
}
