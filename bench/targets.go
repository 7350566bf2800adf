package main

import (
	"fmt"
	"math"
)

// target is a promise about one number: what it must reach, and what it should.
type target struct {
	work    string
	what    string                         // the number
	number  func(*results) (float64, bool) // false if it was not measured
	floor   float64                        // none is for none
	goal    float64                        // none is for none
	atMost  bool                           // floor and goal are upper limits
	display func(float64) string
}

var none = math.NaN()

// times is how many times as much work a second keepcache does as a peer.
func times(work, row, peer string, floor, goal float64) target {
	return timesOf(work, row, "ops/s", peer, floor, goal)
}

func timesOf(work, row, metric, peer string, floor, goal float64) target {
	return target{
		work: work, what: "times " + peer, floor: floor, goal: goal, display: plain,
		number: func(r *results) (float64, bool) { return r.ratio(row, us, metric, row, peer, metric) },
	}
}

// part is how long one operation takes, as a part of a peer's.
func part(work, row, peer string, floor, goal float64) target {
	return target{
		work: work, what: "of the time of " + peer, floor: floor, goal: goal, atMost: true, display: plain,
		number: func(r *results) (float64, bool) { return r.ratio(row, us, "ns/op", row, peer, "ns/op") },
	}
}

// most is a metric of keepcache that has an upper limit.
func most(work, what, row, metric string, floor, goal float64, display func(float64) string) target {
	return target{
		work: work, what: what, floor: floor, goal: goal, atMost: true, display: display,
		number: func(r *results) (float64, bool) { return r.median(row, us, metric) },
	}
}

// best is how many times as much work a second keepcache does as the best of some peers.
func best(work, row string, peers []string, floor, goal float64) target {
	return target{
		work: work, what: "times the best other disk peer", floor: floor, goal: goal, display: plain,
		number: func(r *results) (v float64, ok bool) {
			v = math.Inf(1)
			for _, peer := range peers {
				if x, has := r.ratio(row, us, "ops/s", row, peer, "ops/s"); has {
					v, ok = min(v, x), true
				}
			}
			return v, ok
		},
	}
}

// otherDisk are the disk peers besides pebble.
var otherDisk = []string{bolt, boltTuned, "badger", "buntdb", "sqlite"}

var targets = func() (all []target) {
	us16 := func(row string) {
		work := map[string]string{"mixed-95-16": "Mixed 95/5, 16 goroutines",
			"mixed-50-16": "Mixed 50/50, 16 goroutines"}[row]
		all = append(all, times(work, row, "pebble", 1, 2), best(work, row, otherDisk, 1.5, none))
	}
	for _, g := range []string{"1", "2"} {
		row, work := "get-"+g, "Get, in memory, "+g+" goroutines"
		if g == "1" {
			work = "Get, in memory, 1 goroutine"
		}
		all = append(all,
			times(work, row, bolt, 3.5, 8), times(work, row, "badger", 5, 10), times(work, row, "pebble", 5, 10),
			part(work, row, "otter", 2.5, 1.3))
	}
	all = append(all,
		part("Get, not in memory", "get-beyond", bolt, .7, .4),
		part("Get of an absent key", "get-absent", bolt, .5, .2),
		times("Set, default mode, 1 goroutine", "set-1", "pebble", 1.3, 3),
		times("Set, default mode, 1 goroutine", "set-1", "buntdb", 3.5, 8),
		times("Set, default mode, 1 goroutine", "set-1", "badger", 7, 15),
		most("Set, default mode, 1 goroutine", "p99", "set-1", "write p99", none, 5_000, duration),
		times("Set, default mode, 16 goroutines", "set-16", "pebble", 1.2, 2.5),
		times("Set, default mode, 16 goroutines", "set-16", "buntdb", 3, 8),
		times("Set, default mode, 16 goroutines", "set-16", "badger", 5, 10),
		target{
			work: "Set, SyncAlways, 1 goroutine", what: "of the disk's flush limit", floor: .75, goal: .95, display: plain,
			number: func(r *results) (float64, bool) { return r.ratio("sync-1", us, "ops/s", "sync-1", limit, "ops/s") },
		},
		times("Set, SyncAlways, 1 goroutine", "sync-1", bolt, 2.5, none),
		times("Set, SyncAlways, 64 goroutines", "sync-64", "pebble", 1, 2),
		times("Set, SyncAlways, 64 goroutines", "sync-64", bolt, 20, none),
		timesOf("SetMany of 1,000", "batch", "entries/s", "pebble", 1.5, 3),
	)
	us16("mixed-95-16")
	us16("mixed-50-16")
	all = append(all,
		most("Mixed 95/5, 2 goroutines", "p99.9 of reads", "mixed-95-2", "read p99.9", none, 100_000, duration),
		most("Mixed 50/50, 2 goroutines", "p99.9 of reads", "mixed-50-2", "read p99.9", none, 100_000, duration),
		times("Inserts of new keys beyond memory", "insert", bolt, 5, none),
		times("Inserts of new keys beyond memory", "insert", "badger", none, 1),
		most("Inserts of new keys beyond memory", "longest stall", "insert", "write max", none, 250e6, duration),
		most("Inserts of new keys beyond memory", "memory, with 64 MiB for entries", "insert", "memory", 4*memory, none,
			size),
		most("100,000 entries due at once", "p99 of reads, times that at rest", "due", "p99 / rest", 3, 1.5, plain),
		most("Open of 1 M entries, closed cleanly", "time", "open-clean", "open ns", 1e9, 50e6, duration),
		most("Open of 1 M entries, killed with 64 MiB of journal", "time", "open-killed", "open ns", 3e9, 1e9, duration),
		most("Files after 10 overwrites of each entry, before any compaction", "times the logical bytes", "size",
			"x logical, closed", 3, 1.5, plain),
	)
	for _, peer := range []string{"badger", "buntdb", "pebble"} {
		all = append(all, target{
			work: "Files after 10 overwrites of each entry, before any compaction", what: "of those of " + peer, floor: 1,
			goal: none, atMost: true, display: plain,
			number: func(r *results) (float64, bool) {
				return r.ratio("size", us, "file bytes", "size", peer, "file bytes")
			},
		})
	}
	return append(all,
		most("Allocations of Get, in memory", "each", "alloc-get", "allocs/op", 1, 1, count),
		most("Allocations of SetBytes", "each", "alloc-set", "allocs/op", 2, 1, count),
		most("Allocations of Set of a string", "each", "alloc-set-string", "allocs/op", 2, 1, count),
	)
}()

// verdict says what became of a target.
func (t *target) verdict(v float64) string {
	reaches := func(bar float64) bool {
		const tolerance = 1.005 // what rounding hides
		if t.atMost {
			return v <= bar*tolerance
		}
		return v*tolerance >= bar
	}
	switch {
	case !math.IsNaN(t.goal) && reaches(t.goal):
		return "goal met"
	case !math.IsNaN(t.floor) && !reaches(t.floor):
		return "**floor not met**"
	case math.IsNaN(t.goal):
		return "floor met"
	case math.IsNaN(t.floor):
		return "goal not met"
	}
	return "floor met, goal not"
}

func (t *target) bar(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	if t.atMost {
		return "≤ " + t.display(v)
	}
	return "≥ " + t.display(v)
}

func plain(v float64) string { return fmt.Sprintf("%.3g", v) }
func count(v float64) string { return fmt.Sprintf("%.4g", math.Round(v*100)/100) }
