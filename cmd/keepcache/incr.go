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
		Short: "Add to an integer value",
		Long: `Incr adds 1, or the number in --by, to an integer value and prints the sum.
This is atomic: no increment is lost if several programs add at the same time.
An absent key starts at 0 with the lifetime in --ttl; an existing key keeps its
lifetime. If the value is not a 64-bit integer, incr leaves it alone, and the
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
