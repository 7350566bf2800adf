package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/pagetree"
	"github.com/keepcache/keepcache/internal/preflight"
	"github.com/keepcache/keepcache/internal/store"
)

// newCheckPagesCommand returns the command that checks the pages. It also runs bbolt's own check, but only if ours
// finds nothing: on a damaged file, bbolt's check may take any amount of memory and time, in a goroutine that cannot be
// stopped.
func newCheckPagesCommand() *cobra.Command {
	return &cobra.Command{
		Use:    checkPagesName + " FILE",
		Hidden: true,
		Args:   keyArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			watchParent(cmd.InOrStdin())
			limitCheck(args[0], 0)
			ctx, stop := interruptible(cmd)
			defer stop()
			c, err := checkPages(ctx, args[0])
			if err != nil {
				c.problem("the pages cannot be checked: " + err.Error())
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(c)
		},
	}
}

// problem records a problem.
func (c *checked) problem(words string) {
	if len(c.Problems) == keepcache.MaxProblems {
		c.More++
		return
	}
	c.Problems = append(c.Problems, oneLine(words))
}

func (c *checked) sound() bool { return len(c.Problems) == 0 }

func checkPages(ctx context.Context, path string) (c checked, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return c, err
	}
	if !info.Mode().IsRegular() {
		return c, errors.New("it is not a regular file")
	}
	checker, boltErr := store.NewChecker(path) // its lock keeps the file unchanged
	if errors.Is(boltErr, keepcache.ErrLocked) {
		return checkPagesBeside(ctx, path)
	}
	if _, err = c.audit(ctx, path); err != nil {
		return c, err
	}
	if boltErr != nil && c.sound() {
		return c, boltErr
	}
	if !c.sound() {
		return c, nil
	}
	err = checker.Check(ctx, func(problem error) bool {
		c.problem("bbolt: " + problem.Error())
		return c.More < 10_000
	})
	return c, err
}

// audit checks the pages of the file at path, and returns the state that it has checked.
func (c *checked) audit(ctx context.Context, path string) (state pagetree.Meta, err error) {
	f, err := os.Open(path)
	if err != nil {
		return state, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return state, err
	}
	state, _ = pagetree.Newest(f)
	file, err := preflight.Open(f, info.Size())
	if err == nil {
		var found preflight.Findings
		found, err = file.Audit(ctx, preflight.Layout{})
		c.Pages, c.Used, c.Free = int64(found.Pages), int64(found.Used), int64(found.Free)
		for i := range found.Problems {
			c.problem(found.Problems[i].Error())
		}
	}
	var d *preflight.Damage
	if errors.As(err, &d) || errors.Is(err, preflight.ErrNoDatabase) {
		c.problem(err.Error())
		err = nil
	}
	if after, _ := pagetree.Newest(f); err == nil && after != state {
		err = errMoved
	}
	return state, err
}

var errMoved = errors.New("the file was changed while it was read")

// besideFor is how long a check beside a running program is retried when the file has changed.
const besideFor = 5 * time.Second

// checkPagesBeside checks the pages of a file that a program has open, if no transaction completes during the check:
// until then, all pages of the last transaction stay unchanged.
func checkPagesBeside(ctx context.Context, path string) (checked, error) {
	for end := time.Now().Add(besideFor); ; {
		c := checked{Beside: true}
		before, err := os.Stat(path)
		if err != nil {
			return c, err
		}
		_, err = c.audit(ctx, path)
		if err != nil && !errors.Is(err, errMoved) {
			return c, err
		}
		after, statErr := os.Stat(path)
		if err == nil && statErr == nil && os.SameFile(before, after) {
			return c, nil
		}
		if time.Now().After(end) {
			return checked{Beside: true, Unchecked: "not checked, because the program that has the file open changes it all the time"}, nil
		}
	}
}
