package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
)

func newStatsCommand(f *flags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Print how the cache stands",
		Long: `Stats prints the size of the file, the entries and their bytes, in all and by
bucket, and what the sweeper has still to remove. Entries include expired ones that
were not swept yet.`,
		Example: `  keepcache stats
  keepcache stats --json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := f.path()
			if err != nil {
				return err
			}
			return f.open(reading, func(db *keepcache.DB, _ *keepcache.Bucket) error {
				s, out := db.Stats(), cmd.OutOrStdout()
				if asJSON {
					out.Write(statsJSON(path, s))
					return nil
				}
				sweep := "nothing is due"
				if s.Sweep.Lag > 0 {
					sweep = "due since " + showShort(s.Sweep.Lag)
				}
				if s.Sweep.Pending > 0 {
					sweep += ", " + plural(s.Sweep.Pending, "cleared bucket", "cleared buckets") + " to empty"
				}
				fmt.Fprintf(out, "file      %s\n", display(path))
				fmt.Fprintf(out, "on disk   %s\n", size(s.FileBytes))
				fmt.Fprintf(out, "entries   %s\n", count(s.Entries))
				fmt.Fprintf(out, "content   %s\n", size(s.Bytes))
				fmt.Fprintf(out, "sweep     %s\n", sweep)
				fmt.Fprintf(out, "buckets   %s\n", count(len(s.Buckets)))
				for _, name := range slices.Sorted(maps.Keys(s.Buckets)) {
					b := s.Buckets[name]
					fmt.Fprintf(out, "%10s  %10s  %s\n", count(b.Entries), size(b.Bytes), display(name))
				}
				return nil
			})
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func statsJSON(path string, s keepcache.Stats) []byte {
	list := []byte{'['}
	for i, name := range slices.Sorted(maps.Keys(s.Buckets)) {
		if i > 0 {
			list = append(list, ',')
		}
		var b object
		b.name("bucket", name)
		b.int("bytes", s.Buckets[name].Bytes)
		b.int("entries", s.Buckets[name].Entries)
		list = append(list, b.bytes()...)
	}
	var o object
	o.raw("buckets", append(list, ']'))
	o.int("bytes", s.Bytes)
	o.int("entries", s.Entries)
	o.text("file", path)
	o.int("file_bytes", s.FileBytes)
	o.int("sweep_lag_ms", s.Sweep.Lag.Round(time.Millisecond).Milliseconds())
	o.int("sweep_pending_buckets", int64(s.Sweep.Pending))
	return o.line()
}
