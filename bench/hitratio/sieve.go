package hitratio

import "container/list"

// SIEVE is SIEVE (Zhang and others, NSDI 2024): a queue in the order of storing, over which a hand walks from the
// oldest to the newest. It passes over keys that were used since it last came by, and evicts the first one that
// was not. Nothing is moved.
type SIEVE struct {
	capacity int
	queue    *list.List // newest first
	hand     *list.Element
	at       map[uint32]*list.Element
}

type sieved struct {
	key  uint32
	used bool
}

// NewSIEVE returns an empty SIEVE cache.
func NewSIEVE(capacity int) *SIEVE {
	return &SIEVE{capacity: capacity, queue: list.New(), at: make(map[uint32]*list.Element)}
}

// Access implements Policy.
func (c *SIEVE) Access(key uint32) bool {
	if e := c.at[key]; e != nil {
		e.Value.(*sieved).used = true
		return true
	}
	if len(c.at) >= c.capacity {
		c.evict()
	}
	c.at[key] = c.queue.PushFront(&sieved{key: key})
	return false
}

func (c *SIEVE) evict() {
	for {
		if c.hand == nil {
			c.hand = c.queue.Back()
		}
		e := c.hand
		c.hand = e.Prev()
		if s := e.Value.(*sieved); s.used {
			s.used = false
		} else {
			delete(c.at, s.key)
			c.queue.Remove(e)
			return
		}
	}
}
