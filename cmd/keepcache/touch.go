package main

import (
	"github.com/spf13/cobra"
)

func newTouchCommand(f *flags) *cobra.Command {
	var ttl string
	cmd := &cobra.Command{
		Use:   "touch KEY --ttl LIFETIME",
		Short: "Give a key a new lifetime",
		Long: `Touch gives a key a new lifetime, from now on, and leaves its value alone. An
absent or expired key gives exit code 3 and stays absent.`,
		Example: `  keepcache touch session-token --ttl 30m
  keepcache touch session-token --ttl never`,
		Args: keyArgs("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ttl == "" {
				return usagef("--ttl is missing")
			}
			lifetime, err := parseLifetime(ttl)
			if err != nil {
				return err
			}
			return f.openKey(cmd, changing, args[0], func(c cache, bucket, key string) error {
				found, err := c.touch(bucket, key, lifetime)
				if err == nil && !found {
					err = absentKey(key, bucket)
				}
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&ttl, "ttl", "t", "", lifetimeHelp)
	return cmd
}
