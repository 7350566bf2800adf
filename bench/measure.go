package main

import (
	"cmp"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// load is what is measured: op, again and again, by some goroutines at once, until the time is over or each
// of them has done its part.
type load struct {
	goroutines int
	duration   time.Duration // the end, by time; 0 for no end
	most       int           // the end, by operations of one goroutine; 0 for mostOps
	every      int           // the latency of each every-th operation is taken; 0 for none

	// op is the i-th operation of goroutine g. Its class says which latencies it counts among.
	op func(g, i int) (class, error)
}

// class tells reads and writes apart.
type class int

const (
	read class = iota
	write
	classes
)

// mostOps bounds each goroutine of each load.
const mostOps = 200_000_000

// tally is what came of a load.
type tally struct {
	ops       int
	elapsed   time.Duration
	latencies [classes]histogram
	allocs    float64 // of the whole process, each operation
	bytes     float64 // the same
}

func (t *tally) rate() float64 { return float64(t.ops) / t.elapsed.Seconds() }

// measure runs a load. It fails with the first error of an operation.
func measure(l load) (*tally, error) {
	var stop atomic.Bool
	var mu sync.Mutex // protects what follows
	var failure error
	t := &tally{}

	most := cmp.Or(l.most, mostOps)
	begin := make(chan struct{})
	var work sync.WaitGroup
	for g := range l.goroutines {
		work.Go(func() {
			var own [classes]histogram
			var err error
			<-begin
			n := 0
			for n < most && err == nil && !stop.Load() {
				if l.every == 0 || n%l.every != 0 {
					_, err = l.op(g, n)
				} else {
					var c class
					start := time.Now()
					c, err = l.op(g, n)
					own[c].add(time.Since(start))
				}
				n++
			}
			mu.Lock()
			defer mu.Unlock()
			t.ops += n
			for c := range own {
				t.latencies[c].merge(&own[c])
			}
			if err != nil && failure == nil {
				failure = fmt.Errorf("operation %d of goroutine %d: %w", n-1, g, err)
				stop.Store(true)
			}
		})
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	close(begin)
	if l.duration > 0 {
		timer := time.AfterFunc(l.duration, func() { stop.Store(true) })
		defer timer.Stop()
	}
	work.Wait()
	t.elapsed = time.Since(start)
	runtime.ReadMemStats(&after)
	if ops := float64(max(t.ops, 1)); failure == nil {
		t.allocs = float64(after.Mallocs-before.Mallocs) / ops
		t.bytes = float64(after.TotalAlloc-before.TotalAlloc) / ops
	}
	return t, failure
}
