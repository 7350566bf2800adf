package recipes

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/keepcache/keepcache"
)

// Collector exports a cache through a registry of the Prometheus client library. inspect.Metrics serves the same
// metrics and more without that library. Use Collector in programs that have a registry anyway.
//
//	prometheus.MustRegister(recipes.Collector{DB: db, Name: "sessions"})
type Collector struct {
	DB   *keepcache.DB
	Name string // becomes the label cache, which distinguishes several caches of a program
}

var (
	hits    = desc("hits_total", "Reads of a value that found it.")
	misses  = desc("misses_total", "Reads of a value that found it absent or expired.")
	sets    = desc("sets_total", "Values written.")
	evicted = desc("removed_entries_total", "Entries that left the cache, by reason.", "reason")
	entries = desc("entries", "Entries, expired ones that were not swept yet included.")
	content = desc("entry_bytes", "Keys and records of the entries.")
	file    = desc("file_bytes", "Size of the file.")
	reads   = desc("read_duration_seconds", "Time that reads took to find a value, of a sample.")
	writes  = desc("write_duration_seconds", "Time that writes of a value took, of a sample.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("keepcache_"+name, help, append([]string{"cache"}, labels...), nil)
}

// Describe implements prometheus.Collector.
func (c Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{hits, misses, sets, evicted, entries, content, file, reads, writes} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c Collector) Collect(to chan<- prometheus.Metric) {
	s := c.DB.Stats()
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), append([]string{c.Name}, labels...)...)
	}
	gauge := func(d *prometheus.Desc, n int64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), c.Name)
	}
	count(hits, s.Hits)
	count(misses, s.Misses)
	count(sets, s.Sets)
	count(evicted, s.Evictions.Expired, "expired")
	count(evicted, s.Evictions.Size, "size")
	count(evicted, s.Evictions.Entries, "entries")
	count(evicted, s.Evictions.Explicit, "explicit")
	gauge(entries, s.Entries)
	gauge(content, s.Bytes)
	gauge(file, s.FileBytes)
	to <- c.histogram(reads, s.Reads)
	to <- c.histogram(writes, s.Writes)
}

func (c Collector) histogram(d *prometheus.Desc, l keepcache.Latencies) prometheus.Metric {
	buckets, all := make(map[float64]uint64), uint64(0)
	for i, n := range l.Counts {
		all += n
		if bound := keepcache.LatencyBound(i); bound != keepcache.NoExpiry {
			buckets[bound.Seconds()] = all
		}
	}
	return prometheus.MustNewConstHistogram(d, all, l.Time.Seconds(), buckets, c.Name)
}
