package memory

import "sync/atomic"

// cold holds the evictable entries of one shard and chooses victims by S3-FIFO (Yang, Zhang, Qiu, Yue and
// Vigfusson, "FIFO queues are all you need for cache eviction", SOSP 2023): new entries pass through a
// small queue, from which those that were not used again leave quickly, so that a scan does not wash out
// the main queue; entries that come back soon after they left go into the main queue at once. A use costs
// a reader one counter in the entry and no lock, which LRU and W-TinyLFU cannot offer without a buffer.
//
// What the file has and a full shard is asked for only once does not come in at all (see Keep): admission on
// the second miss. Measured on Zipf traces that changes hit ratios by -0.1 to +0.2 points, with a scan through them by
// up to +1.4, on a loop a tenth larger than memory by +17, on a hot set that shifts by -0.4 to -2; and it
// spares a third of the time of a read from the file.
//
// bench/hitratio.md has it, measured without that admission, beside the others. With room for a tenth of the keys: Zipf 1.0 76.1 % of hits, with a scan
// 60.5, a shifting hot set 78.0, a loop that does not fit 63.3; LRU has 70.7, 51.4, 80.6 and 0, SIEVE 75.8, 60.2, 71.3 and
// 0, W-TinyLFU 75.9, 60.0, 73.3 and 86.9. It is the one that is good at all of them, or within a point or three of the best but
// for the loop. A ready cache such as otter (76.5, 60.5, 72.4, 81.6) could not be the evictable part: it knows no pinned entries,
// has no bound of bytes that they share with the others, and cannot refuse a record that was read from the file before
// its shard changed.
type cold struct {
	small, main queue
	ghosts      ghosts
}

// place says which queue holds an entry.
type place uint8

const (
	nowhere place = iota
	inSmall
	inMain
)

const (
	maxUses      = 3  // a use counter's highest value
	smallPercent = 10 // part of the bytes that the small queue may hold before it gives way
)

func (c *cold) bytes() int64 { return c.small.bytes + c.main.bytes }

// add takes an entry in. One that was used while it was pinned, or that was evicted lately, has proved
// itself.
func (c *cold) add(e *entry) {
	if e.uses.Load() > 1 || c.ghosts.take(e.hash) {
		e.uses.Store(0)
		e.place = inMain
		c.main.push(e)
		return
	}
	e.place = inSmall
	c.small.push(e)
}

// drop takes an entry out.
func (c *cold) drop(e *entry) {
	switch e.place {
	case inSmall:
		c.small.remove(e)
	case inMain:
		c.main.remove(e)
	}
	e.place = nowhere
}

// evict takes the next victim out and returns it, or nil if there is none. limit is how many bytes the
// shard may hold. The loop ends because each turn either finds a victim, moves an entry from the small
// queue to the main one, or lowers a counter.
func (c *cold) evict(limit int64) *entry {
	for {
		switch {
		case c.small.head != nil && (c.main.head == nil || c.small.bytes > limit*smallPercent/100):
			e := c.small.head
			c.drop(e)
			if e.uses.Load() <= 1 {
				c.ghosts.fit(c.small.entries + c.main.entries)
				c.ghosts.put(e.hash)
				return e
			}
			e.uses.Store(0)
			e.place = inMain
			c.main.push(e)
		case c.main.head != nil:
			e := c.main.head
			c.drop(e)
			n := e.uses.Load()
			if n == 0 {
				return e
			}
			e.uses.Store(n - 1)
			e.place = inMain
			c.main.push(e)
		default:
			return nil
		}
	}
}

// queue is a list of entries, oldest first, with their number and their bytes.
type queue struct {
	head, tail *entry
	entries    int
	bytes      int64
}

func (q *queue) push(e *entry) {
	e.prev, e.next = q.tail, nil
	if q.tail == nil {
		q.head = e
	} else {
		q.tail.next = e
	}
	q.tail = e
	q.entries++
	q.bytes += e.bytes()
}

func (q *queue) remove(e *entry) {
	if e.prev == nil {
		q.head = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		q.tail = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
	q.entries--
	q.bytes -= e.bytes()
}

// ghosts remembers the hashes of entries that were evicted lately, each in the one slot that its hash
// names: as many as there are entries beside them, and forgetful where two hashes meet.
type ghosts struct {
	slots []uint32 // none before the first one, then a power of two of them
	most  int
	bytes *atomic.Int64 // of this one and of others
}

const (
	leastGhosts = 64
	mostGhosts  = 1 << 16
)

// newGhosts returns a memory for at most about as many entries as fit into the given bytes. What it takes is added to taken.
func newGhosts(bytes int64, taken *atomic.Int64) ghosts {
	n := leastGhosts
	for int64(n)*512 < bytes && n < mostGhosts {
		n *= 2
	}
	return ghosts{most: n, bytes: taken}
}

// fit makes room for so many ghosts. What is remembered is found in either half of a table that has doubled, because the slot
// of the whole hash is not known any more.
func (g *ghosts) fit(n int) {
	for before := len(g.slots); before < min(n, g.most) || before == 0; before = len(g.slots) {
		g.slots = append(make([]uint32, 0, max(2*before, leastGhosts)), g.slots...)
		g.slots = append(g.slots, g.slots...)
		if before == 0 {
			g.slots = g.slots[:leastGhosts]
		}
		g.bytes.Add(int64(len(g.slots)-before) * 4)
	}
}

func (g *ghosts) slot(hash uint64) (*uint32, uint32) {
	return &g.slots[hash&uint64(len(g.slots)-1)], uint32(hash>>20) | 1
}

func (g *ghosts) put(hash uint64) {
	g.fit(1)
	at, mark := g.slot(hash)
	*at = mark
}

// has reports whether hash is remembered.
func (g *ghosts) has(hash uint64) bool {
	if len(g.slots) == 0 {
		return false
	}
	at, mark := g.slot(hash)
	return *at == mark
}

// take reports whether hash is remembered, and forgets it.
func (g *ghosts) take(hash uint64) bool {
	if len(g.slots) == 0 {
		return false
	}
	at, mark := g.slot(hash)
	if *at != mark {
		return false
	}
	*at = 0
	return true
}

// IsPinned reports whether memory has a version of a key that the file does not have yet.
func (m *Tier) IsPinned(id uint64, key string) bool {
	hash := m.Hash(id, key)
	s := m.ShardOf(hash)
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.table.find(hash, id, key)
	return e != nil && e.pinned
}

// Forget drops an entry that was evicted from the file, unless memory has something newer. The shard changes, so that nobody who read the
// file before keeps what he found.
func (m *Tier) Forget(id uint64, key string) {
	hash := m.Hash(id, key)
	s := m.ShardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	if e := s.table.find(hash, id, key); e != nil && !e.pinned {
		before := s.cold.bytes()
		s.cold.drop(e)
		s.table.remove(e)
		m.cached.Add(s.cold.bytes() - before)
	}
}
