package inspect

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/keepcache/keepcache"
)

// chart shows lines over time, in a view box of 600 by 160.
type chart struct {
	Label, From, Top, Middle string
	Lines                    []line
}

type line struct{ Class, Path, Area string }

const chartWidth, chartHeight = 600.0, 160.0

// rate has the number of operations per second.
type rate struct{ hits, misses, sets, deletes float64 }

// rateOf returns the rate between the first and the last sample.
func rateOf(samples []sample) rate {
	a, b := samples[0], samples[len(samples)-1]
	took := b.at.Sub(a.at).Seconds()
	if took <= 0 {
		return rate{}
	}
	per := func(from, to uint64) float64 { return float64(to-min(from, to)) / took }
	return rate{per(a.hits, b.hits), per(a.misses, b.misses), per(a.sets, b.sets), per(a.deletes, b.deletes)}
}

// ratio returns the hit ratio, if there were reads.
func (r rate) ratio() (float64, bool) {
	if r.hits+r.misses == 0 {
		return 0, false
	}
	return r.hits / (r.hits + r.misses), true
}

// rates returns the rates between samples, with their positions in the chart. If there are more samples than a chart
// shows, several of them make one point.
func rates(samples []sample) (xs []float64, rates []rate) {
	const most = 150
	step := (len(samples) + most - 1) / most
	first, last := samples[0].at, samples[len(samples)-1].at
	whole := last.Sub(first).Seconds()
	for i := len(samples) - 1; i > 0; i -= step {
		from := max(0, i-step)
		if samples[i].at.Sub(samples[from].at) < sampleTime/4 && from > 0 {
			from-- // the current sample may follow the one before it very closely
		}
		xs = append(xs, chartWidth*samples[i].at.Sub(first).Seconds()/max(whole, 1e-9))
		rates = append(rates, rateOf([]sample{samples[from], samples[i]}))
	}
	if n := len(rates); n > 0 { // extend the oldest rate to the left edge
		xs, rates = append(xs, 0), append(rates, rates[n-1])
	}
	return xs, rates
}

// curve draws values, from 0 to top.
func curve(class string, xs []float64, top float64, value func(int) (float64, bool), area bool) line {
	var path, fill strings.Builder
	open, lastX := false, 0.0
	for i := len(xs) - 1; i >= 0; i-- { // from the oldest
		v, ok := value(i)
		if !ok {
			if open && area {
				fill.WriteString("V" + fixed(chartHeight) + "Z")
			}
			open = false
			continue
		}
		x, y := xs[i], chartHeight-2-(chartHeight-6)*min(1, v/top)
		if !open {
			path.WriteString("M" + fixed(x) + " " + fixed(y))
			fill.WriteString("M" + fixed(x) + " " + fixed(chartHeight) + "V" + fixed(y))
		} else {
			path.WriteString("L" + fixed(x) + " " + fixed(y))
			fill.WriteString("L" + fixed(x) + " " + fixed(y))
		}
		open, lastX = true, x
	}
	if open {
		fill.WriteString("V" + fixed(chartHeight) + "H" + fixed(lastX) + "Z")
	}
	l := line{Class: class, Path: path.String()}
	if area {
		l.Area = fill.String()
	}
	return l
}

func opsChart(samples []sample) chart {
	xs, all := rates(samples)
	top := 1.0
	for _, r := range all {
		top = max(top, r.hits, r.misses, r.sets)
	}
	top = nice(top)
	pick := func(of func(rate) float64) func(int) (float64, bool) {
		return func(i int) (float64, bool) { return of(all[i]), true }
	}
	return chart{
		Label: "Operations per second in the last minutes", From: ago(samples), Top: number(top), Middle: number(top / 2),
		Lines: []line{
			curve("hits", xs, top, pick(func(r rate) float64 { return r.hits }), true),
			curve("misses", xs, top, pick(func(r rate) float64 { return r.misses }), false),
			curve("sets", xs, top, pick(func(r rate) float64 { return r.sets }), false),
		},
	}
}

func ratioChart(samples []sample) chart {
	xs, all := rates(samples)
	return chart{
		Label: "Hit ratio in the last minutes", From: ago(samples), Top: "100 %", Middle: "50 %",
		Lines: []line{curve("ratio", xs, 1, func(i int) (float64, bool) { return all[i].ratio() }, true)},
	}
}

func ago(samples []sample) string {
	return span(samples[len(samples)-1].at.Sub(samples[0].at).Round(time.Second)) + " ago"
}

// nice rounds up to a round number for an axis.
func nice(f float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(f)))
	for _, n := range []float64{1, 2, 4, 5, 10} {
		if f <= n*unit {
			return n * unit
		}
	}
	return 10 * unit
}

// bars is a bar chart.
type bars struct {
	Label, Empty string
	Bars         []bar
}

type bar struct {
	Label, Title string
	Parts        []box
}

// box is a rectangle, within 10 by 100 in a bar and within 1000 by 10 in a gauge.
type box struct{ Class, Label, X, Y, Width, Height string }

func upright(class string, x, width, part float64) box {
	h := 100 * part
	if part > 0 {
		h = max(h, 1.5)
	}
	return box{Class: class, X: fixed(x), Width: fixed(width), Y: fixed(100 - h), Height: fixed(h)}
}

func lifeBars(lives []int64) bars {
	b := bars{Label: "Entries by remaining lifetime", Empty: "No entries."}
	most, all := int64(0), int64(0)
	for _, n := range lives {
		most, all = max(most, n), all+n
	}
	if all == 0 {
		return b
	}
	for i, n := range lives {
		label, title := "more", "longer"
		switch {
		case i < len(lifetimes):
			label, title = lifetimes[i].label, "less than "+lifetimes[i].label
		case i == len(lifetimes)+1:
			label, title = "∞", "no end"
		}
		b.Bars = append(b.Bars, bar{
			Label: label, Title: title + ": " + count(n) + " entries", Parts: []box{upright("hits", 1, 8, part(n, most))},
		})
	}
	return b
}

// latencyBars draws reads beside writes, over the range of latencies that occur.
func latencyBars(reads, writes keepcache.Latencies) bars {
	b := bars{Label: "Latency of reads and writes", Empty: "No samples yet. One operation in 128 is timed."}
	first, last := -1, -1
	mostReads, mostWrites := uint64(0), uint64(0)
	for i := range reads.Counts {
		if reads.Counts[i]+writes.Counts[i] > 0 {
			if first < 0 {
				first = i
			}
			last = i
		}
		mostReads, mostWrites = max(mostReads, reads.Counts[i]), max(mostWrites, writes.Counts[i])
	}
	if first < 0 {
		return b
	}
	for ; last-first < 7 && last < len(reads.Counts)-1; last++ { // at least eight bars, so that they are not too wide
	}
	for i := first; i <= last; i++ {
		bound := "more"
		if d := keepcache.LatencyBound(i); d != keepcache.NoExpiry {
			bound = strings.ReplaceAll(span(d), " ", "")
		}
		label := ""
		if (i-first)%3 == 0 {
			label = bound
		}
		b.Bars = append(b.Bars, bar{
			Label: label, Title: "up to " + bound + ": " + count(reads.Counts[i]) + " reads, " + count(writes.Counts[i]) +
				" writes",
			Parts: []box{
				upright("hits", 0.5, 4.3, part(int64(reads.Counts[i]), int64(mostReads))),
				upright("sets", 5.2, 4.3, part(int64(writes.Counts[i]), int64(mostWrites))),
			},
		})
	}
	return b
}

// gauge is a bar that shows what uses a limited space.
type gauge struct {
	Label, Note string
	Parts       []box
}

func gauges(s keepcache.Stats) []gauge {
	fill := func(label, note string, whole int64, parts ...any) gauge {
		g := gauge{Label: label, Note: note}
		at := 0.0
		for i := 0; i+2 < len(parts); i += 3 {
			width := 1000 * part(parts[i+2].(int64), whole)
			width = min(width, 1000-at)
			g.Parts = append(g.Parts, box{
				Class: parts[i].(string), Label: parts[i+1].(string) + " " + size(parts[i+2].(int64)), X: fixed(at),
				Width: fixed(width),
			})
			at += width
		}
		return g
	}
	budget := s.Budgets.Bytes
	var live gauge
	if budget > 0 {
		live = fill("Budget", size(s.Cost)+" of "+size(budget), budget, "live", "needed by entries and buckets", s.Cost)
	} else {
		live = fill("Budget", "unlimited", max(s.Cost, 1), "live", "needed by entries and buckets", s.Cost)
	}
	other := max(0, s.FileBytes-s.FreeBytes-s.Bytes)
	held := min(s.Bytes, max(0, s.FileBytes-s.FreeBytes))
	return []gauge{
		live,
		fill("File", size(s.FileBytes), s.FileBytes, "live", "live", held, "cached", "structure", other, "free", "free",
			s.FreeBytes),
		fill("Memory", size(s.Memory.PinnedBytes+s.Memory.CachedBytes)+bound(s.Budgets.MemoryBytes),
			max(s.Budgets.MemoryBytes, s.Memory.PinnedBytes+s.Memory.CachedBytes),
			"pinned", "not in the file yet", s.Memory.PinnedBytes, "live", "cached", s.Memory.CachedBytes),
		fill("Journal", size(s.Journal.UsedBytes)+bound(s.Budgets.JournalBytes),
			max(s.Budgets.JournalBytes, s.Journal.UsedBytes), "journal", "in use", s.Journal.UsedBytes),
	}
}

func bound(n int64) string {
	if n <= 0 {
		return ""
	}
	return " of " + size(n)
}

// part returns the fraction of all that n is, from 0 to 1.
func part(n, all int64) float64 {
	if all <= 0 || n <= 0 {
		return 0
	}
	return min(1, float64(n)/float64(all))
}

// fixed formats a coordinate.
func fixed(f float64) string { return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64) }
