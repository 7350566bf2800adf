package main

import (
	"fmt"
	"html"
	"strings"
)

// panel is one part of the plot: the operations a second of each peer in one row.
type panel struct{ title, row, metric string }

var panels = []panel{
	{"Get, in memory", "get-1", "ops/s"},
	{"Get, beyond the peer's memory", "get-beyond", "ops/s"},
	{"Set, relaxed, 1 goroutine", "set-1", "ops/s"},
	{"Set, relaxed, 16 goroutines", "set-16", "ops/s"},
	{"Set, durable, 1 goroutine", "sync-1", "ops/s"},
	{"Set, durable, 64 goroutines", "sync-64", "ops/s"},
	{"Mixed, half of it reads, 16 goroutines", "mixed-50-16", "ops/s"},
	{"Inserts beyond memory, 16 goroutines", "insert", "ops/s"},
}

// Measures of the plot in pixels.
const (
	plotWidth   = 860
	plotColumns = 2
	barHeight   = 13
	barStep     = 19
	labelWidth  = 92
	valueWidth  = 80
	panelHead   = 30
	panelGap    = 16
)

// plot draws the results as SVG. The colours are readable on light and on dark ground, which is left as it is.
func (r *results) plot() string {
	panelWidth := plotWidth / plotColumns
	b := &strings.Builder{}
	y, tallest := 36, 0
	column := 0
	for _, p := range panels {
		bars := r.bars(p)
		if len(bars) == 0 {
			continue
		}
		drawPanel(b, p.title, bars, column*panelWidth, y, panelWidth-panelGap)
		tallest = max(tallest, panelHead+len(bars)*barStep+panelGap)
		if column++; column == plotColumns {
			column, y, tallest = 0, y+tallest, 0
		}
	}
	height := y + tallest
	return drawing{
		width: plotWidth, height: height, label: "keepcache and its peers, operations a second",
		style: `.bar { fill: #8a97a6; fill-opacity: .55 }
.memory { fill: none; stroke: #8a97a6; stroke-dasharray: 3 2 }
.ours { fill: #e07b12 }`,
		title: fmt.Sprintf("Operations a second, longer is better. %s entries of %d bytes, %s, %d cores. Dashed: memory only, lost with the process.",
			thousands(r.Scale.Entries), r.Scale.Value, r.Facts.Go, r.Facts.Cores),
	}.svg(b.String())
}

// drawing is what stands around a plot, as SVG.
type drawing struct {
	width, height int    // in pixels
	label         string // for those who do not see it
	style         string // of what it has besides text
	title         string
}

func (d drawing) svg(content string) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]d" width="%[1]d" height="%[2]d" role="img" aria-label="%[3]s">
<style>
text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #76808b }
.head { font-weight: 600; font-size: 13px }
.us { font-weight: 600; fill: #d0700b }
%[4]s
</style>
<text x="0" y="14">%[5]s</text>
%[6]s</svg>
`, d.width, d.height, d.label, d.style, d.title, content)
}

type bar struct {
	peer   string
	value  float64
	memory bool
}

func (r *results) bars(p panel) (bars []bar) {
	for _, product := range sortedProducts() {
		if v, ok := r.median(p.row, product.name, p.metric); ok && product.name != boltTuned {
			bars = append(bars, bar{product.name, v, product.memory})
		}
	}
	if v, ok := r.median(p.row, limit, p.metric); ok {
		bars = append(bars, bar{limit, v, false})
	}
	return bars
}

func drawPanel(b *strings.Builder, title string, bars []bar, x, y, width int) {
	longest := 0.0
	for _, r := range bars {
		longest = max(longest, r.value)
	}
	fmt.Fprintf(b, "<text class=\"head\" x=\"%d\" y=\"%d\">%s</text>\n", x, y+16, html.EscapeString(title))
	room := float64(width - labelWidth - valueWidth)
	for i, r := range bars {
		top := y + panelHead + i*barStep
		text, shape := "", "bar"
		switch {
		case r.peer == us:
			text, shape = ` class="us"`, "ours"
		case r.memory:
			shape = "memory"
		}
		length := max(r.value/longest*room, 1)
		fmt.Fprintf(b, "<text%s x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>", text, x+labelWidth-8, top+barHeight-2,
			html.EscapeString(r.peer))
		fmt.Fprintf(b, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>", shape, x+labelWidth,
			top, length, barHeight)
		fmt.Fprintf(b, "<text%s x=\"%.1f\" y=\"%d\">%s</text>\n", text, float64(x+labelWidth)+length+6, top+barHeight-2,
			rate(r.value))
	}
}
