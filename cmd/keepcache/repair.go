package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
)

func newRepairCommand(f *flags) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "repair --to FILE",
		Short: "Save what can be proved of a damaged file into a new one",
		Long: `Repair reads a file in whatever state, such as one that was kept aside as
app.cache.corrupt-TIME, and writes every entry that its checksum proves to a new
cache file. The damaged file is only read. Of several versions of an entry the
latest counts.

Where the damage hides pages, all pages are searched, also those that were given
up: an entry that was deleted can be back then. An entry can be proved only under
the name of its bucket: where the file no longer says which buckets there are,
name one with --bucket and repair again.`,
		Example: `  keepcache repair --file app.cache.corrupt-20060102T150405Z --to saved.cache`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := f.path()
			if err != nil {
				return err
			}
			if to == "" {
				return usagef("--to is missing: where is the new file to be?")
			}
			if err := present(path); err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			r, err := keepcache.Repair(ctx, path, to, []string{f.bucket})
			if ctx.Err() != nil && errors.Is(err, context.Canceled) {
				return errInterrupted
			}
			if err != nil {
				return err
			}
			errOut := cmd.ErrOrStderr()
			fmt.Fprintf(errOut, "saved %s in %s to %s\n", plural(r.Entries, "entry", "entries"),
				plural(int64(r.Buckets), "bucket", "buckets"), strconv.Quote(to))
			if r.Unproved > 0 {
				fmt.Fprintf(errOut, "left out %s that no checksum proves\n", plural(r.Unproved, "record", "records"))
			}
			if !r.Whole {
				fmt.Fprintln(errOut, "pages are missing, so all were searched: entries that were deleted can be back")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "the new file, which must not exist")
	return cmd
}
