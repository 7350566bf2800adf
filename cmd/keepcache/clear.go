package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
)

func newClearCommand(f *flags) *cobra.Command {
	var prefix string
	var drop bool
	cmd := &cobra.Command{
		Use:   "clear",
		Short: "Remove all entries of a bucket",
		Long: `Clear removes all entries of a bucket, or with --prefix those whose key begins with
it. It asks for no confirmation. With --drop the bucket goes as well.`,
		Example: `  keepcache clear --bucket sessions
  keepcache clear --prefix user:
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
			ctx, stop := interruptible(cmd)
			defer stop()
			return f.open(changing, func(db *keepcache.DB, b *keepcache.Bucket) error {
				if err := known(db, b); err != nil {
					return err
				}
				var n int
				if begin != "" {
					n, err = b.DeletePrefix(ctx, begin)
				} else {
					n, err = clearBucket(ctx, db, b, drop)
				}
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
	return cmd
}

// clearBucket removes all entries, and frees their room at once: no daemon may be there to do it.
func clearBucket(ctx context.Context, db *keepcache.DB, b *keepcache.Bucket, drop bool) (n int, err error) {
	if n, err = b.Len(); err != nil {
		return 0, err
	}
	if drop {
		_, err = db.DropBucket(b.Name())
	} else {
		err = b.Clear(ctx)
	}
	if err != nil {
		return 0, err
	}
	_, err = db.Sweep(ctx)
	return n, err
}
