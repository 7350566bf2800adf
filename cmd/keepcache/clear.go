package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache/internal/display"
)

func newClearCommand(f *flags) *cobra.Command {
	var prefix string
	var drop, yes bool
	cmd := &cobra.Command{
		Use:   "clear",
		Short: "Remove all entries of a bucket",
		Long: `Clear removes all entries of a bucket, or with --prefix those whose key begins
with it. With --drop it removes the bucket as well. Without --bucket and
--prefix it empties the bucket default. Then it asks for confirmation on a
terminal, and requires --yes elsewhere.`,
		Example: `  keepcache clear --bucket sessions
  keepcache clear --prefix user:
  keepcache clear --yes
  keepcache clear --bucket old --drop`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := exclusive(cmd, "prefix", "drop"); err != nil {
				return err
			}
			begin, err := f.name(prefix)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("prefix") && begin == "" {
				return usagef("--prefix is empty; leave it out to clear the whole bucket")
			}
			asks := !yes && !cmd.Flags().Changed("prefix") && !cmd.Flags().Changed("bucket")
			if asks && !canAsk(cmd) {
				return usagef("this would empty the bucket %s: name it with --bucket, or use --yes", display.Name(f.bucket))
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return f.open(cmd, changing, func(c cache, bucket string) error {
				if err := known(c, bucket); err != nil {
					return err
				}
				if asks {
					question := "remove all entries of bucket " + display.Name(bucket) + " of " + display.Name(f.shownPath(c))
					if drop {
						question += ", and the bucket"
					}
					if err := ask(ctx, cmd, question); err != nil {
						return err
					}
				}
				n, err := c.clear(ctx, bucket, begin, drop)
				if ctx.Err() != nil && errors.Is(err, context.Canceled) {
					err = errInterrupted
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "removed %s\n", plural(n, "entry", "entries"))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "only keys that begin with this")
	cmd.Flags().BoolVar(&drop, "drop", false, "remove the bucket as well")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
