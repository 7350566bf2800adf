package main

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/wire"
)

// The cost for the watched program is bounded: a request for the stats in each interval, a sample of the events, and an
// occasional scan while the list of big keys is shown.
const (
	sampleEvents = 1000                   // the most events of a sample
	sampleTime   = 150 * time.Millisecond // the longest time of a sample
	hotDecay     = 0.7                    // the weight of earlier samples decays by this factor
	hotMost      = 5000                   // the most keys that are counted
	bigEvery     = 30 * time.Second       // the time between two scans
	listMost     = 200                    // the most elements of a list
	historyMost  = 120                    // the most intervals
)

// picture has the data of one view.
type picture struct {
	who    string
	path   string
	up     time.Duration
	now    keepcache.Stats
	before keepcache.Stats
	took   time.Duration // between the two

	history []float64 // operations a second, the latest last
	hot     []hotKey
	sampled int // events
	big     []wire.Entry
	bigAt   time.Time
	recent  []wire.Event // the latest first
}

// hotKey is a key and its fraction of the sampled operations, from 0 to 1.
type hotKey struct {
	bucket, key  string
	part         float64
	reads, total float64
}

// collector collects pictures. Its methods may be called from any goroutine.
type collector struct {
	remote *remote

	mu     sync.Mutex // protects what follows
	p      picture
	at     time.Time // of p.now
	counts map[[2]string]*hotKey
}

func newCollector(r *remote) *collector {
	return &collector{remote: r, counts: make(map[[2]string]*hotKey)}
}

// collect requests the stats, and the data of the list that is shown.
func (c *collector) collect(ctx context.Context, shown list) error {
	bounded, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	s, err := c.remote.client.Stats(bounded)
	if err != nil {
		return err
	}
	now := time.Now()
	c.mu.Lock()
	p := &c.p
	p.who, p.path = c.remote.who(), string(c.remote.hello.Path)
	p.up = now.Sub(time.UnixMilli(c.remote.hello.Since))
	if !c.at.IsZero() {
		p.before, p.took = p.now, now.Sub(c.at)
		p.history = append(p.history, perSecond(operations(s)-operations(p.before), p.took))
		p.history = p.history[max(len(p.history)-historyMost, 0):]
	}
	p.now, c.at = s, now
	stale := now.Sub(p.bigAt) > bigEvery
	c.mu.Unlock()

	switch {
	case shown == listHot:
		c.sample(ctx)
	case shown == listBig && stale:
		keys, err := c.remote.client.Biggest(bounded, "", listMost)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.p.big, c.p.bigAt = keys.Entries, now
		c.mu.Unlock()
	}
	return nil
}

func operations(s keepcache.Stats) uint64 { return s.Hits + s.Misses + s.Sets + s.Deletes }

// perSecond turns a count into a rate. If the count has gone down, because the program was restarted, the rate is 0.
func perSecond(n uint64, took time.Duration) float64 {
	if took <= 0 || n > 1<<62 {
		return 0
	}
	return float64(n) / took.Seconds()
}

// sample counts the keys of some events.
func (c *collector) sample(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sampleTime)
	defer cancel()
	var got []wire.Event
	c.remote.events(ctx, wire.Watch{Kinds: []string{
		keepcache.EventHit.String(), keepcache.EventMiss.String(), keepcache.EventSet.String(),
		keepcache.EventDelete.String(),
	}}, func(e wire.Event) bool {
		if e.Dropped == 0 {
			got = append(got, e)
		}
		return len(got) < sampleEvents
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.p.sampled = len(got)
	c.count(got)
}

// count adds a sample to the earlier ones.
func (c *collector) count(got []wire.Event) {
	for at, h := range c.counts {
		h.total *= hotDecay
		h.reads *= hotDecay
		if h.total < 0.2 {
			delete(c.counts, at)
		}
	}
	for _, e := range got {
		at := [2]string{string(e.Bucket), string(e.Key)}
		h := c.counts[at]
		if h == nil {
			if len(c.counts) >= hotMost {
				continue
			}
			h = &hotKey{bucket: at[0], key: at[1]}
			c.counts[at] = h
		}
		h.total++
		if e.Kind == keepcache.EventHit.String() || e.Kind == keepcache.EventMiss.String() {
			h.reads++
		}
	}
	all := 0.0
	for _, h := range c.counts {
		all += h.total
	}
	c.p.hot = make([]hotKey, 0, len(c.counts))
	for _, h := range c.counts {
		h.part = h.total / all
		c.p.hot = append(c.p.hot, *h)
	}
	slices.SortFunc(c.p.hot, func(a, b hotKey) int {
		return cmp.Or(cmp.Compare(b.part, a.part), cmp.Compare(a.bucket, b.bucket), cmp.Compare(a.key, b.key))
	})
	c.p.hot = c.p.hot[:min(len(c.p.hot), listMost)]
}

// follow collects the events that do not occur with every operation, until ctx ends.
func (c *collector) follow(ctx context.Context) {
	kinds := []string{
		keepcache.EventCorrupt.String(), keepcache.EventLoadFailed.String(), keepcache.EventCompact.String(),
		keepcache.EventEvict.String(), keepcache.EventExpire.String(), keepcache.EventStale.String(),
		keepcache.EventDelete.String(), keepcache.EventLoad.String(), keepcache.EventUnavailable.String(),
		keepcache.EventHealed.String(), keepcache.EventQuarantine.String(),
	}
	for ctx.Err() == nil {
		begun, n := time.Now(), 0
		c.remote.events(ctx, wire.Watch{Kinds: kinds}, func(e wire.Event) bool {
			c.mu.Lock()
			c.p.recent = slices.Insert(c.p.recent, 0, e)
			c.p.recent = c.p.recent[:min(len(c.p.recent), listMost)]
			c.mu.Unlock()
			n++
			return n < followMost
		})
		// Pause between rounds: this bounds the cost of a flood of events, and retries a program that does not answer.
		select {
		case <-ctx.Done():
		case <-time.After(max(followRest-time.Since(begun), leastInterval)):
		}
	}
}

const (
	followMost = 300             // events of one round
	followRest = 5 * time.Second // between the beginnings of two rounds
)

// picture returns the current picture.
func (c *collector) picture() picture {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.p
	p.recent, p.history = slices.Clone(p.recent), slices.Clone(p.history)
	return p
}
