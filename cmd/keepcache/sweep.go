package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func newSweepCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "sweep",
		Short: "Remove expired entries from the file now",
		Long: `Sweep removes expired and cleared entries from the file, in all buckets, and
prints how many it removed. Reads do not see such entries in any case: sweeping
only frees their space. A program that has the cache open sweeps automatically.`,
		Example: `  keepcache sweep`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			return f.open(cmd, changing, func(c cache, _ string) error {
				begun, _ := c.stats()
				stopShowing := watch(cmd, func(p *progress) {
					s, _ := c.stats()
					did := s.Sweep.Removed + s.Sweep.Cleared - begun.Sweep.Removed - begun.Sweep.Cleared
					p.show("%s removed", plural(did, "entry", "entries"))
				})
				n, err := c.sweep(ctx)
				stopShowing()
				if ctx.Err() != nil && errors.Is(err, context.Canceled) {
					err = errInterrupted
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "removed %s\n", plural(n, "entry", "entries"))
				return err
			})
		},
	}
}

// interruptible returns a context that the first interrupt ends. A second one ends the process as usual.
func interruptible(cmd *cobra.Command) (context.Context, func()) {
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// watch calls show regularly, for work that does not report progress itself, until the function that it returns is
// called.
func watch(cmd *cobra.Command, show func(*progress)) (stop func()) {
	p := newProgress(cmd.ErrOrStderr())
	if p == nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(150 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				show(p)
			}
		}
	}()
	return func() {
		close(quit)
		<-done
		p.end()
	}
}
