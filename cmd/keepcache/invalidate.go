package main

import (
	"github.com/spf13/cobra"
)

func newInvalidateCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "invalidate TAG...",
		Short: "Make all entries with a tag absent",
		Long: `Invalidate makes every entry that has one of the tags absent, in all buckets.
It costs one write, and is all or nothing. What is written with a tag after
that is there again. It does not say how many entries there were: keys --tag
lists those of a bucket.`,
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
