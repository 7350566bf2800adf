package main

import (
	"errors"
	"sync/atomic"
	"time"
)

// latency is that of one read, with the time at which it began.
type latency struct {
	at   time.Duration // since the deadline
	took time.Duration
}

// Reads are sampled while entries expire; the last ones count, so many at the most.
const mostLatencies = 3_000_000

// runDue lets one goroutine read while many other entries are due at once. The reads count that began while
// they were removed, as far as the peer tells when that was, or else in the dueWindow after the deadline.
func runDue(c *child) error {
	c.entries(c.Entries)
	return c.withPeer(Settings{MemoryBytes: 2 * memory, Entries: c.Entries + c.Due}, func(p Peer) error {
		if err := c.data.fill(p, 0, c.Entries, hour); err != nil {
			return err
		}
		deadline := time.Now().Add(c.DueAfter)
		if err := c.data.fill(p, c.Entries, c.Entries+c.Due, func() time.Duration {
			return max(time.Until(deadline), time.Millisecond)
		}); err != nil {
			return err
		}
		seqs := c.drawsOf(1)
		rest := c.getLoad(p, seqs)
		rest.every = 1
		if err := c.measure("due-rest", p, rest); err != nil {
			return err
		}
		if time.Until(deadline) < 0 {
			return errors.New("the entries were due before the measurement at rest was over")
		}
		time.Sleep(time.Until(deadline.Add(-dueMargin)))
		return c.measureDue(p, seqs[0], deadline)
	})
}

const (
	dueMargin = 100 * time.Millisecond // before the deadline, and before the first sign of removal
	dueWindow = 2 * time.Second        // of peers that do not tell when they remove
	dueMost   = 10 * time.Second
)

func (c *child) measureDue(p Peer, seq []request, deadline time.Time) error {
	var stop atomic.Bool
	window := make(chan [2]time.Duration, 1)
	go func() {
		from, to := c.dueWindow(p, deadline)
		stop.Store(true)
		window <- [2]time.Duration{from, to}
	}()
	seen := make([]latency, 0, mostLatencies)
	for i := 0; !stop.Load(); i++ {
		start := time.Now()
		if err := c.get(p, seq[i%len(seq)]); err != nil {
			return err
		}
		l := latency{start.Sub(deadline), time.Since(start)}
		if len(seen) < cap(seen) {
			seen = append(seen, l)
		} else {
			seen[i%len(seen)] = l
		}
	}
	span := <-window
	var h histogram
	for _, l := range seen {
		if l.at >= span[0] && l.at <= span[1] {
			h.add(l.took)
		}
	}
	if h.total == 0 {
		return errors.New("no read was measured while entries were removed")
	}
	m := c.row("due")
	m["read p50"] = float64(h.quantile(.5))
	m["read p99"] = float64(h.quantile(.99))
	m["read p99.9"] = float64(h.quantile(.999))
	m["read max"] = float64(h.most)
	m["p99 / rest"] = m["read p99"] / c.row("due-rest")["read p99"]
	m["window s"] = (span[1] - span[0]).Seconds()
	m["done s"] = span[1].Seconds()
	return nil
}

// dueWindow returns, relative to the deadline, when the expired entries were removed.
func (c *child) dueWindow(p Peer, deadline time.Time) (from, to time.Duration) {
	s, tells := p.(Sweeper)
	if !tells {
		time.Sleep(time.Until(deadline.Add(dueWindow)))
		return 0, dueWindow
	}
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	from = -1
	for time.Since(deadline) < dueMost {
		<-ticker.C
		n := s.Swept()
		if n > 0 && from < 0 {
			from = max(time.Since(deadline)-dueMargin, 0)
		}
		if n >= uint64(c.Due) {
			break
		}
	}
	return max(from, 0), time.Since(deadline)
}
