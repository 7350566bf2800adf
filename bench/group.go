package main

import (
	"fmt"
	"slices"
)

// group is workloads that share a process and what is prepared in it.
type group struct {
	name    string
	about   string
	relaxed bool // it is run in the relaxed modes
	durable bool // it is run in the durable modes
	heavy   bool // it takes long, so there are fewer rounds of it
	once    bool // peers run it in one round only
	takes   func(product) bool
	phases  []phase
	limit   func(*child) error // the same work on bare files, or nil
}

// phase is a part of a group that has a process of its own.
type phase struct {
	run  func(*child) error
	kill bool // the parent kills the process after Acks acknowledgements, or when it says ready (see kill.go)
}

var groups = []group{
	{
		name: "read", about: "Get of entries in memory, by 1 and 2 goroutines, and of absent keys", relaxed: true,
		takes: anyProduct, phases: []phase{{run: runRead}},
	}, {
		name: "beyond", about: "Get of entries that the peer's own memory does not hold, in random order", relaxed: true,
		takes: onDisk, phases: []phase{{run: runBeyond}},
	}, {
		name: "set", about: "Set, by 1 and 16 goroutines", relaxed: true,
		takes: anyProduct, phases: []phase{{run: runSet}}, limit: limitAppend,
	}, {
		name: "sync", about: "durable Set, by 1 and 64 goroutines", durable: true,
		takes: anyProduct, phases: []phase{{run: runSync}}, limit: limitFlush,
	}, {
		name: "batch", about: "SetMany of 1,000", relaxed: true,
		takes: anyProduct, phases: []phase{{run: runBatch}},
	}, {
		name: "mixed", about: "95 and 50 percent reads, by 16 goroutines and by 2", relaxed: true,
		takes: anyProduct, phases: []phase{{run: runMixed}},
	}, {
		name: "alloc", about: "allocations of one Get and one Set", relaxed: true,
		takes: anyProduct, phases: []phase{{run: runAlloc}},
	}, {
		name: "kill", about: "kill -9 while writes are acknowledged", relaxed: true, durable: true, heavy: true,
		takes: onDisk, phases: []phase{{run: runAcknowledge, kill: true}, {run: runCount}},
	}, {
		name: "due", about: "a reader while many entries expire at once", relaxed: true, heavy: true,
		takes: func(p product) bool { return p.expires }, phases: []phase{{run: runDue}},
	}, {
		name: "insert", about: "new keys far beyond memory, by 16 goroutines", relaxed: true, heavy: true,
		takes: onDisk, phases: []phase{{run: runInsert}},
	}, {
		name: "open", about: "Open after Close, and after a kill", relaxed: true, heavy: true,
		takes: onDisk, phases: []phase{{run: runBuild}, {run: runOpenClean}, {run: runDirty, kill: true},
			{run: runOpenKilled}},
	}, {
		name: "size", about: "the files after overwrites, by 16 goroutines, before any compaction", relaxed: true,
		heavy: true, once: true,
		takes: onDisk, phases: []phase{{run: func(c *child) error { return c.runSize("size", true) }}},
	}, {
		name: "compacted", about: "the same with what compactions each does by itself", relaxed: true, heavy: true,
		once:  true,
		takes: onDisk, phases: []phase{{run: func(c *child) error { return c.runSize("compacted", false) }}},
	}, {
		name: "growth", about: "Get as the store grows", relaxed: true, heavy: true, once: true,
		takes:  func(p product) bool { return slices.Contains([]string{us, bolt, "badger", "pebble"}, p.name) },
		phases: []phase{{run: runGrowth}},
	},
}

func anyProduct(product) bool { return true }
func onDisk(p product) bool   { return !p.memory }

func findGroup(name string) (group, error) {
	for _, g := range groups {
		if g.name == name {
			return g, nil
		}
	}
	return group{}, fmt.Errorf("no group of workloads is called %q", name)
}
