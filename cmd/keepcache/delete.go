package main

import (
	"github.com/spf13/cobra"
)

func newDeleteCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "delete KEY",
		Short: "Remove a key",
		Long: `Delete removes a key. If it is absent, delete changes nothing and gives exit
code 3.`,
		Example: `  keepcache delete temp-key`,
		Args:    keyArgs("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.openKey(cmd, changing, args[0], func(c cache, bucket, key string) error {
				found, err := c.delete(bucket, key)
				if err == nil && !found {
					err = absentKey(key, bucket)
				}
				return err
			})
		},
	}
}
