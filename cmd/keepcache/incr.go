package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newIncrCommand(f *flags) *cobra.Command {
	var by int64
	var ttl string
	cmd := &cobra.Command{
		Use:   "incr KEY",
		Short: "Add to the integer of a key",
		Long: `Incr adds 1, or what --by says, to the integer of a key and prints the sum. No
increment is lost, however many programs add at the same time. An absent key
counts as 0 and comes into being, with the lifetime of --ttl; one that is there
keeps its own. A value that is not an integer of 64 bits is left alone, and the
exit code is 1.`,
		Example: `  keepcache incr visits
  keepcache incr stock --by -3
  keepcache incr requests:ada --ttl 1m`,
		Args: keyArgs("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			lifetime, err := parseLifetime(ttl)
			if err != nil {
				return err
			}
			key, err := f.name(args[0])
			if err != nil {
				return err
			}
			var sum int64
			err = f.open(cmd, creating, func(c cache, bucket string) (err error) {
				sum, err = c.increment(bucket, key, by, lifetime)
				return err
			})
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), sum)
			}
			return err
		},
	}
	cmd.Flags().Int64Var(&by, "by", 1, "what to add; may be negative")
	addTTL(cmd, &ttl, never)
	return cmd
}
