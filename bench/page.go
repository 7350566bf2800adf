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
		"The ratios are what counts: both sides of each were measured next to each other in time. Absolute times differ from\n" +
		"machine to machine, and on a shared one from hour to hour. `go run .` in this folder measures everything anew and writes\n" +
		"this page. The floors and goals that the project sets itself are in [targets.md](targets.md).\n")
	if r.Quick {
		b.WriteString("\n**A quick run: it shows that everything works, and not how fast it is.**\n")
	}
	if f.FileSystem == memoryFileSystem {
		b.WriteString("\n**This file system keeps nothing on a disk: the durable rows mean nothing.**\n")
	}

	heading("How many times as fast",
		"Above 1, keepcache is faster. otter and go-cache are memory caches without a file: they are the limit.\n\n"+
			"A write returns before the disk has it:")
	r.ratios(b, relaxedLines)
	b.WriteString("\nA write returns when the disk has it:\n\n")
	r.ratios(b, durableLines)

	heading("What survives a crash",
		"A process with four writers was killed while it set new entries. Then every acknowledged entry was looked for.\n"+
			"The last column is what each project documents: the power was not cut.")
	r.survival(b)

	heading("How it was measured", fmt.Sprintf("%s, %s, %d cores, %s, %s.\n\n"+
		"- %d rounds, %d of the heavy rows, and of the rows on size and growth one for each peer. Medians.\n"+
		"- Each peer runs in a process of its own, one after the other.\n"+
		"- %s entries with keys of 16 bytes, values of %d bytes that cannot be compressed, and a lifetime of one hour.\n"+
		"- Keys are drawn by Zipf (s = 1.01) unless a row says otherwise. They lie in memory in the order in which they are\n"+
		"  asked for, as if they had just been made.\n"+
		"- Each read is checked.",
		f.Date, f.Go, f.Cores, f.Platform, f.FileSystem, r.Rounds, r.Heavy, thousands(s.Entries), s.Value))

	heading("Relaxed writes, and reads", "Operations a second. A write returns before the disk has it.")
	r.table(b, relaxedLines)

	heading("Durable writes", "Operations a second. A write returns when the disk has it.")
	r.table(b, durableLines)
	if v, ok := r.median("sync-1", limit, "ops/s"); ok {
		fmt.Fprintf(b, "\nThe disk's own limit for one writer is %s: 256 bytes appended to a preallocated file, then fdatasync.", rate(v))
		call, _ := r.median("append-call", limit, "ns/op")
		mapped, _ := r.median("append-map", limit, "ns/op")
		if call > 0 {
			fmt.Fprintf(b, "\nWithout the flush an append takes %s by a system call and %s through a map.", duration(call),
				duration(mapped))
		}
		b.WriteString("\n")
	}

	heading("Latencies", "A debt is the work that a peer still has to do when its sets have returned, if it has a call that waits for that.")
	r.table(b, latencyLines)

	heading("Many entries", fmt.Sprintf("%s entries for inserts and Open; a peer that is not done after %.0f s is stopped.\n"+
		"Before the kill %s were written after Open.\n"+
		"The sizes of files are those after each entry was overwritten %d times: once with compactions off, where a peer can do that,\n"+
		"and once with its defaults. The latter depends on whether a compaction came just before the end, and on badger's flush at\n"+
		"Close. %s entries are due at once.",
		thousands(s.Many), s.ManyTime.Seconds(), size(float64(s.Journal)), s.Overwrite, thousands(s.Due)))
	r.table(b, manyLines)

	heading("As the store grows", "With memory for all entries, by Zipf; and with next to none, in random order. One goroutine.")
	r.table(b, growthLines(s.Growth))

	heading("Allocations", "Of one operation. Of keepcache, while no commit is under way.")
	r.table(b, allocLines)

	heading("The peers", "They have their default options, apart from what is said here.")
	r.roster(b)
	if len(r.Failed) > 0 {
		heading("Failed", "These have no results.")
		for _, x := range r.Failed {
			fmt.Fprintf(b, "- round %d, %s, %s: %s\n", x.Round, x.Group, x.Peer, x.Err)
		}
	}
	return b.String()
}

// targetsPage writes what the project wants to reach, and what it reached, as Markdown.
func (r *results) targetsPage() string {
	b := &strings.Builder{}
	fmt.Fprintf(b, "# Floors and goals\n\n"+
		"What keepcache wants to reach, and what it reached in the run of [results.md](results.md) (%s).\n"+
		"A change must not push a number below its floor. The number is the median of the ratios of each round.\n\n",
		r.Facts.Date)
	r.judge(b)
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
