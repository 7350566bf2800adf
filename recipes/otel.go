package recipes

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/keepcache/keepcache"
)

// Observe reports a cache to OpenTelemetry. meter reads Stats once for each collection, until the returned registration
// is unregistered. name becomes the attribute cache.
func Observe(meter metric.Meter, db *keepcache.DB, name string) (metric.Registration, error) {
	var failed error
	counter := func(name, unit, description string) metric.Int64ObservableCounter {
		c, err := meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
		if err != nil {
			failed = err
		}
		return c
	}
	gauge := func(name, unit, description string) metric.Int64ObservableUpDownCounter {
		g, err := meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
		if err != nil {
			failed = err
		}
		return g
	}
	reads := counter("keepcache.reads", "{read}", "Reads of a value, by what they found.")
	sets := counter("keepcache.sets", "{entry}", "Values written.")
	removed := counter("keepcache.removed", "{entry}", "Entries that left the cache, by reason.")
	entries := gauge("keepcache.entries", "{entry}", "Entries, expired ones that were not swept yet included.")
	file := gauge("keepcache.file.size", "By", "Size of the file.")
	if failed != nil {
		return nil, failed
	}
	with := func(pairs ...string) metric.MeasurementOption {
		all := []attribute.KeyValue{attribute.String("cache", name)}
		for i := 0; i+1 < len(pairs); i += 2 {
			all = append(all, attribute.String(pairs[i], pairs[i+1]))
		}
		return metric.WithAttributes(all...)
	}
	hit, miss := with("result", "hit"), with("result", "miss")
	expired, size, number, explicit := with("reason", "expired"), with("reason", "size"), with("reason", "entries"),
		with("reason", "explicit")
	plain := with()
	return meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s := db.Stats()
		o.ObserveInt64(reads, int64(s.Hits), hit)
		o.ObserveInt64(reads, int64(s.Misses), miss)
		o.ObserveInt64(sets, int64(s.Sets), plain)
		o.ObserveInt64(removed, int64(s.Evictions.Expired), expired)
		o.ObserveInt64(removed, int64(s.Evictions.Size), size)
		o.ObserveInt64(removed, int64(s.Evictions.Entries), number)
		o.ObserveInt64(removed, int64(s.Evictions.Explicit), explicit)
		o.ObserveInt64(entries, s.Entries, plain)
		o.ObserveInt64(file, s.FileBytes, plain)
		return nil
	}, reads, sets, removed, entries, file)
}
