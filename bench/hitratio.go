package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/maypok86/otter/v2"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/bench/hitratio"
)

// hitRatioWork is the name of the tables of hit ratios among the groups of workloads. They are not a matter of
// time, so they have a page of their own, and no rounds.
const hitRatioWork = "hitratio"

// hitRatioKeys is how many keys the traces have. More of them change little and take long.
const hitRatioKeys, hitRatioQuick = 30_000, 3_000

// policyColumn is a policy of the tables. ratio replays a trace in a cache with room for so many keys, which may use
// a directory, and returns the part of the accesses that hit, in percent, or -1 where there is no cache so small.
type policyColumn struct {
	name  string
	ratio func(capacity int, trace hitratio.Trace, dir string) (float64, error)
}

// simulated makes a column of a policy that is a model.
func simulated(name string, make func(capacity int, trace hitratio.Trace) hitratio.Policy) policyColumn {
	return policyColumn{name, func(capacity int, trace hitratio.Trace, _ string) (float64, error) {
		return hitratio.Ratio(make(capacity, trace), trace.Accesses), nil
	}}
}

var (
	optimumColumn = simulated("optimum",
		func(n int, t hitratio.Trace) hitratio.Policy { return hitratio.NewOptimum(n, t.Accesses) })
	lruColumn   = simulated("LRU", func(n int, _ hitratio.Trace) hitratio.Policy { return hitratio.NewLRU(n) })
	fifoColumn  = simulated("FIFO", func(n int, _ hitratio.Trace) hitratio.Policy { return hitratio.NewFIFO(n, false) })
	s3Column    = simulated("S3-FIFO", func(n int, _ hitratio.Trace) hitratio.Policy { return hitratio.NewS3FIFO(n) })
	sieveColumn = simulated("SIEVE", func(n int, _ hitratio.Trace) hitratio.Policy { return hitratio.NewSIEVE(n) })
	tinyColumn  = simulated("W-TinyLFU", func(n int, _ hitratio.Trace) hitratio.Policy { return hitratio.NewTinyLFU(n) })
	queueColumn = simulated("queue", func(n int, _ hitratio.Trace) hitratio.Policy { return hitratio.NewFIFO(n, true) })
	handColumn  = simulated("**hand**", func(n int, t hitratio.Trace) hitratio.Policy {
		return hitratio.NewHand(n, t.Keys, int64(16*n))
	})
	smallHand = simulated("hand, small table", func(n int, t hitratio.Trace) hitratio.Policy {
		return hitratio.NewHand(n, t.Keys, int64(2*n))
	})
	memoryColumn = policyColumn{"**keepcache**", memoryRatio}
	otterColumn  = policyColumn{"otter", otterRatio}
)

// hitRatioPage replays the traces and returns the page.
func hitRatioPage(keys uint32, dir string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, `# Hit ratios

Percent of the accesses that found their key, by `+"`go run . -work %s`"+`. The traces are made, the same in each run, over
%s keys of one size; a key that was not found is stored. A budget of n %% has room for so many of the keys. The loop goes
round over a tenth more keys than there is room for. The optimum knows the future (Belady). Package hitratio has traces
and models.

## The budget of the file

What Options.MaxBytes evicts, chosen by a hand over neighbouring keys and a table of uses
(internal/engine/evict.go), beside a queue in the order of writing with a second chance, the other candidate. The hand is
a model; the small table has half a slot a key.

`, hitRatioWork, thousands(int(keys)))
	if err := hitRatioTable(&b, keys, dir, optimumColumn, lruColumn, fifoColumn, s3Column, sieveColumn, tinyColumn,
		queueColumn, handColumn, smallHand); err != nil {
		return "", err
	}
	b.WriteString(`
## The memory tier

Reads of a cache whose file has all keys: a hit is one that memory had, within a MemoryBytes with room for so many
entries. keepcache and otter are measured, not models: keepcache has S3-FIFO in each of its shards, and its numbers vary by
a tenth from run to run; otter has W-TinyLFU with a window that adapts.

`)
	if err := hitRatioTable(&b, keys, dir, optimumColumn, lruColumn, fifoColumn, sieveColumn, tinyColumn, s3Column,
		memoryColumn, otterColumn); err != nil {
		return "", err
	}
	return b.String(), nil
}

func hitRatioTable(b *strings.Builder, keys uint32, dir string, columns ...policyColumn) error {
	b.WriteString("| trace | budget |")
	for _, c := range columns {
		fmt.Fprintf(b, " %s |", c.name)
	}
	b.WriteString("\n|---|---:|" + strings.Repeat("---:|", len(columns)) + "\n")
	for _, percent := range []int{1, 10, 50} {
		capacity := int(keys) * percent / 100
		for _, trace := range append(hitratio.Traces(keys), hitratio.Loop(uint32(capacity))) {
			fmt.Fprintf(b, "| %s | %d %% |", trace.Name, percent)
			for _, c := range columns {
				ratio, err := c.ratio(capacity, trace, dir)
				if err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				if ratio < 0 {
					b.WriteString(" – |")
				} else {
					fmt.Fprintf(b, " %.1f |", ratio)
				}
			}
			b.WriteString("\n")
		}
	}
	return nil
}

// Bytes of a value, and of its entry in memory: key, record, and what memory counts for itself. tierLeast is the least
// that keepcache takes for MemoryBytes.
const (
	tierValue = 100
	tierEntry = 8 + 39 + 2 + tierValue + 168
	tierLeast = 64 << 10
)

// memoryRatio reads a cache whose file has all keys, and counts what memory had.
func memoryRatio(capacity int, trace hitratio.Trace, dir string) (ratio float64, err error) {
	memory := int64(capacity) * tierEntry
	if memory < tierLeast {
		return -1, nil
	}
	if dir, err = os.MkdirTemp(dir, "hitratio-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	path, keys := filepath.Join(dir, "bench.cache"), make([]string, trace.Keys)
	for i := range keys {
		keys[i] = fmt.Sprintf("%08x", i)
	}
	if err := fillFile(path, keys); err != nil {
		return 0, err
	}
	db, err := keepcache.Open(path, &keepcache.Options{
		MemoryBytes: memory, MaxBytes: -1, SweepInterval: -1,
	})
	if err != nil {
		return 0, err
	}
	b := db.Bucket("b")
	for _, key := range trace.Accesses {
		if _, found, err := b.GetBytes(keys[key]); err != nil || !found {
			return 0, errors.Join(fmt.Errorf("key %s was found: %t", keys[key], found), err, db.Close())
		}
	}
	s := db.Stats()
	return 100 * float64(s.Hits-s.FileHits) / float64(s.Hits), db.Close()
}

func fillFile(path string, keys []string) error {
	db, err := keepcache.Open(path, &keepcache.Options{MaxBytes: -1})
	if err != nil {
		return err
	}
	value := make([]byte, tierValue)
	for _, key := range keys {
		if err := db.Bucket("b").SetBytes(key, value, 0); err != nil {
			return errors.Join(err, db.Close())
		}
	}
	return db.Close()
}

// otterRatio replays a trace in otter, which does its work in the background at once.
func otterRatio(capacity int, trace hitratio.Trace, _ string) (float64, error) {
	c, err := otter.New(&otter.Options[uint32, uint32]{MaximumSize: capacity, Executor: func(work func()) { work() }})
	if err != nil {
		return 0, err
	}
	defer c.StopAllGoroutines()
	return hitratio.Ratio(otterPolicy{c}, trace.Accesses), nil
}

type otterPolicy struct{ cache *otter.Cache[uint32, uint32] }

// Access implements hitratio.Policy.
func (p otterPolicy) Access(key uint32) bool {
	if _, found := p.cache.GetIfPresent(key); found {
		return true
	}
	p.cache.Set(key, key)
	return false
}
