package main

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// Measures of the plot of growth in pixels, of one of its two parts.
const (
	curveWidth  = 250
	curveHeight = 170
	curveLeft   = 58  // for the numbers on the left
	curveRight  = 112 // for the names on the right
	curveTop    = 54
	curveBottom = 30
	nameStep    = 14 // between two names, at the least
)

// curve is how a peer does as the store grows.
type curve struct {
	peer string
	at   []int     // entries
	ns   []float64 // of one Get
}

// growth draws what a Get costs as the store grows, as SVG, or nothing where that was not measured.
func (r *results) growth() string {
	b := &strings.Builder{}
	for i, from := range []string{"memory", "file"} {
		curves := r.curves(from)
		if len(curves) == 0 {
			return ""
		}
		drawCurves(b, "Get from "+from, curves, i*(curveLeft+curveWidth+curveRight))
	}
	return drawing{
		width: 2 * (curveLeft + curveWidth + curveRight), height: curveTop + curveHeight + curveBottom,
		label: "the time of a Get as the store grows",
		style: `.grid { stroke: #8a97a6; stroke-opacity: .3 }
.line { fill: none; stroke: #8a97a6; stroke-width: 1.5 }
.ours { fill: none; stroke: #e07b12; stroke-width: 2.5 }`,
		title: fmt.Sprintf("Time of a Get by the number of entries of %d bytes, shorter is better; one goroutine, %s.",
			r.Scale.Value, r.Facts.Go),
	}.svg(b.String())
}

// curves returns those of all peers, with the number of entries rising.
func (r *results) curves(from string) (curves []curve) {
	for _, p := range sortedProducts() {
		c := curve{peer: p.name}
		for _, n := range slices.Sorted(slices.Values(r.Scale.Growth)) {
			if ns, ok := r.median(growthRow(from, n), p.name, "ns/op"); ok {
				c.at, c.ns = append(c.at, n), append(c.ns, ns)
			}
		}
		if len(c.at) > 1 {
			curves = append(curves, c)
		}
	}
	return curves
}

func drawCurves(b *strings.Builder, title string, curves []curve, left int) {
	first, last, most := math.MaxInt, 0, 0.0
	for _, c := range curves {
		first, last = min(first, c.at[0]), max(last, c.at[len(c.at)-1])
		most = max(most, slices.Max(c.ns))
	}
	step := niceStep(most / 4)
	top := step * math.Ceil(most/step)
	x := func(n int) float64 {
		return float64(left+curveLeft) + curveWidth*math.Log(float64(n)/float64(first))/math.Log(float64(last)/float64(first))
	}
	y := func(ns float64) float64 { return curveTop + curveHeight*(1-ns/top) }

	fmt.Fprintf(b, "<text class=\"head\" x=\"%d\" y=\"%d\">%s</text>\n", left+curveLeft, curveTop-14,
		html.EscapeString(title))
	for v := 0.0; v <= top; v += step {
		fmt.Fprintf(b, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1[3]f\"/>", left+curveLeft,
			left+curveLeft+curveWidth, y(v))
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", left+curveLeft-6, y(v)+4, duration(v))
	}
	for n := first; n <= last; n *= 10 {
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", x(n), curveTop+curveHeight+18,
			thousands(n))
	}
	// The names stand where the lines end, as far apart as they have to.
	end := func(c curve) float64 { return y(c.ns[len(c.ns)-1]) }
	slices.SortFunc(curves, func(a, b curve) int { return cmp.Compare(end(a), end(b)) })
	below := math.Inf(-1)
	for _, c := range curves {
		text, line := "", "line"
		if c.peer == us {
			text, line = ` class="us"`, "ours"
		}
		points := make([]string, len(c.at))
		for i := range c.at {
			points[i] = fmt.Sprintf("%.1f,%.1f", x(c.at[i]), y(c.ns[i]))
		}
		below = max(below+nameStep, end(c)+4)
		fmt.Fprintf(b, "<polyline class=\"%s\" points=\"%s\"/>", line, strings.Join(points, " "))
		fmt.Fprintf(b, "<text%s x=\"%.1f\" y=\"%.1f\">%s</text>\n", text, x(c.at[len(c.at)-1])+6, below,
			html.EscapeString(c.peer))
	}
}

// niceStep returns 1, 2 or 5 times a power of ten, not less than v.
func niceStep(v float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(max(v, 1))))
	for _, times := range []float64{1, 2, 5} {
		if times*unit >= v {
			return times * unit
		}
	}
	return 10 * unit
}
