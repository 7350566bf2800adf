package main

import (
	"fmt"
	"slices"
	"strings"
)

// page writes the results as Markdown.
func (r *results) page() string {
	b := &strings.Builder{}
	f, s := r.Facts, r.Scale
	heading := func(title, text string) {
		fmt.Fprintf(b, "\n## %s\n\n%s\n\n", title, text)
	}
	b.WriteString("# keepcache and its peers\n\n" +
		"Written by `go run .` in this folder. Absolute times differ from machine to machine, and from hour to hour on a shared one; " +
		"what counts are the ratios, which compare neighbours in time.\n\n")
	fmt.Fprintf(b, "%s, %s, %d cores, %s, %s. Rounds: %d, of the heavy rows %d, of the rows on size and growth one for the peers. Each peer ran in a process of its own, in turn. "+
		"%s entries with keys of 16 bytes, values of %d bytes that cannot be compressed and a lifetime of one hour, drawn by Zipf (s = 1.01) unless said; "+
		"keys lie in memory in the order in which they are asked for, as if they had just been made; each read is proved. Medians.\n",
		f.Date, f.Go, f.Cores, f.Platform, f.FileSystem, r.Rounds, r.Heavy, thousands(s.Entries), s.Value)
	if r.Quick {
		b.WriteString("\n**A quick run: it shows that everything works, and not how fast it is.**\n")
	}
	if f.FileSystem == memoryFileSystem {
		b.WriteString("\n**This file system keeps nothing on a disk: the durable rows mean nothing.**\n")
	}

	heading("What is promised, and what was found", "A process with four writers was killed while it set new entries; then each acknowledged one was looked for. "+
		"The last column is what each documents: no power was cut here.")
	r.survival(b)

	heading("Targets", "The number is the median of the ratios of each round.")
	r.judge(b)

	heading("Relaxed writes, and reads", "Operations a second. A write returns before the disk has it; what that means is above.")
	r.table(b, relaxedLines)
	b.WriteString("\nHow many times as much keepcache does:\n\n")
	r.ratios(b, relaxedLines)

	heading("Durable writes", "A write returns when the disk has it.")
	r.table(b, durableLines)
	if v, ok := r.median("sync-1", limit, "ops/s"); ok {
		fmt.Fprintf(b, "\nThe disk's own limit for one writer is %s: 256 bytes appended to a preallocated file, then fdatasync.", rate(v))
		call, _ := r.median("append-call", limit, "ns/op")
		mapped, _ := r.median("append-map", limit, "ns/op")
		if call > 0 {
			fmt.Fprintf(b, " Without the flush an append takes %s by a system call and %s through a map.", duration(call), duration(mapped))
		}
		b.WriteString("\n")
	}
	b.WriteString("\nHow many times as much keepcache does:\n\n")
	r.ratios(b, durableLines)

	heading("Latencies", "A debt is what a peer still has to do when its sets have returned, as far as it has a call that waits for it.")
	r.table(b, latencyLines)

	heading("Many entries", fmt.Sprintf("%s entries for inserts and Open; a peer that is not done after %.0f s is stopped. "+
		"Before the kill %s were written after Open. The files after each entry was overwritten %d times, once with compactions off where a peer can do that, and once as each is by default: "+
		"then it depends on whether a compaction came just before the end, and on badger's flush at Close. %s entries are due at once.",
		thousands(s.Many), s.ManyTime.Seconds(), size(float64(s.Journal)), s.Overwrite, thousands(s.Due)))
	r.table(b, manyLines)

	heading("As the store grows", "With memory for all entries, by Zipf; and with next to none, in random order. One goroutine.")
	r.table(b, growthLines(s.Growth))

	heading("Allocations", "Of one operation. Of keepcache, while no commit is under way.")
	r.table(b, allocLines)

	heading("The peers", "What is not said is the default.")
	r.roster(b)
	if len(r.Failed) > 0 {
		heading("Failed", "These have no results.")
		for _, x := range r.Failed {
			fmt.Fprintf(b, "- round %d, %s, %s: %s\n", x.Round, x.Group, x.Peer, x.Err)
		}
	}
	return b.String()
}

// roster writes what the peers are and how they are set up.
func (r *results) roster(b *strings.Builder) {
	peers := r.peers()
	for _, p := range sortedProducts() {
		if !slices.Contains(peers, p.name) {
			continue
		}
		version := ""
		if v := r.Facts.Versions[p.module]; v != "" {
			version = " " + v
		}
		fmt.Fprintf(b, "- **%s** (%s%s): %s.\n", p.name, p.module, version, p.about)
	}
}
