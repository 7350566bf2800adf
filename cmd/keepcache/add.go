package main

import (
	"github.com/spf13/cobra"
)

func newAddCommand(f *flags) *cobra.Command {
	in := &input{}
	cmd := &cobra.Command{
		Use:   "add KEY VALUE",
		Short: "Store a value only if the key is absent",
		Long: `Add stores a value as set does, but only if the key is absent or expired. If it
exists, add changes nothing, and the exit code is 3.`,
		Example: `  keepcache add lock:nightly '"host-a"' --ttl 10m && run-nightly`,
		Args:    keyArgs("KEY", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := in.read(cmd, f, args)
			if err != nil {
				return err
			}
			return f.openWith(cmd, creating, in.options(), func(c cache, bucket string) error {
				added, err := c.add(bucket, w)
				if err == nil && !added {
					err = presentKey(w.key, bucket)
				}
				return err
			})
		},
	}
	in.addFlags(cmd)
	return cmd
}
