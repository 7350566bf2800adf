package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache/internal/display"
)

func newBucketsCommand(f *flags) *cobra.Command {
	var long, asJSON bool
	cmd := &cobra.Command{
		Use:   "buckets",
		Short: "List the buckets",
		Long: `Buckets lists the buckets of the cache in byte order. --long adds the number
and size of their entries, including expired ones that were not swept yet. On a
terminal, names that do not fit the line are shortened in the middle.`,
		Example: `  keepcache buckets --long`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.open(cmd, reading, func(c cache, _ string) error {
				names, err := c.buckets()
				if err != nil {
					return err
				}
				stats, err := c.stats()
				if err != nil {
					return err
				}
				out := cmd.OutOrStdout()
				if long && !asJSON && isTerminal(out) {
					fmt.Fprintf(out, "%10s  %10s  %s\n", "ENTRIES", "SIZE", "BUCKET")
				}
				shown := nameAfter(out, 24)
				for _, name := range names {
					b := stats.Buckets[name]
					switch {
					case asJSON:
						var o object
						o.name("bucket", name)
						o.int("bytes", b.Bytes)
						o.int("entries", b.Entries)
						out.Write(o.line())
					case long:
						fmt.Fprintf(out, "%10s  %10s  %s\n", count(b.Entries), size(b.Bytes), shown(name))
					default:
						fmt.Fprintln(out, display.Name(name))
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "show entries and sizes")
	addJSON(cmd, &asJSON)
	return cmd
}
