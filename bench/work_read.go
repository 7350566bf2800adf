package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
)

// Memory for the peers' own caches.
const (
	memory      = 64 << 20 // holds 100,000 entries of 200 bytes
	smallMemory = 1 << 20  // holds next to none of them
)

// drawsOf returns what each of some goroutines is to work on, by Zipf; together about a million.
func (c *child) drawsOf(goroutines int) [][]request {
	const together = 1 << 20
	seqs := make([][]request, goroutines)
	for g := range seqs {
		seqs[g] = c.data.requests(c.data.draws(c.Round*1000+g, together/goroutines))
	}
	return seqs
}

// getLoad reads the drawn entries, all of which are there.
func (c *child) getLoad(p Peer, seqs [][]request) load {
	return load{goroutines: len(seqs), duration: c.Time, op: func(g, i int) (class, error) {
		seq := seqs[g]
		return read, c.get(p, seq[i%len(seq)])
	}}
}

// get reads an entry and proves its value.
func (c *child) get(p Peer, r request) error {
	value, found, err := p.Get(r.key)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("entry %d is absent", r.entry)
	}
	_, err = c.data.check(value, r.entry)
	return err
}

// getEach reads the given entries once, by one goroutine.
func (c *child) getEach(p Peer, entries []uint32) load {
	all := c.data.requests(entries)
	return load{goroutines: 1, most: len(all), op: func(_, i int) (class, error) {
		return read, c.get(p, all[i])
	}}
}

func runRead(c *child) error {
	c.entries(c.Entries)
	return c.withPeer(Settings{MemoryBytes: memory}, func(p Peer) error {
		if err := c.data.fill(p, 0, c.Entries, hour); err != nil {
			return err
		}
		if _, err := measure(c.getEach(p, shuffled(c.Round, 0, c.Entries))); err != nil {
			return err
		}
		for _, goroutines := range []int{1, 2} {
			if err := c.measure("get-"+strconv.Itoa(goroutines), p, c.getLoad(p, c.drawsOf(goroutines))); err != nil {
				return err
			}
		}
		keys := make([]string, 1<<16)
		for i := range keys {
			keys[i] = absent(i)
		}
		return c.measure("get-absent", p, load{goroutines: 1, duration: c.Time, op: func(_, i int) (class, error) {
			_, found, err := p.Get(keys[i%len(keys)])
			if found {
				err = errors.New("an absent key was found")
			}
			return read, err
		}})
	})
}

// runBeyond reads all entries in an order in which none comes twice soon, so that a cache that holds a few of
// them is of no use. Page caches and maps of the system hold all of them.
func runBeyond(c *child) error {
	c.entries(c.Entries)
	err := c.withPeer(Settings{MemoryBytes: memory}, func(p Peer) error {
		return c.data.fill(p, 0, c.Entries, hour)
	})
	if err != nil {
		return err
	}
	return c.withPeer(Settings{MemoryBytes: smallMemory}, func(p Peer) error {
		return c.measure("get-beyond", p, c.roundLoad(p, shuffled(c.Round, 0, c.Entries)))
	})
}

// roundLoad reads the given entries again and again, in their order.
func (c *child) roundLoad(p Peer, entries []uint32) load {
	all := c.data.requests(entries)
	return load{goroutines: 1, duration: c.Time, op: func(_, i int) (class, error) {
		return read, c.get(p, all[i%len(all)])
	}}
}

// Valuer is a Peer that takes other values than bytes, too.
type Valuer interface {
	SetValue(key string, value any) error
}

// runAlloc counts allocations while nothing goes on in the background, as far as there is a choice. The
// collector is off, so that it empties no pool meanwhile.
func runAlloc(c *child) error {
	const runs = 2000
	c.entries(min(c.Entries, 10_000))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	return c.withPeer(Settings{MemoryBytes: memory, Hoard: true}, func(p Peer) error {
		if err := c.data.fill(p, 0, len(c.data.keys), hour); err != nil {
			return err
		}
		all := c.data.requests(shuffled(1, 0, len(c.data.keys)))
		buf := make([]byte, c.data.size)
		text := any(string(c.data.value(buf, 0, 0)))
		at := func(i int) request { return all[i%len(all)] }
		loads := map[string]func(g, i int) (class, error){
			"alloc-get": func(_, i int) (class, error) { return read, c.get(p, at(i)) },
			"alloc-set": func(_, i int) (class, error) {
				return write, p.Set(at(i).key, c.data.value(buf, at(i).entry, 1), ttl)
			},
		}
		if v, ok := p.(Valuer); ok {
			loads["alloc-set-string"] = func(_, i int) (class, error) { return write, v.SetValue(at(i).key, text) }
		}
		for _, row := range []string{"alloc-get", "alloc-set", "alloc-set-string"} {
			op := loads[row]
			if op == nil {
				continue
			}
			l := load{goroutines: 1, most: runs, op: op}
			if _, err := measure(l); err != nil {
				return err
			}
			if err := c.measureCold(row, p, l); err != nil {
				return err
			}
		}
		return nil
	})
}

// runGrowth measures single reads at several sizes of the store: with memory for all entries, by Zipf, and
// with next to none, in random order.
func runGrowth(c *child) error {
	top := c.Dir
	defer func() { c.Dir = top }()
	for _, n := range c.Growth {
		c.Dir = filepath.Join(top, strconv.Itoa(n))
		if err := os.Mkdir(c.Dir, 0o700); err != nil {
			return err
		}
		c.entries(n)
		s := Settings{MemoryBytes: int64(n)*700 + memory, Entries: n}
		err := c.withPeer(s, func(p Peer) error {
			if err := c.data.fill(p, 0, n, hour); err != nil {
				return err
			}
			if _, err := measure(c.getEach(p, shuffled(c.Round, 0, n))); err != nil {
				return err
			}
			return c.measure(growthRow("memory", n), p, c.getLoad(p, c.drawsOf(1)))
		})
		if err != nil {
			return err
		}
		s.MemoryBytes = smallMemory
		err = c.withPeer(s, func(p Peer) error {
			return c.measure(growthRow("file", n), p, c.roundLoad(p, shuffled(c.Round, 0, n)))
		})
		if err != nil {
			return err
		}
		if err := os.RemoveAll(c.Dir); err != nil {
			return err
		}
	}
	return nil
}

func growthRow(from string, n int) string { return "growth-" + from + "-" + strconv.Itoa(n) }
