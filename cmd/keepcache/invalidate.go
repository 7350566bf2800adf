package main

import (
	"github.com/spf13/cobra"
)

func newInvalidateCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "invalidate TAG...",
		Short: "Make all entries with a tag absent",
		Long: `Invalidate makes every entry with one of the tags absent, in all buckets. It is
one atomic write, however many entries there are. Entries that are written
later with the same tag are not affected. Invalidate does not count the
entries; keys --tag lists those of a bucket.`,
		Example: `  keepcache set page:home '"<html>"' --tag product:7
  keepcache invalidate product:7`,
		Args: someArgs("TAG"),
		RunE: func(cmd *cobra.Command, args []string) error {
			tags, err := f.names(args)
			if err != nil {
				return err
			}
			return f.open(cmd, changing, func(c cache, _ string) error { return c.invalidate(tags) })
		},
	}
}
