package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
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
			return f.openKey(reading, args[0], func(b *keepcache.Bucket, key string) error {
				found, err := b.Exists(key)
				if err != nil {
					return err
				}
				if asJSON {
					var o object
					o.name("bucket", b.Name())
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
