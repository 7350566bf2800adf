package main

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
)

// setLoad overwrites the drawn entries.
func (c *child) setLoad(p Peer, seqs [][]request) load {
	bufs := c.buffers(len(seqs))
	return load{goroutines: len(seqs), duration: c.Time, every: 4, op: func(g, i int) (class, error) {
		r := seqs[g][i%len(seqs[g])]
		return write, p.Set(r.key, c.data.value(bufs[g], r.entry, uint32(i)), ttl)
	}}
}

func (c *child) buffers(n int) [][]byte {
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = make([]byte, c.data.size)
	}
	return bufs
}

// longer is how much longer than others the measurements take whose work goes on in the background.
const longer = 2

// runSet measures acknowledged sets, and then how long what they left behind takes.
func runSet(c *child) error {
	return c.runSets([]int{1, 16}, "set-", longer*c.Time)
}

func runSync(c *child) error { return c.runSets([]int{1, 64}, "sync-", c.Time) }

func (c *child) runSets(goroutines []int, row string, duration time.Duration) error {
	c.entries(c.Entries)
	return c.withPeer(Settings{MemoryBytes: memory}, func(p Peer) error {
		if err := c.data.fill(p, 0, c.Entries, hour); err != nil {
			return err
		}
		for _, n := range goroutines {
			name := row + strconv.Itoa(n)
			l := c.setLoad(p, c.drawsOf(n))
			l.duration = duration
			if err := c.measure(name, p, l); err != nil {
				return err
			}
			if err := c.settle(name, p); err != nil {
				return err
			}
		}
		_, err := measure(c.getEach(p, shuffled(c.Round, 0, min(c.Entries, 1000))))
		return err
	})
}

// settle settles the peer and records how long that took.
func (c *child) settle(row string, p Peer) error {
	start := time.Now()
	err := p.Settle()
	c.row(row)["settle s"] = time.Since(start).Seconds()
	return err
}

// runBatch sets batches of 1,000 drawn entries. The batches are made beforehand, in the form that each peer
// takes.
func runBatch(c *child) error {
	const size, number = 1000, 64
	c.entries(c.Entries)
	batches := make([]*Batch, number)
	all := shuffled(c.Round, 0, c.Entries)
	for i := range batches {
		entries := make([]uint32, 0, size)
		for k := range min(size, len(all)) {
			entries = append(entries, all[(i*size+k)%len(all)])
		}
		batches[i] = c.data.batch(entries, 1)
	}
	return c.withPeer(Settings{MemoryBytes: memory}, func(p Peer) error {
		if err := c.data.fill(p, 0, c.Entries, hour); err != nil {
			return err
		}
		err := c.measure("batch", p, load{goroutines: 1, duration: longer * c.Time, every: 1,
			op: func(_, i int) (class, error) {
				return write, p.SetMany(batches[i%number], ttl)
			}})
		if err != nil {
			return err
		}
		m := c.row("batch")
		m["entries/s"] = m["ops/s"] * float64(len(batches[0].Keys))
		return c.settle("batch", p)
	})
}

// mixes are the rows of runMixed: percent of reads, and goroutines.
var mixes = []struct {
	row        string
	reads      uint64
	goroutines int
}{
	{"mixed-95-16", 95, 16}, {"mixed-50-16", 50, 16}, {"mixed-95-2", 95, 2}, {"mixed-50-2", 50, 2},
}

func runMixed(c *child) error {
	c.entries(c.Entries)
	return c.withPeer(Settings{MemoryBytes: memory}, func(p Peer) error {
		if err := c.data.fill(p, 0, c.Entries, hour); err != nil {
			return err
		}
		for _, x := range mixes {
			seqs, bufs := c.drawsOf(x.goroutines), c.buffers(x.goroutines)
			err := c.measure(x.row, p, load{
				goroutines: x.goroutines, duration: longer * c.Time, every: 4,
				op: func(g, i int) (class, error) {
					r := seqs[g][i%len(seqs[g])]
					if mix(uint64(g)<<32|uint64(i))%100 < x.reads {
						return read, c.get(p, r)
					}
					return write, p.Set(r.key, c.data.value(bufs[g], r.entry, uint32(i)), ttl)
				},
			})
			if err != nil {
				return err
			}
			if err := c.settle(x.row, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// runInsert sets entries that are not there yet, until they are many or the time is over, and times each set.
func runInsert(c *child) error {
	const goroutines = 16
	c.entries(c.Many)
	before := privateMemory()
	return c.withPeer(Settings{MemoryBytes: memory, Entries: c.Many}, func(p Peer) error {
		peak := watchMemory()
		bufs := c.buffers(goroutines)
		var next atomic.Int64
		err := c.measureCold("insert", p, load{
			goroutines: goroutines, duration: c.ManyTime, every: 1, most: c.Many / goroutines,
			op: func(g, _ int) (class, error) {
				e := int(next.Add(1)) - 1
				return write, p.Set(c.data.keys[e], c.data.value(bufs[g], e, 0), ttl)
			},
		})
		m := c.row("insert")
		m["memory"] = max(peak()-before, 0)
		if err != nil {
			return err
		}
		if err := c.settle("insert", p); err != nil {
			return err
		}
		_, err = measure(c.getEach(p, shuffled(c.Round, 0, int(next.Load()))[:min(1000, next.Load())]))
		return err
	})
}

// runSize sets all entries again and again, each time in another order, and looks at the files.
func (c *child) runSize(name string, uncompacted bool) error {
	const goroutines = 16
	c.entries(c.Entries)
	row := c.row(name)
	err := c.withPeer(Settings{MemoryBytes: memory, Uncompacted: uncompacted}, func(p Peer) error {
		bufs := c.buffers(goroutines)
		start := time.Now()
		for pass := range c.Overwrite + 1 {
			entries := shuffled(pass, 0, c.Entries)
			share := c.Entries / goroutines
			_, err := measure(load{goroutines: goroutines, most: share, op: func(g, i int) (class, error) {
				e := int(entries[g*share+i])
				return write, p.Set(c.data.keys[e], c.data.value(bufs[g], e, uint32(pass)), ttl)
			}})
			if err != nil {
				return fmt.Errorf("pass %d: %w", pass, err)
			}
		}
		row["seconds"] = time.Since(start).Seconds()
		if err := c.settle(name, p); err != nil {
			return err
		}
		bytes, err := diskBytes(c.Dir)
		row["x logical, open"] = bytes / c.data.logical(c.Entries)
		return err
	})
	if err != nil {
		return err
	}
	bytes, err := diskBytes(c.Dir)
	row["x logical, closed"] = bytes / c.data.logical(c.Entries)
	row["file bytes"] = bytes
	return err
}
