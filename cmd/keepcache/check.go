package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
)

// The commands that verify runs in processes of their own. They are not for people.
const (
	checkEntriesName = "internal-check-entries"
	checkPagesName   = "internal-check-pages"
)

// newCheckEntriesCommand returns the command that runs the library's Verify.
func newCheckEntriesCommand() *cobra.Command {
	return &cobra.Command{
		Use:    checkEntriesName + " FILE",
		Hidden: true,
		Args:   keyArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(checkEntries(cmd, args[0]))
		},
	}
}

func checkEntries(cmd *cobra.Command, path string) (c checked) {
	db, err := keepcache.Open(path, &keepcache.Options{ReadOnly: true, LockTimeout: lockWait})
	switch {
	case errors.Is(err, keepcache.ErrCorrupt):
		return checked{Problems: []string{oneLine(err.Error())}}
	case err != nil:
		return checked{Err: printable(err.Error()), Code: exitCode(err)}
	}
	// There is no Close: the process ends now, and after a problem Close may wait for ever.
	ctx, stop := interruptible(cmd)
	defer stop()
	r, err := db.Verify(ctx)
	c = checked{
		Buckets: int64(r.Buckets), Entries: int64(r.Entries), Expired: int64(r.Expired),
		Pending: int64(r.Pending), Rows: int64(r.Rows), More: int64(r.More),
	}
	for _, p := range r.Problems {
		c.Problems = append(c.Problems, oneLine(p.String()))
	}
	if err != nil {
		c.Problems = append(c.Problems, oneLine(err.Error()))
	}
	return c
}

// oneLine returns the words of a problem as one printable line.
func oneLine(words string) string {
	return printable(strings.ReplaceAll(strings.TrimPrefix(words, "keepcache: "), "\n", ": "))
}

// newCheckPagesCommand returns the command that runs bbolt's check. That runs in a goroutine of bbolt's
// own, where nobody can recover what a damaged page does to it.
func newCheckPagesCommand() *cobra.Command {
	return &cobra.Command{
		Use:    checkPagesName + " FILE",
		Hidden: true,
		Args:   keyArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := checkPages(args[0])
			if err != nil {
				c = checked{Problems: []string{"bbolt cannot open it: " + oneLine(err.Error())}}
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(c)
		},
	}
}

func checkPages(path string) (c checked, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return c, err
	}
	if !info.Mode().IsRegular() {
		return c, errors.New("not a regular file")
	}
	db, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return c, err
	}
	tx, err := db.Begin(false)
	if err != nil {
		return c, err
	}
	for problem := range tx.Check() {
		if len(c.Problems) == keepcache.MaxProblems {
			c.More++
			if c.More == 10_000 { // a page that is read as something else can have any number of them
				break
			}
			continue
		}
		c.Problems = append(c.Problems, fmt.Sprintf("bbolt: %s", oneLine(problem.Error())))
	}
	return c, nil
}
