package main

import (
	"github.com/spf13/cobra"
)

func newTouchCommand(f *flags) *cobra.Command {
	var ttl string
	cmd := &cobra.Command{
		Use:   "touch KEY... --ttl LIFETIME",
		Short: "Give keys a new lifetime",
		Long: `Touch gives keys a new lifetime, from now on, and keeps their values. An absent
or expired key stays absent; then the exit code is 3.`,
		Example: `  keepcache touch session-token --ttl 30m
  keepcache touch session-token --ttl never`,
		Args: someArgs("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ttl == "" {
				return usagef("--ttl is missing")
			}
			lifetime, err := parseLifetime(ttl)
			if err != nil {
				return err
			}
			return f.openKeys(cmd, changing, args, func(c cache, bucket, key string) error {
				found, err := c.touch(bucket, key, lifetime)
				if err == nil && !found {
					err = absentKey(key, bucket)
				}
				return err
			})
		},
	}
	addTTL(cmd, &ttl, "")
	return cmd
}
