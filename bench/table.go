package main

import (
	"cmp"
	"fmt"
	"strings"
)

// line is a line of a table whose columns are peers.
type line struct {
	title       string
	row, metric string
	format      func(float64) string
}

// ops is a line of operations a second.
func ops(title, row string) line { return line{title, row, "ops/s", rate} }

var relaxedLines = []line{
	ops("Get in memory, 1 goroutine", "get-1"),
	ops("Get in memory, 2 goroutines", "get-2"),
	ops("Get beyond the peer's memory", "get-beyond"),
	ops("Get of an absent key", "get-absent"),
	ops("Set, 1 goroutine", "set-1"),
	ops("Set, 16 goroutines", "set-16"),
	{"SetMany of 1,000, entries", "batch", "entries/s", rate},
	ops("Mixed, 95 % reads, 16 goroutines", "mixed-95-16"),
	ops("Mixed, 50 % reads, 16 goroutines", "mixed-50-16"),
	ops("Mixed, 95 % reads, 2 goroutines", "mixed-95-2"),
	ops("Mixed, 50 % reads, 2 goroutines", "mixed-50-2"),
	ops("Inserts beyond memory, 16 goroutines", "insert"),
}

var durableLines = []line{
	ops("Set, 1 goroutine", "sync-1"),
	ops("Set, 64 goroutines", "sync-64"),
}

var latencyLines = []line{
	{"Set, 1 goroutine, p50", "set-1", "write p50", duration},
	{"Set, 1 goroutine, p99", "set-1", "write p99", duration},
	{"Set, 1 goroutine, p99.9", "set-1", "write p99.9", duration},
	{"Set, 1 goroutine, longest", "set-1", "write max", duration},
	{"Set, 16 goroutines, p99", "set-16", "write p99", duration},
	{"Durable Set, 1 goroutine, p99", "sync-1", "write p99", duration},
	{"Durable Set, 64 goroutines, p99", "sync-64", "write p99", duration},
	{"Reads of 95/5, 2 goroutines, p50", "mixed-95-2", "read p50", duration},
	{"Reads of 95/5, 2 goroutines, p99", "mixed-95-2", "read p99", duration},
	{"Reads of 95/5, 2 goroutines, p99.9", "mixed-95-2", "read p99.9", duration},
	{"Reads of 50/50, 2 goroutines, p50", "mixed-50-2", "read p50", duration},
	{"Reads of 50/50, 2 goroutines, p99", "mixed-50-2", "read p99", duration},
	{"Reads of 50/50, 2 goroutines, p99.9", "mixed-50-2", "read p99.9", duration},
	{"Reads of 95/5, 16 goroutines, p99.9", "mixed-95-16", "read p99.9", duration},
	{"Reads of 50/50, 16 goroutines, p99.9", "mixed-50-16", "read p99.9", duration},
	{"Debt of Set, 1 goroutine: settled after", "set-1", "settle s", seconds},
	{"Debt of Set, 16 goroutines: settled after", "set-16", "settle s", seconds},
}

var manyLines = []line{
	{"Inserts: entries that came in", "insert", "ops", number},
	{"Inserts: p99", "insert", "write p99", duration},
	{"Inserts: longest stall", "insert", "write max", duration},
	{"Inserts: private memory at its peak", "insert", "memory", size},
	{"Open after Close", "open-clean", "open ns", duration},
	{"Open after Close, and first Get", "open-clean", "open and get ns", duration},
	{"Open after a kill", "open-killed", "open ns", duration},
	{"Files of the entries of the rows on Open", "open-clean", "file bytes", size},
	{"Files after overwrites, times the logical bytes, nothing compacted, before Close", "size", "x logical, open", plain},
	{"Files after overwrites, times the logical bytes, nothing compacted, after Close", "size", "x logical, closed",
		plain},
	{"Files after overwrites, times the logical bytes, compacted by themselves, before Close", "compacted",
		"x logical, open", plain},
	{"Files after overwrites, times the logical bytes, compacted by themselves, after Close", "compacted",
		"x logical, closed", plain},
	{"Reads at rest before many are due, p99", "due-rest", "read p99", duration},
	{"Reads while those are removed, p99", "due", "read p99", duration},
	{"Reads while those are removed, p99.9", "due", "read p99.9", duration},
	{"Removed after", "due", "done s", seconds},
}

var allocLines = []line{
	{"Get in memory", "alloc-get", "allocs/op", count},
	{"Set of bytes", "alloc-set", "allocs/op", count},
	{"Set of a string", "alloc-set-string", "allocs/op", count},
	{"Get in memory, bytes", "alloc-get", "B/op", number},
	{"Set of bytes, bytes", "alloc-set", "B/op", number},
}

func seconds(s float64) string { return duration(s * 1e9) }
func number(v float64) string  { return fmt.Sprintf("%.0f", v) }

func growthLines(steps []int) (lines []line) {
	for _, from := range []string{"memory", "file"} {
		for _, n := range steps {
			lines = append(lines, line{fmt.Sprintf("Get from %s, %s entries", from, thousands(n)), growthRow(from, n), "ns/op",
				duration})
		}
	}
	return lines
}

// thousands formats a number with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// table writes lines of medians, without those that nobody has.
func (r *results) table(b *strings.Builder, lines []line) {
	r.grid(b, lines, func(l line, peer string) string {
		if v, ok := r.median(l.row, peer, l.metric); ok {
			return l.format(v)
		}
		return ""
	})
}

// ratios writes how many times as much keepcache does, in the same lines.
func (r *results) ratios(b *strings.Builder, lines []line) {
	r.grid(b, lines, func(l line, peer string) string {
		if peer == us {
			return ""
		}
		if v, ok := r.ratio(l.row, us, l.metric, l.row, peer, l.metric); ok {
			return plain(v)
		}
		return ""
	})
}

// grid writes a table of the cells that there are, without empty lines and columns.
func (r *results) grid(b *strings.Builder, lines []line, cell func(line, string) string) {
	var titles []string
	var cells [][]string
	used := map[int]bool{}
	peers := r.peers()
	for _, l := range lines {
		row := make([]string, len(peers))
		some := false
		for i, peer := range peers {
			if row[i] = cell(l, peer); row[i] != "" {
				some, used[i] = true, true
			}
		}
		if some {
			titles, cells = append(titles, l.title), append(cells, row)
		}
	}
	if len(cells) == 0 {
		b.WriteString("Not measured.\n")
		return
	}
	b.WriteString("| |")
	for i, peer := range peers {
		if used[i] {
			b.WriteString(" " + peer + " |")
		}
	}
	b.WriteString("\n|---|" + strings.Repeat("--:|", len(used)) + "\n")
	for k, row := range cells {
		b.WriteString("| " + titles[k] + " |")
		for i, text := range row {
			if used[i] {
				b.WriteString(" " + cmp.Or(text, "–") + " |")
			}
		}
		b.WriteString("\n")
	}
}

// survival writes what each mode keeps, as documented and as found.
func (r *results) survival(b *strings.Builder) {
	b.WriteString("| | mode | chosen by | survives kill -9 | found: lost of acknowledged | survives a power cut |\n|---|---|---|---|---|---|\n")
	for _, p := range sortedProducts() {
		for _, mode := range []struct {
			name    string
			promise *promise
			row     string
		}{{"relaxed", p.relaxed, killRow(false)}, {"durable", p.durable, killRow(true)}} {
			if mode.promise == nil {
				continue
			}
			fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", p.name, mode.name, cmp.Or(mode.promise.setting, "–"),
				mode.promise.kill, r.lost(mode.row, p.name), mode.promise.power)
		}
	}
}

// lost sums up what the kills of all rounds found.
func (r *results) lost(row, peer string) string {
	sum := func(metric string) (total float64) {
		for _, v := range r.byRound(row, peer, metric) {
			total += v
		}
		return total
	}
	kills := len(r.byRound(row, peer, "acknowledged"))
	if kills == 0 {
		return "–"
	}
	text := fmt.Sprintf("%.0f of %s, %d kills", sum("lost"), thousands(int(sum("acknowledged"))), kills)
	return strings.Replace(text, " 1 kills", " 1 kill", 1)
}

// judge writes what became of each target.
func (r *results) judge(b *strings.Builder) {
	b.WriteString("| Work | number | measured | floor | goal | |\n|---|---|--:|--:|--:|---|\n")
	for _, t := range targets {
		v, ok := t.number(r)
		measured, verdict := "–", "not measured"
		if ok {
			measured, verdict = t.display(v), t.verdict(v)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", t.work, t.what, measured, t.bar(t.floor), t.bar(t.goal), verdict)
	}
}
