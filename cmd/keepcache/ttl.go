package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache/internal/display"
)

func newTTLCommand(f *flags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ttl KEY...",
		Short: "Print the remaining lifetime of keys",
		Long: `TTL prints the remaining lifetime of a key, or never if it does not expire.
With several keys it prints a line with the name of each. If a key is absent,
the exit code is 3.`,
		Example: `  keepcache ttl session-token`,
		Args:    someArgs("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.openKeys(cmd, reading, args, func(c cache, bucket, key string) error {
				e, err := c.find(bucket, key, false)
				out := cmd.OutOrStdout()
				switch {
				case asJSON:
					return printObject(out, bucket, key, err, func() error {
						var o object
						o.name("bucket", bucket)
						expiresMember(&o, e.Entry)
						o.bool("found", true)
						o.name("key", key)
						lifetimeMember(&o, e.Entry)
						out.Write(o.line())
						return nil
					})
				case err != nil:
					return err
				}
				left := showLifetime(remaining(e.Entry, time.Now()))
				if len(args) > 1 {
					left = fmt.Sprintf("%16s  %s", left, display.Name(key))
				}
				fmt.Fprintln(out, left)
				return nil
			})
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}
