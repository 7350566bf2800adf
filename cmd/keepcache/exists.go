package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newExistsCommand(f *flags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "exists KEY",
		Short: "Say whether a key is there",
		Long: `Exists prints true if a key is there, and false, with exit code 3, if it is absent
or expired.`,
		Example: `  keepcache exists flag-key
  if keepcache exists flag-key > /dev/null; then echo on; fi`,
		Args: keyArgs("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.openKey(cmd, reading, args[0], func(c cache, bucket, key string) error {
				found, err := c.exists(bucket, key)
				if err != nil {
					return err
				}
				if asJSON {
					var o object
					o.name("bucket", bucket)
					o.bool("exists", found)
					o.name("key", key)
					cmd.OutOrStdout().Write(o.line())
				} else {
					fmt.Fprintln(cmd.OutOrStdout(), found)
				}
				if !found {
					return &absentError{} // it has been said
				}
				return nil
			})
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}
