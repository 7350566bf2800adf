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
bucket, and what the sweeper has still to remove. Entries are those of the file; they include
expired ones that were not swept yet. After a crash it also says how much the journal
has that the file does not. With --json there are also the counters of the tiers, which
start when the file is opened.`,
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
				if waiting := s.Memory.PinnedBytes; waiting > 0 {
					fmt.Fprintf(out, "journal   %s that the file does not have yet\n", size(waiting))
				}
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
	o.raw("tiers", tiersJSON(s))
	return o.line()
}

// tiersJSON says what memory, the journal and the commits did and how they stand.
func tiersJSON(s keepcache.Stats) []byte {
	var o object
	o.int("cached_bytes", s.Memory.CachedBytes)
	o.int("commits", int64(s.Commit.Commits))
	o.int("commits_failed", int64(s.Commit.Failed))
	o.int("commits_longest_us", s.Commit.Longest.Microseconds())
	o.int("commits_us", s.Commit.Time.Microseconds())
	o.int("committed_entries", int64(s.Commit.Entries))
	o.int("flushes", int64(s.Journal.Flushes))
	o.int("flushes_us", s.Journal.FlushTime.Microseconds())
	o.int("hits_file", int64(s.FileHits))
	o.int("hits_memory", int64(s.Hits-s.FileHits))
	o.int("journal_bytes", s.Journal.FileBytes)
	o.int("journal_used_bytes", s.Journal.UsedBytes)
	o.int("memory_entries", int64(s.Memory.Entries))
	o.int("misses", int64(s.Misses))
	o.int("pinned_bytes", s.Memory.PinnedBytes)
	return o.bytes()
}
