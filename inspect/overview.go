package inspect

import (
	"fmt"
	"strconv"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
	"github.com/keepcache/keepcache/internal/wire"
)

// figure is a number with a label and a note.
type figure struct{ Label, Value, Unit, Note string }

// overviewData is what the overview shows.
type overviewData struct {
	frameData
	Figures           []figure
	Ops, Ratio        chart
	Latency, Lives    bars
	Surveyed          string
	Alarm             string // a current problem, or empty
	Gauges            []gauge
	Buckets           []bucketRow
	MoreBuckets       int
	Expiring, Biggest []row
	Facts             []fact
	Now               string
}

const shortList = 6

func (s *server) overview() overviewData {
	now := time.Now()
	stats := s.db.Stats()
	samples := s.history.recent(sampleOf(stats, now))
	first := samples[0]
	d := overviewData{frameData: s.frame("overview", "Overview"), Now: now.Format("15:04:05")}
	if h := stats.Health; h.Unavailable {
		d.Alarm = "The file has been unavailable since " + h.Since.Format("15:04:05") +
			". Reads and writes continue in memory."
		if h.Err != nil {
			d.Alarm += " " + display.Text(h.Err.Error(), 300)
		}
	}
	reads, writes := stats.Reads.Sub(first.reads), stats.Writes.Sub(first.writes)
	d.Figures = s.figures(stats, samples, reads, writes)
	d.Ops, d.Ratio = opsChart(samples), ratioChart(samples)
	d.Latency = latencyBars(reads, writes)

	walk, whole := s.survey.step(s.db, s.entryOf)
	d.Lives = lifeBars(walk.lives)
	switch {
	case walk.looked == 0:
		d.Surveyed = "no entries"
	case whole:
		d.Surveyed = fmt.Sprintf("%s entries, scanned %s ago", count(walk.looked), span(now.Sub(walk.ended)))
	default:
		d.Surveyed = fmt.Sprintf("%s of %s entries scanned so far", count(walk.looked),
			count(max(stats.Entries, walk.looked)))
	}
	for _, e := range walk.biggest(s.db) {
		if r := rowOf(e, now); len(d.Biggest) < shortList {
			r.Life, r.Until, r.Key = r.Size, 0, shorten(r.Key, 48)
			d.Biggest = append(d.Biggest, r)
		}
	}
	expiring, _ := s.db.Expiring(shortList) // after Close there is none
	for _, e := range expiring {
		r := rowOf(wire.EntryOf(e.Bucket, e.Entry), now)
		r.Key = shorten(r.Key, 48)
		d.Expiring = append(d.Expiring, r)
	}
	d.Gauges = gauges(stats)
	d.Buckets, d.MoreBuckets = bucketRows(stats, "")
	d.Facts = facts(stats)
	return d
}

func (s *server) figures(stats keepcache.Stats, samples []sample, reads, writes keepcache.Latencies) []figure {
	last := rateOf(samples[max(0, len(samples)-6):]) // of the last ten seconds
	all := rateOf(samples)
	ratio := figure{Label: "Hit ratio", Value: "–", Note: "no reads yet"}
	if n := stats.Hits + stats.Misses; n > 0 {
		ratio.Value, ratio.Unit = percent(stats.HitRatio())
		ratio.Note = "of " + number(float64(n)) + " reads"
		if r, ok := all.ratio(); ok {
			text, unit := percent(r)
			ratio.Note = text + " " + unit + " lately"
		}
	}
	lag := figure{Label: "Sweep", Value: "on time", Note: count(stats.Evictions.Expired) + " expired so far"}
	if stats.Sweep.Lag > 5*time.Second {
		lag.Value = span(stats.Sweep.Lag)
		lag.Note = "behind"
	}
	latency := figure{Label: "Read, median", Value: "–", Note: "no sample yet"}
	if reads.Count() > 0 {
		latency.Value = "< " + span(reads.Quantile(0.5))
		latency.Note = "99 % < " + span(reads.Quantile(0.99))
	}
	wait := figure{Label: "Write, median", Value: "–", Note: "no sample yet"}
	if writes.Count() > 0 {
		wait.Value = "< " + span(writes.Quantile(0.5))
		wait.Note = "99 % < " + span(writes.Quantile(0.99))
	}
	return []figure{
		ratio,
		{Label: "Reads", Value: number(last.hits + last.misses), Unit: "/s", Note: number(last.misses) + "/s missed"},
		{Label: "Writes", Value: number(last.sets), Unit: "/s", Note: number(last.deletes) + "/s deleted"},
		{Label: "Entries", Value: number(float64(stats.Entries)),
			Note: count(stats.Entries) + " in " + count(len(stats.Buckets)) + " buckets"},
		latency,
		wait,
		lag,
	}
}

// percent formats a fraction from 0 to 1.
func percent(part float64) (value, unit string) {
	return strconv.FormatFloat(100*part, 'f', 1, 64), "%"
}

func facts(s keepcache.Stats) []fact {
	f := []fact{
		{"Hits", count(s.Hits)},
		{"Hits from the file", count(s.FileHits)},
		{"Misses", count(s.Misses)},
		{"Writes", count(s.Sets)},
		{"Deletes", count(s.Deletes)},
		{"Expired", count(s.Evictions.Expired)},
		{"Evicted over size", count(s.Evictions.Size)},
		{"Evicted over count", count(s.Evictions.Entries)},
		{"Commits", count(s.Commit.Commits) + ", the longest " + span(s.Commit.Longest)},
		{"Flushes", count(s.Journal.Flushes)},
	}
	if l := s.Loads; l.Loads > 0 || l.Running > 0 {
		f = append(f, fact{"Loads", count(l.Loads) + ", " + count(l.Failures) + " failed"},
			fact{"Loads running", count(l.Running)}, fact{"Served stale", count(l.Stale)})
		if l.Skipped > 0 {
			f = append(f, fact{"Refreshes skipped, no free slot", count(l.Skipped)})
		}
		if l.Abandoned > 0 {
			f = append(f, fact{"Loaders past LoadTimeout", count(l.Abandoned)})
		}
	}
	if s.Compact.Compactions > 0 {
		f = append(f, fact{"Compactions", count(s.Compact.Compactions)})
	}
	if s.Damaged > 0 {
		f = append(f, fact{"Damaged entries read", count(s.Damaged)})
	}
	if s.Health.Failures > 0 {
		f = append(f, fact{"Times the file was unavailable", count(s.Health.Failures)})
	}
	if s.Health.Moved {
		f = append(f, fact{"Directory", "renamed or removed since the cache was opened"})
	}
	if s.Health.Quarantined > 0 {
		f = append(f, fact{"Last quarantined file", display.Name(s.Health.Aside)})
	}
	for _, err := range []struct {
		label string
		err   error
	}{{"Commit", s.Commit.Err}, {"Sweep", s.Sweep.Err}, {"Compaction", s.Compact.Err}} {
		if err.err != nil {
			f = append(f, fact{err.label + " failed", display.Text(err.err.Error(), 200)})
		}
	}
	return f
}
