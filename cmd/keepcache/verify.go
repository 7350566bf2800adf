package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
		Long: `Verify checks the file in two ways: every entry against its checksum and the expiry
index, and the pages under them with bbolt's own check. Each check is a process of
its own, so that no damage can take verify itself down. It changes nothing. A program
that serves the cache on its socket does the first check itself; the second has to wait
until nobody has the file open. Exit code 1 says that the file is damaged.`,
		Example: `  keepcache verify --file app.cache`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			limit, err := parseLifetime(timeout)
			if err != nil {
				return usagef("--timeout: %v", err)
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			if done, err := f.verifyRunning(ctx, cmd, limit, asJSON); done || err != nil {
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
			return sayChecks(cmd, path, entries, pages, asJSON)
		},
	}
	cmd.Flags().StringVar(&timeout, "timeout", "10m", "how long each check may take")
	addJSON(cmd, &asJSON)
	return cmd
}

// sayChecks prints what the checks found, and returns the error that it is.
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

// verifyRunning has the program that serves the cache check its entries, and reports whether there is one.
func (f *flags) verifyRunning(ctx context.Context, cmd *cobra.Command, limit time.Duration, asJSON bool) (done bool, err error) {
	var r *remote
	if addr := f.address(); addr != "" {
		if r, err = dial(ctx, addr); err != nil {
			return true, hinted(err, addr)
		}
	} else if path, err := f.path(); err != nil {
		return true, err
	} else if r, _ = f.callSocket(ctx, path); r == nil {
		return false, nil
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
		return true, err
	}
	entries := checked{
		Buckets: int64(report.Buckets), Entries: int64(report.Entries), Expired: int64(report.Expired),
		Pending: int64(report.Pending), Rows: int64(report.Rows), More: int64(report.More),
	}
	for _, p := range report.Problems {
		entries.Problems = append(entries.Problems, oneLine(p))
	}
	return true, sayChecks(cmd, f.shownPath(&remote{hello: r.hello}), entries, checked{Unchecked: true}, asJSON)
}

// checked is what a check found. A child writes it as JSON; Problems are printable text.
type checked struct {
	Buckets, Entries, Expired, Pending, Rows int64
	Problems                                 []string
	More                                     int64

	Err  string // why there was nothing to check
	Code int    // the exit code for it

	Unchecked bool // somebody has the file open
}

// checkError is an error that a check met in its own process.
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

// check runs a check in a process of its own. How that process ends badly is a problem of the file.
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
		return c, &checkError{c.Err, c.Code}
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
	if pages.Unchecked {
		fmt.Fprintf(out, "pages     not checked while a program has the file open\n")
	} else {
		fmt.Fprintf(out, "pages     %s\n", verdict(pages))
	}
	printProblems(cmd, pages)
	if entries.Buckets > 0 || len(entries.Problems) == 0 {
		fmt.Fprintf(out, "checked   %s (%s expired) in %s, %s\n",
			plural(entries.Entries, "entry", "entries"), count(entries.Expired),
			plural(entries.Buckets, "bucket", "buckets"), plural(entries.Rows, "expiry row", "expiry rows"))
	}
	if entries.Pending > 0 {
		fmt.Fprintf(out, "pending   %s of cleared buckets, for the sweeper\n", plural(entries.Pending, "entry", "entries"))
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
	var o object
	o.int("buckets", entries.Buckets)
	o.int("entries", entries.Entries)
	o.int("expired", entries.Expired)
	o.int("more_problems", entries.More+pages.More)
	o.bool("ok", len(list) == 1)
	o.int("pending", entries.Pending)
	o.raw("problems", append(list, ']'))
	o.int("rows", entries.Rows)
	return o.line()
}
