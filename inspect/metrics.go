package inspect

import (
	"bytes"
	"context"
	"maps"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
)

// Metrics returns a handler of the metrics of db alone, for Prometheus: what Handler and Listen serve under metrics. It
// is in the text format 0.0.4 of Prometheus, or in OpenMetrics 1.0 for who asks for that. Everything in it comes from
// Stats. No key is ever a label; buckets are, as long as there are 100 at most.
//
// It asks for no host name and no authentication: that is for the program that mounts it.
func Metrics(db *keepcache.DB) http.Handler {
	s := &server{db: db, bounds: newBounds(0), closing: context.Background()}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		private(w.Header())
		if !isGet(r) {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "metrics are for GET", http.StatusMethodNotAllowed)
			return
		}
		v := s.begin(w, r)
		defer v.end()
		fail := func(err error) { http.Error(w, err.Error(), http.StatusServiceUnavailable) }
		if err := v.take(s.answers); err != nil {
			fail(err)
			return
		}
		v.within(defaultTimeout)
		if err := v.enter(); err != nil {
			fail(err)
			return
		}
		v.metrics(fail)
	})
}

// metrics answers with the metrics.
func (v *visit) metrics(fail func(error)) {
	e := exposition{open: wantsOpenMetrics(v.r.Header.Get("Accept"))}
	e.stats(v.s.db.Stats())
	kind := "text/plain; version=0.0.4; charset=utf-8"
	if e.open {
		e.buf.WriteString("# EOF\n")
		kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
	}
	v.send(kind, http.StatusOK, func(buf *bytes.Buffer) error {
		*buf = e.buf
		return nil
	}, fail)
}

// wantsOpenMetrics reports whether an Accept header asks for OpenMetrics at least as much as for plain text.
func wantsOpenMetrics(accept string) bool {
	open, plain := 0.0, 0.0
	for part := range strings.SplitSeq(accept, ",") {
		kind, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil {
			continue
		}
		q := 1.0
		if text, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(text, 64); err != nil {
				q = 0
			}
		}
		switch kind {
		case "application/openmetrics-text":
			if v := params["version"]; v == "" || v == "1.0.0" || v == "0.0.1" {
				open = max(open, q)
			}
		case "text/plain":
			plain = max(plain, q)
		}
	}
	return open > 0 && open >= plain
}

// mostBucketLabels is how many buckets may be labels: each is a time series for ever.
const mostBucketLabels = 100

// exposition writes metrics.
type exposition struct {
	open bool // OpenMetrics
	buf  bytes.Buffer
}

func (e *exposition) stats(s keepcache.Stats) {
	e.counter("keepcache_hits", "Reads of a value that found it, by where it was.",
		`tier="memory"`, float64(s.Hits-min(s.FileHits, s.Hits)), `tier="file"`, float64(s.FileHits))
	e.counter("keepcache_misses", "Reads of a value that found it absent or expired.", "", float64(s.Misses))
	e.counter("keepcache_sets", "Values written.", "", float64(s.Sets))
	e.counter("keepcache_deletes", "Entries removed by calls.", "", float64(s.Deletes))
	e.counter("keepcache_damaged_reads", "Damaged entries met by reads.", "", float64(s.Damaged))
	e.histogram("keepcache_read_duration_seconds",
		"Time that reads took to find a value, of a sample of about one in 128.",
		s.Reads)
	e.histogram("keepcache_write_duration_seconds", "Time that writes of a value took, of a sample of about one in 128.",
		s.Writes)

	e.gauge("keepcache_file_bytes", "Size of the file.", "", float64(s.FileBytes))
	e.gauge("keepcache_file_free_bytes", "Part of the file that holds nothing.", "", float64(s.FreeBytes))
	e.gauge("keepcache_entries", "Entries, expired ones that were not swept yet included.", "", float64(s.Entries))
	e.gauge("keepcache_entry_bytes", "Keys and records of the entries.", "", float64(s.Bytes))
	e.gauge("keepcache_entry_cost_bytes", "Bytes of the file that entries and buckets need.", "", float64(s.Cost))
	if budget := s.Budgets.Bytes; budget >= 0 {
		e.gauge("keepcache_entry_budget_bytes", "Bound of the bytes of the file that entries and buckets need.", "",
			float64(budget))
	}
	e.gauge("keepcache_memory_budget_bytes", "Bound of the memory that entries take.", "", float64(s.Budgets.MemoryBytes))
	if len(s.Buckets) <= mostBucketLabels {
		var entries, bytes []any
		for _, name := range slices.Sorted(maps.Keys(s.Buckets)) {
			b := s.Buckets[name]
			label := "bucket=" + labelValue(name)
			entries = append(entries, label, float64(b.Entries))
			bytes = append(bytes, label, float64(b.Bytes))
		}
		e.gauge("keepcache_bucket_entries", "Entries of a bucket, expired ones that were not swept yet included.", entries...)
		e.gauge("keepcache_bucket_bytes", "Keys and records of the entries of a bucket.", bytes...)
	}
	e.counter("keepcache_removed_entries", "Entries that left the cache, by reason.",
		`reason="expired"`, float64(s.Evictions.Expired), `reason="size"`, float64(s.Evictions.Size),
		`reason="entries"`, float64(s.Evictions.Entries), `reason="explicit"`, float64(s.Evictions.Explicit))
	e.counter("keepcache_evicted_bytes", "Keys and records that were evicted to keep a budget.", "",
		float64(s.Evictions.Bytes))
	e.counter("keepcache_compactions", "Compactions that ended well.", "", float64(s.Compact.Compactions))
	e.counter("keepcache_compaction_failures", "Compactions that failed.", "", float64(s.Compact.Failed))

	e.gauge("keepcache_unavailable", "1 while the file cannot be used and reads and writes go on without it, else 0.", "",
		flag(s.Health.Unavailable))
	e.counter("keepcache_health_failures", "Times that the file could not be used.", "", float64(s.Health.Failures))
	e.counter("keepcache_quarantined_files", "Damaged files and journals that were kept aside.", "",
		float64(s.Health.Quarantined))
	e.counter("keepcache_lost_writes", "Writes that damaged journals may have lost.", "", float64(s.Health.LostWrites))

	e.counter("keepcache_loads", "Runs of a loader.", "", float64(s.Loads.Loads))
	e.counter("keepcache_load_failures", "Runs of a loader that failed.", "", float64(s.Loads.Failures))
	e.histogram("keepcache_load_duration_seconds", "Time that loaders took.",
		s.Loads.Latencies)
	e.counter("keepcache_refreshes", "Loads begun in the background.", "", float64(s.Loads.Refreshes))
	e.counter("keepcache_stale_hits", "Requests served with a stale value.", "", float64(s.Loads.Stale))
	e.counter("keepcache_negative_hits", "Requests answered from the memory that there is no such thing.", "",
		float64(s.Loads.NegativeHits))
	e.counter("keepcache_discarded_loads", "Loaded values not stored, because the key changed meanwhile.", "",
		float64(s.Loads.Discarded))
	e.counter("keepcache_mismatched_loads", "Stored values that did not fit and were loaded anew.", "",
		float64(s.Loads.Mismatched))
	e.counter("keepcache_load_cache_errors", "Times that the cache failed around a load, which went on.", "",
		float64(s.Loads.CacheErrors))
	e.counter("keepcache_remembered_load_failures", "Requests answered with the error of a load that had failed lately.",
		"", float64(s.Loads.Remembered))
	e.counter("keepcache_timed_out_loads", "Loads that passed LoadTimeout.", "", float64(s.Loads.TimedOut))
	e.counter("keepcache_skipped_refreshes", "Refreshes not begun, because all slots were taken.", "",
		float64(s.Loads.Skipped))
	e.gauge("keepcache_running_loads", "Loads under way.", "", float64(s.Loads.Running))
	e.gauge("keepcache_abandoned_loaders", "Loaders that have not returned, although their load has passed LoadTimeout.",
		"", float64(s.Loads.Abandoned))

	e.gauge("keepcache_memory_entries", "Entries in memory.", "", float64(s.Memory.Entries))
	e.gauge("keepcache_memory_bytes", "Memory that entries take; pinned ones are not in the file yet.",
		`state="pinned"`, float64(s.Memory.PinnedBytes), `state="cached"`, float64(s.Memory.CachedBytes))
	e.gauge("keepcache_journal_bytes", "Size of the journal.", "", float64(s.Journal.FileBytes))
	e.gauge("keepcache_journal_used_bytes", "Part of the journal that the file does not have yet.", "",
		float64(s.Journal.UsedBytes))
	e.gauge("keepcache_journal_failed", "1 while the journal is out of order and writes wait for commits, else 0.", "",
		flag(s.Journal.Failed))
	e.counter("keepcache_journal_appends", "Pieces appended to the journal.", "", float64(s.Journal.Appends))
	e.counter("keepcache_journal_flushes", "Flushes of the journal to the disk.", "", float64(s.Journal.Flushes))
	e.counter("keepcache_journal_flush_seconds", "Time spent in flushes of the journal.", "",
		s.Journal.FlushTime.Seconds())
	e.counter("keepcache_commits", "Commits to the file.", "", float64(s.Commit.Commits))
	e.counter("keepcache_commit_failures", "Commits to the file that failed.", "", float64(s.Commit.Failed))
	e.counter("keepcache_committed_entries", "Entries written and removed in commits.", "", float64(s.Commit.Entries))
	e.counter("keepcache_commit_seconds", "Time spent in commits.", "", s.Commit.Time.Seconds())
	e.gauge("keepcache_longest_commit_seconds", "Time that the longest commit took.", "", s.Commit.Longest.Seconds())
	e.counter("keepcache_sweeps", "Sweeps for expired entries.", "", float64(s.Sweep.Sweeps))
	e.gauge("keepcache_sweep_lag_seconds", "Time since the most overdue entry has been due for removal.", "",
		s.Sweep.Lag.Seconds())
	e.gauge("keepcache_sweep_pending_buckets", "Cleared and dropped buckets that are not empty yet.", "",
		float64(s.Sweep.Pending))
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// head writes what a metric is. In OpenMetrics a counter's family has no _total.
func (e *exposition) head(name, kind, help string) {
	if kind == "counter" && !e.open {
		name += "_total"
	}
	e.buf.WriteString("# HELP " + name + " " + help + "\n# TYPE " + name + " " + kind + "\n")
}

// counter writes a counter: pairs of labels, as text, and values.
func (e *exposition) counter(name, help string, pairs ...any) {
	e.head(name, "counter", help)
	e.samples(name+"_total", pairs)
}

func (e *exposition) gauge(name, help string, pairs ...any) {
	e.head(name, "gauge", help)
	e.samples(name, pairs)
}

func (e *exposition) samples(name string, pairs []any) {
	for i := 0; i+1 < len(pairs); i += 2 {
		e.sample(name, pairs[i].(string), pairs[i+1].(float64))
	}
}

func (e *exposition) sample(name, labels string, value float64) {
	e.buf.WriteString(name)
	if labels != "" {
		e.buf.WriteString("{" + labels + "}")
	}
	e.buf.WriteString(" " + float(value) + "\n")
}

// histogram writes how long operations took. Each count of the format includes those of the lower bounds.
func (e *exposition) histogram(name, help string, l keepcache.Latencies) {
	e.head(name, "histogram", help)
	all := uint64(0)
	for i, n := range l.Counts {
		all += n
		le := "+Inf"
		if b := keepcache.LatencyBound(i); b != keepcache.NoExpiry {
			le = float(b.Seconds())
		}
		e.sample(name+"_bucket", `le="`+le+`"`, float64(all))
	}
	e.sample(name+"_sum", "", l.Time.Seconds())
	e.sample(name+"_count", "", float64(all))
}

// float writes a number as both formats read it.
func float(f float64) string {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// labelValue quotes a name for a label. What is not UTF-8 cannot be one and is shown as the command shows it.
func labelValue(name string) string {
	name = strings.ToValidUTF8(display.Name(name), "\ufffd")
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(name) + `"`
}
