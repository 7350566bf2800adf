package main

import (
	"github.com/spf13/cobra"
)

func newDeleteCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "delete KEY...",
		Short: "Remove keys",
		Long: `Delete removes keys. It names absent keys on standard error; then the exit code
is 3.`,
		Example: `  keepcache delete temp-key
  keepcache delete user:1 user:2 user:3
  keepcache delete -- -k`,
		Args: someArgs("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.openKeys(cmd, changing, args, func(c cache, bucket, key string) error {
				found, err := c.delete(bucket, key)
				if err == nil && !found {
					err = absentKey(key, bucket)
				}
				return err
			})
		},
	}
}
