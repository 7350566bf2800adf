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

// Metrics returns a handler that serves only the metrics of db, for Prometheus. Handler and Listen serve the same under
// /metrics. The format is the text format 0.0.4 of Prometheus, or OpenMetrics 1.0 if the client asks for it. All
// metrics come from Stats. Keys are never labels. Buckets are, if there are at most 100.
//
// The handler checks neither the host nor any authentication: that is up to the program that mounts it.
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

// mostBucketLabels is the maximum number of buckets as labels: each becomes a time series that stays for ever.
const mostBucketLabels = 100

// exposition writes metrics.
type exposition struct {
	open bool // OpenMetrics
	buf  bytes.Buffer
}

func (e *exposition) stats(s keepcache.Stats) {
	e.counter("keepcache_hits", "Reads that found their key, by tier.",
		`tier="memory"`, float64(s.Hits-min(s.FileHits, s.Hits)), `tier="file"`, float64(s.FileHits))
	e.counter("keepcache_misses", "Reads that found their key absent or expired.", "", float64(s.Misses))
	e.counter("keepcache_sets", "Values written.", "", float64(s.Sets))
	e.counter("keepcache_deletes", "Entries deleted by calls.", "", float64(s.Deletes))
	e.counter("keepcache_damaged_reads", "Reads that found a damaged entry.", "", float64(s.Damaged))
	e.histogram("keepcache_read_duration_seconds", "Latency of reads, sampled from about one in 128.",
		s.Reads)
	e.histogram("keepcache_write_duration_seconds", "Latency of writes, sampled from about one in 128.",
		s.Writes)

	e.gauge("keepcache_file_bytes", "Size of the file.", "", float64(s.FileBytes))
	e.gauge("keepcache_file_free_bytes", "Size of the free pages in the file.", "", float64(s.FreeBytes))
	e.gauge("keepcache_entries", "Entries, including expired ones that were not swept yet.", "", float64(s.Entries))
	e.gauge("keepcache_entry_bytes", "Size of the keys and records of all entries.", "", float64(s.Bytes))
	e.gauge("keepcache_entry_cost_bytes", "Space in the file that entries and buckets need.", "", float64(s.Cost))
	if budget := s.Budgets.Bytes; budget >= 0 {
		e.gauge("keepcache_entry_budget_bytes", "Limit of the space in the file that entries and buckets need.", "",
			float64(budget))
	}
	e.gauge("keepcache_memory_budget_bytes", "Limit of the memory that entries take.", "", float64(s.Budgets.MemoryBytes))
	if len(s.Buckets) <= mostBucketLabels {
		var entries, bytes []any
		for _, name := range slices.Sorted(maps.Keys(s.Buckets)) {
			b := s.Buckets[name]
			label := "bucket=" + labelValue(name)
			entries = append(entries, label, float64(b.Entries))
			bytes = append(bytes, label, float64(b.Bytes))
		}
		e.gauge("keepcache_bucket_entries", "Entries of a bucket, including expired ones that were not swept yet.",
			entries...)
		e.gauge("keepcache_bucket_bytes", "Size of the keys and records of a bucket.", bytes...)
	}
	e.counter("keepcache_removed_entries", "Entries removed from the cache, by reason.",
		`reason="expired"`, float64(s.Evictions.Expired), `reason="size"`, float64(s.Evictions.Size),
		`reason="entries"`, float64(s.Evictions.Entries), `reason="explicit"`, float64(s.Evictions.Explicit))
	e.counter("keepcache_evicted_bytes", "Size of the keys and records that were evicted.", "", float64(s.Evictions.Bytes))
	e.counter("keepcache_compactions", "Compactions that succeeded.", "", float64(s.Compact.Compactions))
	e.counter("keepcache_compaction_failures", "Compactions that failed.", "", float64(s.Compact.Failed))

	e.gauge("keepcache_unavailable", "1 while the file cannot be used, otherwise 0.", "", flag(s.Health.Unavailable))
	e.counter("keepcache_health_failures", "Times that the file became unavailable.", "", float64(s.Health.Failures))
	e.counter("keepcache_quarantined_files", "Damaged files and journals that were quarantined.", "",
		float64(s.Health.Quarantined))
	e.counter("keepcache_lost_writes", "Writes that may have been lost in damaged journals.", "",
		float64(s.Health.LostWrites))

	e.counter("keepcache_loads", "Calls of loaders.", "", float64(s.Loads.Loads))
	e.counter("keepcache_load_failures", "Calls of loaders that failed.", "", float64(s.Loads.Failures))
	e.histogram("keepcache_load_duration_seconds", "Time that loaders took.",
		s.Loads.Latencies)
	e.counter("keepcache_refreshes", "Loads started in the background.", "", float64(s.Loads.Refreshes))
	e.counter("keepcache_stale_hits", "Requests served with a stale value.", "", float64(s.Loads.Stale))
	e.counter("keepcache_negative_hits", "Requests answered by a negative entry.", "", float64(s.Loads.NegativeHits))
	e.counter("keepcache_discarded_loads", "Loaded values that were not stored, because the key had changed.", "",
		float64(s.Loads.Discarded))
	e.counter("keepcache_mismatched_loads", "Stored values that could not be decoded and were loaded again.", "",
		float64(s.Loads.Mismatched))
	e.counter("keepcache_load_cache_errors", "Loads during which the cache could not be read or written.", "",
		float64(s.Loads.CacheErrors))
	e.counter("keepcache_remembered_load_failures", "Requests answered with the remembered error of a failed load.", "",
		float64(s.Loads.Remembered))
	e.counter("keepcache_timed_out_loads", "Loads that exceeded LoadTimeout.", "", float64(s.Loads.TimedOut))
	e.counter("keepcache_skipped_refreshes", "Refreshes not started, because all slots were taken.", "",
		float64(s.Loads.Skipped))
	e.gauge("keepcache_running_loads", "Loads that are running.", "", float64(s.Loads.Running))
	e.gauge("keepcache_abandoned_loaders", "Loaders that have not returned although their load exceeded LoadTimeout.", "",
		float64(s.Loads.Abandoned))

	e.gauge("keepcache_memory_entries", "Entries in memory.", "", float64(s.Memory.Entries))
	e.gauge("keepcache_memory_bytes", "Memory that entries take; pinned entries are not in the file yet.",
		`state="pinned"`, float64(s.Memory.PinnedBytes), `state="cached"`, float64(s.Memory.CachedBytes))
	e.gauge("keepcache_journal_bytes", "Size of the journal.", "", float64(s.Journal.FileBytes))
	e.gauge("keepcache_journal_used_bytes", "Part of the journal that is not in the file yet.", "",
		float64(s.Journal.UsedBytes))
	e.gauge("keepcache_journal_failed", "1 while there is no working journal and writes wait for commits, otherwise 0.",
		"", flag(s.Journal.Failed))
	e.counter("keepcache_journal_appends", "Records appended to the journal.", "", float64(s.Journal.Appends))
	e.counter("keepcache_journal_flushes", "Flushes of the journal to the disk.", "", float64(s.Journal.Flushes))
	e.counter("keepcache_journal_flush_seconds", "Time spent in flushes of the journal.", "",
		s.Journal.FlushTime.Seconds())
	e.counter("keepcache_commits", "Commits to the file.", "", float64(s.Commit.Commits))
	e.counter("keepcache_commit_failures", "Commits to the file that failed.", "", float64(s.Commit.Failed))
	e.counter("keepcache_committed_entries", "Entries written and removed by commits.", "", float64(s.Commit.Entries))
	e.counter("keepcache_commit_seconds", "Time spent in commits.", "", s.Commit.Time.Seconds())
	e.gauge("keepcache_longest_commit_seconds", "Duration of the longest commit.", "", s.Commit.Longest.Seconds())
	e.counter("keepcache_sweeps", "Sweeps of expired entries.", "", float64(s.Sweep.Sweeps))
	e.gauge("keepcache_sweep_lag_seconds", "Age of the oldest expired entry that has not been swept.", "",
		s.Sweep.Lag.Seconds())
	e.gauge("keepcache_sweep_pending_buckets", "Cleared and dropped buckets whose entries have not all been swept.", "",
		float64(s.Sweep.Pending))
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// head writes help and type of a metric. In OpenMetrics the name of a counter's family has no _total.
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

// histogram writes a histogram of latencies. As the format requires, each bucket includes all lower ones.
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

// float writes a number in the form that both formats accept.
func float(f float64) string {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// labelValue quotes a name as the value of a label. Labels must be UTF-8; any other name is written as the command
// prints it.
func labelValue(name string) string {
	name = strings.ToValidUTF8(display.Name(name), "\ufffd")
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(name) + `"`
}
