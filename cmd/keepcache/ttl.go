package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newTTLCommand(f *flags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ttl KEY",
		Short: "Print how long a key has to live",
		Long: `TTL prints how long a key has to live, or never if it does not expire. An absent
key gives exit code 3.`,
		Example: `  keepcache ttl session-token`,
		Args:    keyArgs("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := f.name(args[0])
			if err != nil {
				return err
			}
			return f.open(cmd, reading, func(c cache, bucket string) error {
				e, err := c.find(bucket, key, false)
				if err != nil {
					return err
				}
				if !asJSON {
					fmt.Fprintln(cmd.OutOrStdout(), showLifetime(remaining(e.Entry, time.Now())))
					return nil
				}
				var o object
				o.name("bucket", bucket)
				expiresMember(&o, e.Entry)
				o.name("key", key)
				lifetimeMember(&o, e.Entry)
				cmd.OutOrStdout().Write(o.line())
				return nil
			})
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}
