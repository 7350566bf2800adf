package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/display"
)

func newStatsCommand(f *flags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Print statistics of the cache",
		Long: `Stats prints the size of the file, its free pages, the number and size of all
entries, and both for each bucket. Expired entries count until the sweeper has
removed them. After a crash it also prints how much is in the journal but not
yet in the file.

If a program has the cache open, stats also prints what that program has
counted since it opened the cache: hits, loads, evictions and, with --json,
memory, journal and commits. Failed loads include those that timed out. "no
load" counts requests that got the remembered error of an earlier load, and
refreshes that were skipped because too many loads were running.`,
		Example: `  keepcache stats
  keepcache stats --json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.open(cmd, reading, func(c cache, _ string) error {
				s, err := c.stats()
				if err != nil {
					return err
				}
				out, path := cmd.OutOrStdout(), f.shownPath(c)
				unknown := f.freeUnknown(c, s)
				if asJSON {
					out.Write(statsJSON(path, s, unknown == ""))
					return nil
				}
				free := plural(s.FreePages, "page", "pages") + ", " + size(s.FreeBytes)
				if unknown != "" {
					free = unknown
				}
				sweep := "nothing is due"
				if s.Sweep.Lag > 0 {
					sweep = "due since " + showShort(s.Sweep.Lag)
				}
				if s.Sweep.Pending > 0 {
					sweep += ", " + plural(s.Sweep.Pending, "cleared bucket", "cleared buckets") + " to empty"
				}
				fmt.Fprintf(out, "file      %s\n", display.Name(path))
				fmt.Fprintf(out, "on disk   %s\n", size(s.FileBytes))
				fmt.Fprintf(out, "free      %s\n", free)
				fmt.Fprintf(out, "entries   %s\n", count(s.Entries))
				fmt.Fprintf(out, "content   %s\n", size(s.Bytes))
				if waiting := s.Memory.PinnedBytes; waiting > 0 {
					fmt.Fprintf(out, "journal   %s not yet in the file\n", size(waiting))
				}
				fmt.Fprintf(out, "sweep     %s\n", sweep)
				fmt.Fprintf(out, "buckets   %s\n", count(len(s.Buckets)))
				printActivity(out, s)
				shown := nameAfter(out, 24)
				for _, name := range slices.Sorted(maps.Keys(s.Buckets)) {
					b := s.Buckets[name]
					fmt.Fprintf(out, "%10s  %10s  %s\n", count(b.Entries), size(b.Bytes), shown(name))
				}
				return nil
			})
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

// printActivity prints what the cache has done since it was opened, without what it has never done.
func printActivity(out io.Writer, s keepcache.Stats) {
	if n := s.Hits + s.Misses; n > 0 {
		fmt.Fprintf(out, "hits      %.1f %% of %s\n", 100*s.HitRatio(), plural(n, "read", "reads"))
	}
	printLoads(out, s.Loads)
	if e := s.Evictions; e.Expired+e.Size+e.Entries+e.Explicit > 0 {
		fmt.Fprintf(out, "removed   %s expired, %s over size, %s over count, %s deleted\n",
			count(e.Expired), count(e.Size), count(e.Entries), count(e.Explicit))
	}
	if c := s.Compact; c.Compactions > 0 {
		fmt.Fprintf(out, "compacted %s, the last time in %s for %s\n",
			plural(c.Compactions, "time", "times"), c.Took.Round(time.Millisecond), size(c.Gained))
	}
}

// printLoads prints a line about loads that ran, and one about loads that did not.
func printLoads(out io.Writer, l keepcache.LoadStats) {
	if l.Loads > 0 || l.Running > 0 {
		words := count(l.Loads)
		if l.Failures > 0 {
			words += ", " + count(l.Failures) + " failed"
		}
		if l.TimedOut > 0 {
			words += ", " + count(l.TimedOut) + " timed out"
		}
		if l.Running > 0 {
			words += ", " + count(l.Running) + " running"
		}
		fmt.Fprintf(out, "loads     %s\n", words)
	}
	var not []string
	if l.Remembered > 0 {
		not = append(not, plural(l.Remembered, "remembered failure", "remembered failures"))
	}
	if l.Skipped > 0 {
		not = append(not, plural(l.Skipped, "skipped refresh", "skipped refreshes"))
	}
	if len(not) > 0 {
		fmt.Fprintf(out, "no load   %s\n", strings.Join(not, ", "))
	}
}

// freeUnknown returns why the number of free pages is unknown, or an empty string if it is known.
func (f *flags) freeUnknown(c cache, s keepcache.Stats) string {
	l, ok := c.(*local)
	switch {
	case !ok || s.FreePages > 0:
		return ""
	case l.unlocked:
		return "not known without the lock"
	}
	// Only a file that was closed properly lists its free pages, and it has no journal.
	path, err := f.path()
	if err == nil {
		path, err = disk.Resolve(path)
	}
	if err == nil {
		_, err = os.Lstat(journalOf(path))
	}
	if err == nil {
		return "not known after a crash, until the next write"
	}
	return ""
}

func statsJSON(path string, s keepcache.Stats, freeKnown bool) []byte {
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
	o.int("cost", s.Cost)
	o.int("compactions", int64(s.Compact.Compactions))
	o.int("compactions_failed", int64(s.Compact.Failed))
	o.int("compaction_gained_bytes", s.Compact.Gained)
	o.int("compaction_took_ms", s.Compact.Took.Milliseconds())
	o.int("entries", s.Entries)
	o.int("evicted_bytes", int64(s.Evictions.Bytes))
	o.int("evicted_entries", int64(s.Evictions.Entries))
	o.int("evicted_expired", int64(s.Evictions.Expired))
	o.int("evicted_explicit", int64(s.Evictions.Explicit))
	o.int("evicted_size", int64(s.Evictions.Size))
	o.text("file", path)
	o.int("file_bytes", s.FileBytes)
	if freeKnown {
		o.int("free_bytes", s.FreeBytes)
		o.int("free_pages", s.FreePages)
	} else {
		o.raw("free_bytes", []byte("null"))
		o.raw("free_pages", []byte("null"))
	}
	o.raw("loads", loadsJSON(s.Loads))
	o.int("sweep_lag_ms", s.Sweep.Lag.Round(time.Millisecond).Milliseconds())
	o.int("sweep_pending_buckets", s.Sweep.Pending)
	o.raw("tiers", tiersJSON(s))
	return o.line()
}

// loadsJSON returns the counts of loads, and how many are running.
func loadsJSON(l keepcache.LoadStats) []byte {
	var o object
	o.int("abandoned", l.Abandoned)
	o.int("cache_errors", int64(l.CacheErrors))
	o.int("discarded", int64(l.Discarded))
	o.int("failures", int64(l.Failures))
	o.int("loads", int64(l.Loads))
	o.int("loads_us", l.Latencies.Time.Microseconds())
	o.int("mismatched", int64(l.Mismatched))
	o.int("negative_hits", int64(l.NegativeHits))
	o.int("refreshes", int64(l.Refreshes))
	o.int("remembered", int64(l.Remembered))
	o.int("running", l.Running)
	o.int("skipped", int64(l.Skipped))
	o.int("stale", int64(l.Stale))
	o.int("timed_out", int64(l.TimedOut))
	return o.bytes()
}

// tiersJSON returns the counts and the state of memory, journal and commits.
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
