package main

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
	"github.com/keepcache/keepcache/internal/wire"
)

// view has the settings of the display.
type view struct {
	style  style
	help   bool // show a line with the keys
	list   list
	sort   int // the column by which the list is sorted
	filter string
	typing bool // the filter is being typed
	paused bool
}

// frame returns the lines of a view, at most height lines and none wider than width.
func (v *view) frame(p picture, width, height int) []string {
	f := &frame{view: v, width: width}
	f.head(p)
	f.rates(p)
	f.sizes(p)
	f.upkeep(p)
	f.line("")
	room := height - len(f.lines) - 1
	if v.help {
		room--
	}
	f.tabs(p)
	f.rows(p, room)
	if v.help {
		for len(f.lines) < height-1 {
			f.line("")
		}
		f.lines = f.lines[:min(len(f.lines), max(height-1, 0))]
		f.foot()
	}
	return f.lines[:min(len(f.lines), height)]
}

// frame collects lines.
type frame struct {
	*view
	width int
	lines []string
}

func (f *frame) line(format string, args ...any) {
	f.lines = append(f.lines, fit(strings.TrimRight(fmt.Sprintf(format, args...), " "), f.width))
}

// named adds a line that begins with a coloured name.
func (f *frame) named(name, format string, args ...any) {
	const room = 10
	text := fit(fmt.Sprintf(format, args...), f.width-room)
	f.lines = append(f.lines, f.style.dim(fit(pad(name, room), f.width))+text)
}

func (f *frame) head(p picture) {
	right := fmt.Sprintf("up %s, %s", showUp(p.up), p.who)
	if f.paused {
		right = "PAUSED"
	}
	// The end of the path is the most informative part.
	path, most := []rune(display.Name(p.path)), f.width/2
	if len(path) > most {
		path = append([]rune("…"), path[len(path)-max(most-1, 0):]...)
	}
	left := "keepcache top  " + string(path) + "  "
	right = fit(right, f.width-widthOf(left))
	f.lines = append(f.lines, f.style.bold(fit(pad(left, f.width-widthOf(right))+right, f.width)))
}

// showUp formats how long a program has been running.
func showUp(d time.Duration) string {
	switch d = d.Truncate(time.Second); {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return d.String()
}

func (f *frame) rates(p picture) {
	rate := func(n func(keepcache.Stats) uint64) string { return showRate(perSecond(n(p.now)-n(p.before), p.took)) }
	reads := func(s keepcache.Stats) uint64 { return s.Hits + s.Misses }
	f.named("ops/s", "%s get   %s set   %s delete   %s load   %s",
		rate(reads), rate(func(s keepcache.Stats) uint64 { return s.Sets }),
		rate(func(s keepcache.Stats) uint64 { return s.Deletes }),
		rate(func(s keepcache.Stats) uint64 { return s.Loads.Loads }), spark(p.history, max(f.width-70, 4)))
	hits, all := p.now.Hits-p.before.Hits, reads(p.now)-reads(p.before)
	ratio, fromFile := "no reads", ""
	if all > 0 && all < 1<<62 {
		part := float64(hits) / float64(all)
		ratio = fmt.Sprintf("%5.1f %% %s", 100*part, meter(part, 16))
		if hits > 0 {
			fromFile = fmt.Sprintf("   %.1f %% from file", 100*float64(p.now.FileHits-p.before.FileHits)/float64(hits))
		}
	}
	f.named("hits", "%s   %.1f %% since the start%s", ratio, 100*p.now.HitRatio(), fromFile)
	f.named("latency", "Get %s   Set %s   1 in 128 timed", showLatency(p.now.Reads.Sub(p.before.Reads)),
		showLatency(p.now.Writes.Sub(p.before.Writes)))
	if l := p.now.Loads; l.Loads+l.Stale+l.NegativeHits+l.Remembered > 0 || l.Running > 0 {
		f.named("loads", "%s   %s running   %s/s failed   %s/s stale", showLoads(l.Latencies, p.before.Loads.Latencies),
			count(l.Running),
			trimmed(rate(func(s keepcache.Stats) uint64 { return s.Loads.Failures })),
			trimmed(rate(func(s keepcache.Stats) uint64 { return s.Loads.Stale })))
	}
}

func trimmed(rate string) string { return strings.TrimSpace(rate) }

// showRate formats a rate per second in seven columns.
func showRate(n float64) string {
	switch {
	case n >= 1e7:
		return fmt.Sprintf("%6.1fM", n/1e6)
	case n >= 1e5:
		return fmt.Sprintf("%6.1fk", n/1e3)
	case n > 0 && n < 10:
		return fmt.Sprintf("%7.1f", n)
	}
	return fmt.Sprintf("%7s", count(int64(math.Round(n))))
}

// showLatency formats quantiles of sampled latencies.
func showLatency(l keepcache.Latencies) string {
	if l.Count() == 0 {
		return "none timed"
	}
	return fmt.Sprintf("p50 <%s p99 <%s", showBrief(l.Quantile(0.5)), showBrief(l.Quantile(0.99)))
}

// showLoads formats quantiles of the loads that ended since before. All loads are timed.
func showLoads(now, before keepcache.Latencies) string {
	for i := range now.Counts {
		if now.Counts[i] < before.Counts[i] {
			return "none ended" // the program was restarted
		}
	}
	ended := now.Sub(before)
	if ended.Count() == 0 {
		return "none ended"
	}
	return showLatency(ended)
}

// showBrief formats a duration with two or three digits.
func showBrief(d time.Duration) string {
	switch {
	case d == keepcache.NoExpiry:
		return "∞"
	case d < 10*time.Microsecond:
		return fmt.Sprintf("%.2gµs", float64(d)/1e3)
	case d < time.Millisecond:
		return fmt.Sprintf("%.0fµs", float64(d)/1e3)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%.0fms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

// meter draws a fraction as a bar.
func meter(part float64, width int) string {
	full := int(math.Round(max(min(part, 1), 0) * float64(width)))
	return "[" + strings.Repeat("#", full) + strings.Repeat(" ", width-full) + "]"
}

// spark draws the latest values, relative to the largest.
func spark(values []float64, width int) string {
	values = values[max(len(values)-width, 0):]
	if len(values) == 0 {
		return ""
	}
	most := slices.Max(values)
	var b strings.Builder
	for _, v := range values {
		i := 0
		if most > 0 {
			i = int(math.Round(v / most * 7))
		}
		b.WriteRune([]rune("▁▂▃▄▅▆▇█")[max(min(i, 7), 0)])
	}
	return b.String()
}

func (f *frame) sizes(p picture) {
	s := p.now
	f.named("content", "%s   %s", f.budget(s.Cost, s.Budgets.Bytes), plural(s.Entries, "entry", "entries"))
	f.named("memory", "%s   %s pinned", f.budget(s.Memory.CachedBytes+s.Memory.PinnedBytes, s.Budgets.MemoryBytes),
		size(s.Memory.PinnedBytes))
	f.named("journal", "%s", f.budget(s.Journal.UsedBytes, s.Budgets.JournalBytes))
	free := 0.0
	if s.FileBytes > 0 {
		free = 100 * float64(s.FreeBytes) / float64(s.FileBytes)
	}
	f.named("file", "%10s   %.0f %% of it free   %s", size(s.FileBytes), free,
		plural(s.Compact.Compactions, "compaction", "compactions"))
}

// budget formats a number of bytes and its limit, which is 0 for no limit.
func (f *frame) budget(n, limit int64) string {
	if limit <= 0 {
		return fmt.Sprintf("%10s", size(n))
	}
	part := float64(n) / float64(limit)
	text := fmt.Sprintf("%10s of %-10s %s", size(n), size(limit), meter(part, 20))
	if part > 1 {
		text += " over"
	}
	return text
}

func (f *frame) upkeep(p picture) {
	rate := func(now, before uint64) string { return trimmed(showRate(perSecond(now-before, p.took))) }
	sweep := "nothing is due"
	if p.now.Sweep.Lag > 0 {
		sweep = "behind by " + showShort(p.now.Sweep.Lag.Round(time.Millisecond))
	}
	f.named("sweep", "%s   %s/s expired", sweep, rate(p.now.Sweep.Removed, p.before.Sweep.Removed))
	evicted := func(s keepcache.Stats) uint64 { return s.Evictions.Size + s.Evictions.Entries }
	commits := p.now.Commit.Commits - p.before.Commit.Commits
	each := time.Duration(0)
	if commits > 0 && commits < 1<<62 {
		each = (p.now.Commit.Time - p.before.Commit.Time) / time.Duration(commits)
	}
	f.named("evicted", "%s/s   commits %s/s of %s each   flushes %s/s",
		rate(evicted(p.now), evicted(p.before)), rate(p.now.Commit.Commits, p.before.Commit.Commits), showBrief(each),
		rate(p.now.Journal.Flushes, p.before.Journal.Flushes))
	if words := trouble(p.now); words != "" {
		f.lines = append(f.lines, f.style.bad(fit(words, f.width)))
	}
}

// trouble returns the current problem, or an empty string.
func trouble(s keepcache.Stats) string {
	var words []string
	if s.Damaged > 0 {
		words = append(words, plural(s.Damaged, "damaged entry", "damaged entries")+" met")
	}
	if h := s.Health; h.Unavailable && h.Err != nil {
		words = append(words, "the file is unavailable: "+printable(oneLine(h.Err.Error())))
	}
	if s.Journal.Failed {
		words = append(words, "the journal has failed")
	}
	for _, part := range []struct {
		name string
		err  error
	}{{"commit", s.Commit.Err}, {"sweep", s.Sweep.Err}, {"compaction", s.Compact.Err}} {
		if part.err != nil {
			words = append(words, "the last "+part.name+" failed: "+printable(oneLine(part.err.Error())))
		}
	}
	return strings.Join(words, "; ")
}

// tabs adds the line with the names of the lists.
func (f *frame) tabs(p picture) {
	names := []string{"buckets", "hot keys", "big keys", "events"}
	line, used := "", 0
	for i, name := range names {
		name = " " + name + " "
		if used += len(name); used > f.width {
			break
		}
		if list(i) == f.list {
			line += f.style.paint("7", name)
			if !f.style.on {
				line = strings.TrimSuffix(line, name) + "[" + name[1:len(name)-1] + "]"
			}
		} else {
			line += f.style.dim(name)
		}
	}
	if f.filter != "" || f.typing {
		cursor := ""
		if f.typing {
			cursor = "_"
		}
		line += fit("  /"+printable(f.filter)+cursor, max(f.width-used, 0))
	} else if f.list == listHot && p.sampled > 0 {
		line += fit("  in a sample of "+plural(p.sampled, "event", "events"), max(f.width-used, 0))
	} else if f.list == listBig && !p.bigAt.IsZero() {
		line += fit("  as of "+p.bigAt.Format("15:04:05"), max(f.width-used, 0))
	}
	f.lines = append(f.lines, line)
}

// rows adds the list, in at most so many lines.
func (f *frame) rows(p picture, room int) {
	if room <= 1 {
		return
	}
	var head string
	var rows []string
	switch f.list {
	case listBuckets:
		head, rows = f.bucketRows(p)
	case listHot:
		head, rows = f.hotRows(p)
	case listBig:
		head, rows = f.bigRows(p)
	case listEvents:
		head, rows = "TIME          EVENT", f.eventRows(p)
	}
	f.lines = append(f.lines, f.style.bold(fit(head, f.width)))
	for _, row := range rows[:min(len(rows), room-1)] {
		f.line("%s", row)
	}
	if len(rows) == 0 {
		f.line("nothing yet")
	}
}

// wants reports whether the filter matches a line with these names.
func (f *frame) wants(names ...string) bool {
	return f.filter == "" || slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, f.filter) })
}

// sorted marks the heading of the column by which a list is sorted.
func (f *frame) sorted(column, of int, name string) string {
	if f.sort%of == column {
		return name + "*"
	}
	return name
}

func (f *frame) bucketRows(p picture) (head string, rows []string) {
	head = fmt.Sprintf("%10s  %12s  %s", f.sorted(0, 3, "SIZE"), f.sorted(1, 3, "ENTRIES"), f.sorted(2, 3, "BUCKET"))
	names := slices.SortedFunc(maps.Keys(p.now.Buckets), func(a, b string) int {
		x, y := p.now.Buckets[a], p.now.Buckets[b]
		switch f.sort % 3 {
		case 0:
			return cmp.Or(cmp.Compare(y.Bytes, x.Bytes), cmp.Compare(a, b))
		case 1:
			return cmp.Or(cmp.Compare(y.Entries, x.Entries), cmp.Compare(a, b))
		}
		return cmp.Compare(a, b)
	})
	for _, name := range names {
		if f.wants(name) {
			b := p.now.Buckets[name]
			rows = append(rows, fmt.Sprintf("%10s  %12s  %s", size(b.Bytes), count(b.Entries), display.Name(name)))
		}
	}
	return head, rows
}

func (f *frame) hotRows(p picture) (head string, rows []string) {
	head = fmt.Sprintf("%7s  %6s  %s", f.sorted(0, 2, "OPS"), "READS", f.sorted(1, 2, "BUCKET / KEY"))
	hot := slices.Clone(p.hot)
	if f.sort%2 == 1 {
		slices.SortFunc(hot, func(a, b hotKey) int {
			return cmp.Or(cmp.Compare(a.bucket, b.bucket),
				cmp.Compare(a.key, b.key))
		})
	}
	for _, h := range hot {
		if f.wants(h.bucket, h.key) {
			rows = append(rows, fmt.Sprintf("%5.1f %%  %4.0f %%  %s / %s", 100*h.part, 100*h.reads/max(h.total, 0.001),
				display.Name(h.bucket), display.Name(h.key)))
		}
	}
	return head, rows
}

func (f *frame) bigRows(p picture) (head string, rows []string) {
	head = fmt.Sprintf("%10s  %14s  %s", f.sorted(0, 3, "SIZE"), f.sorted(1, 3, "LIFETIME"),
		f.sorted(2, 3, "BUCKET / KEY"))
	big := slices.Clone(p.big)
	left := func(e wire.Entry) time.Duration { return remaining(e.Entry(), time.Now()) }
	switch f.sort % 3 {
	case 1:
		slices.SortStableFunc(big, func(a, b wire.Entry) int { return cmp.Compare(left(a), left(b)) })
	case 2:
		slices.SortFunc(big, func(a, b wire.Entry) int {
			return cmp.Or(cmp.Compare(a.Bucket, b.Bucket),
				cmp.Compare(a.Key, b.Key))
		})
	}
	for _, e := range big {
		if f.wants(string(e.Bucket), string(e.Key)) {
			rows = append(rows, fmt.Sprintf("%10s  %14s  %s / %s", size(int64(e.Size)), showLeftOf(left(e)),
				display.Name(string(e.Bucket)), display.Name(string(e.Key))))
		}
	}
	return head, rows
}

// showLeftOf is showShort for a lifetime that may have ended since it was read.
func showLeftOf(d time.Duration) string {
	if d <= 0 {
		return "expired"
	}
	return showShort(d)
}

func (f *frame) eventRows(p picture) (rows []string) {
	for _, e := range p.recent {
		if f.wants(string(e.Bucket), string(e.Key), e.Kind) {
			rows = append(rows, eventLine(e))
		}
	}
	return rows
}

// foot adds the line with the keys.
func (f *frame) foot() {
	keys := "q quit  tab list  s sort  / filter  p pause"
	if f.typing {
		keys = "enter keep the filter  escape show all"
	}
	f.lines = append(f.lines, f.style.dim(fit(keys, f.width)))
}
