package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache/internal/display"
)

func newExistsCommand(f *flags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "exists KEY...",
		Short: "Check whether keys exist",
		Long: `Exists prints true if a key is there, and false if it is absent or expired.
With several keys it prints a line with the name of each. If a key is absent,
the exit code is 3.`,
		Example: `  keepcache exists flag-key
  if keepcache exists flag-key > /dev/null; then echo on; fi`,
		Args: someArgs("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.openKeys(cmd, reading, args, func(c cache, bucket, key string) error {
				found, err := c.exists(bucket, key)
				if err != nil {
					return err
				}
				switch out := cmd.OutOrStdout(); {
				case asJSON:
					var o object
					o.name("bucket", bucket)
					o.bool("exists", found)
					o.name("key", key)
					out.Write(o.line())
				case len(args) > 1:
					fmt.Fprintf(out, "%-5t  %s\n", found, display.Name(key))
				default:
					fmt.Fprintln(out, found)
				}
				if !found {
					return &noError{} // already reported
				}
				return nil
			})
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}
