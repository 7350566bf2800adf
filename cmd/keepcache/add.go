package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache/internal/display"
)

func newAddCommand(f *flags) *cobra.Command {
	in := &input{}
	cmd := &cobra.Command{
		Use:   "add KEY VALUE",
		Short: "Store a value only if the key is absent",
		Long: `Add stores a value as set does, but only if the key is absent or expired. If it is
there, add changes nothing and gives exit code 1.`,
		Example: `  keepcache add lock:nightly '"host-a"' --ttl 10m && run-nightly`,
		Args:    keyArgs("KEY", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			value, ttl, err := in.read(cmd, args[1])
			if err != nil {
				return err
			}
			key, err := f.name(args[0])
			if err != nil {
				return err
			}
			return f.openWith(cmd, creating, in.options(), func(c cache, bucket string) error {
				added, err := c.put(bucket, key, value, ttl, true)
				if err == nil && !added {
					err = fmt.Errorf("key %s is already in bucket %s", display.Name(key), display.Name(bucket))
				}
				return err
			})
		},
	}
	in.addFlags(cmd)
	return cmd
}
