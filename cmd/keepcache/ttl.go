package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
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
			return f.open(reading, func(db *keepcache.DB, b *keepcache.Bucket) error {
				e, err := find(db, b, key)
				if err != nil {
					return err
				}
				if !asJSON {
					fmt.Fprintln(cmd.OutOrStdout(), showLifetime(remaining(e, time.Now())))
					return nil
				}
				var o object
				o.name("bucket", b.Name())
				expiresMember(&o, e)
				o.name("key", key)
				lifetimeMember(&o, e)
				cmd.OutOrStdout().Write(o.line())
				return nil
			})
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}
