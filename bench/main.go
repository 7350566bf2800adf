// Command bench runs the same workloads over keepcache and its peers, and writes what came of it as tables
// (results.md) and as plots (results.svg, and growth.svg for the cost of a read as the store grows). Its tables
// of hit ratios are in a file of their own (hitratio.md).
//
//	go run .                      everything; it takes an hour and a half
//	go run . -quick               everything in small, in under three minutes
//	go run . -work set -peers keepcache,pebble -out part
//	go run . -work hitratio       the tables of hit ratios alone, in a few minutes
//
// In each round each workload is run over all peers, one after the other, each in a process of its own, in a
// directory of its own under -dir.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	was, err := runChild()
	if !was {
		err = command(os.Args[1:], os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// fullScale is that of the targets.
var fullScale = Scale{
	Entries: 100_000, Value: 200, Time: 1200 * time.Millisecond, Warm: 500 * time.Millisecond,
	Many: 1_000_000, ManyTime: 2 * time.Minute, Overwrite: 10, Due: 100_000, DueAfter: 8 * time.Second,
	Journal: 64 << 20, Growth: []int{10_000, 100_000, 1_000_000}, Acks: 20_000,
}

// quickScale shows that everything works.
var quickScale = Scale{
	Entries: 10_000, Value: 200, Time: 100 * time.Millisecond, Warm: 50 * time.Millisecond,
	Many: 20_000, ManyTime: 2 * time.Second, Overwrite: 2, Due: 5_000, DueAfter: time.Second,
	Journal: 2 << 20, Growth: []int{1_000, 10_000}, Acks: 2_000,
}

func command(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var (
		quick   = flags.Bool("quick", false, "everything in small, to show that it works")
		rounds  = flags.Int("rounds", 0, "rounds; 5, or 1 if quick, by default")
		heavy   = flags.Int("heavy", 0, "rounds of the rows that take long; 3, or 1 if quick, by default")
		entries = flags.Int("entries", 0, "entries of most workloads; 100,000 by default")
		many    = flags.Int("many", 0, "entries of those with many; 1,000,000 by default")
		value   = flags.Int("value", 0, "bytes of a value; 200 by default")
		each    = flags.Duration("time", 0, "time of a measurement; 1.2s by default")
		huge    = flags.Bool("huge", false, "let the store grow to 10,000,000 entries")
		peers   = flags.String("peers", "", "peers, with commas between them; all by default")
		work    = flags.String("work", "", "groups of workloads, with commas between them; all by default")
		dir     = flags.String("dir", os.TempDir(), "directory on the disk that is measured")
		out     = flags.String("out", ".", "directory for results.md, targets.md, results.svg and growth.svg")
		raw     = flags.String("raw", "", "file for all numbers of all rounds, as JSON")
		render  = flags.String("render", "",
			"measure nothing, but write the results that such a file has, or several with commas between them")
		profile = flags.String("profile", "", "directory for CPU profiles of each row")
		list    = flags.Bool("list", false, "list peers and workloads")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *list {
		return printList(stdout)
	}
	chosen := split(*work)
	ratios := *render == "" && (len(chosen) == 0 || slices.Contains(chosen, hitRatioWork))
	if ratios {
		keys := uint32(hitRatioKeys)
		if *quick {
			keys = hitRatioQuick
		}
		if err := writeHitRatios(keys, *dir, *out); err != nil || len(chosen) == 1 {
			return err
		}
		chosen = slices.DeleteFunc(chosen, func(name string) bool { return name == hitRatioWork })
	}
	var r *results
	var err error
	if *render != "" {
		r, err = loadResults(split(*render))
	} else {
		p := &plan{
			scale: fullScale, quick: *quick, peers: split(*peers), groups: chosen,
			dir: *dir, profile: *profile, raw: *raw, log: stderr,
		}
		usual := [2]int{5, 3}
		if *quick {
			p.scale, usual = quickScale, [2]int{1, 1}
		}
		p.rounds = cmp.Or(*rounds, usual[0])
		p.heavy = min(cmp.Or(*heavy, usual[1]), p.rounds)
		p.scale.Entries = cmp.Or(*entries, p.scale.Entries)
		p.scale.Many = cmp.Or(*many, p.scale.Many)
		p.scale.Value = max(cmp.Or(*value, p.scale.Value), leastValue)
		p.scale.Time = cmp.Or(*each, p.scale.Time)
		if *huge {
			p.scale.Growth = append(slices.Clone(p.scale.Growth), 10_000_000)
		}
		if err := p.check(); err != nil {
			return err
		}
		r, err = p.run()
	}
	if err != nil {
		return err
	}
	return r.write(*out)
}

// split cuts a list of names; of nothing it makes none.
func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// check finds names that mean nothing.
func (p *plan) check() error {
	for _, name := range p.peers {
		if _, err := findProduct(name); err != nil && name != limit {
			return err
		}
	}
	for _, name := range p.groups {
		if _, err := findGroup(name); err != nil {
			return err
		}
	}
	if p.profile != "" {
		return os.MkdirAll(p.profile, 0o755)
	}
	return nil
}

func printList(w io.Writer) error {
	for _, p := range sortedProducts() {
		if _, err := fmt.Fprintf(w, "peer  %-12s %s\n", p.name, p.about); err != nil {
			return err
		}
	}
	for _, g := range groups {
		if _, err := fmt.Fprintf(w, "work  %-12s %s\n", g.name, g.about); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "work  %-12s %s\n", hitRatioWork,
		"hit ratios of policies on made traces; has a page of its own")
	return err
}

// writeHitRatios writes the page of hit ratios.
func writeHitRatios(keys uint32, dir, out string) error {
	page, err := hitRatioPage(keys, dir)
	if err == nil {
		err = os.MkdirAll(out, 0o755)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "hitratio.md"), []byte(page), 0o644)
}

// write writes the tables and the plot.
func (r *results) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "targets.md"), []byte(r.targetsPage()), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.md"), []byte(r.page()), 0o644); err != nil {
		return err
	}
	if curves := r.growth(); curves != "" {
		if err := os.WriteFile(filepath.Join(dir, "growth.svg"), []byte(curves), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "results.svg"), []byte(r.plot()), 0o644)
}
