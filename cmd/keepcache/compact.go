package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
)

func newCompactCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "compact",
		Short: "Shrink the file by dropping its free pages",
		Long: `Compact rewrites the file without its free pages and prints how much that
saved. It needs disk space for a copy, and does not change the file before the
copy is complete. A program that has the cache open compacts it automatically
when much of the file is free.`,
		Example: `  keepcache compact`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			return f.openWith(cmd, changing, tellingProgress(cmd, "compacting"), func(c cache, _ string) error {
				before, after, err := c.compact(ctx)
				if ctx.Err() != nil && errors.Is(err, context.Canceled) {
					err = errInterrupted
				}
				if err == nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "compacted %s to %s\n", size(before), size(after))
				}
				return err
			})
		},
	}
}

// tellingProgress returns options that show the progress of long work.
func tellingProgress(cmd *cobra.Command, what string) keepcache.Options {
	p := newProgress(cmd.ErrOrStderr())
	if p == nil {
		return keepcache.Options{}
	}
	return keepcache.Options{Events: keepcache.Events{
		Kinds: keepcache.EventProgress,
		Handle: func(e keepcache.Event) {
			if e.Done == e.Total {
				p.end()
				return
			}
			p.show("%s  %s", what, bar(e.Done, e.Total))
		},
	}}
}

// bar draws how far something is: [#####     ]  50 %, 1.0 of 2.0 MiB.
func bar(done, total int64) string {
	const width = 30
	part := 1.0
	if total > 0 {
		part = min(float64(done)/float64(total), 1)
	}
	full := int(part * width)
	return fmt.Sprintf("[%s%s] %3.0f %%, %s of %s", strings.Repeat("#", full), strings.Repeat(" ", width-full), 100*part,
		size(done), size(total))
}
