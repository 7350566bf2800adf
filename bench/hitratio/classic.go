package hitratio

import (
	"container/heap"
	"container/list"
	"math"
)

// LRU evicts the key that was used longest ago.
type LRU struct {
	capacity int
	order    *list.List
	at       map[uint32]*list.Element
}

// NewLRU returns an empty LRU cache.
func NewLRU(capacity int) *LRU {
	return &LRU{capacity, list.New(), make(map[uint32]*list.Element)}
}

// Access implements Policy.
func (c *LRU) Access(key uint32) bool {
	if e := c.at[key]; e != nil {
		c.order.MoveToFront(e)
		return true
	}
	c.at[key] = c.order.PushFront(key)
	if c.order.Len() > c.capacity {
		delete(c.at, c.order.Remove(c.order.Back()).(uint32))
	}
	return false
}

// FIFO evicts the key that was stored longest ago. With a second chance it passes over keys that were used
// since it last came by, and moves them to the end: candidate (a) of the byte budget.
type FIFO struct {
	capacity     int
	secondChance bool
	queue        []uint32
	used         map[uint32]bool
}

// NewFIFO returns an empty FIFO cache.
func NewFIFO(capacity int, secondChance bool) *FIFO {
	return &FIFO{capacity, secondChance, nil, make(map[uint32]bool)}
}

// Access implements Policy.
func (c *FIFO) Access(key uint32) bool {
	if _, ok := c.used[key]; ok {
		c.used[key] = true
		return true
	}
	for len(c.used) >= c.capacity {
		oldest := c.queue[0]
		c.queue = c.queue[1:]
		if c.secondChance && c.used[oldest] {
			c.used[oldest] = false
			c.queue = append(c.queue, oldest)
			continue
		}
		delete(c.used, oldest)
	}
	c.used[key] = false
	c.queue = append(c.queue, key)
	return false
}

// S3FIFO is S3-FIFO (Yang and others, SOSP 2023): a small queue that quickly lets go of what is not used
// again, a main queue with up to three second chances, and the keys that the small one let go of lately.
type S3FIFO struct {
	capacity           int
	small, main, ghost []uint32
	uses               map[uint32]uint8
	ghosts             map[uint32]int
}

// NewS3FIFO returns an empty S3-FIFO cache.
func NewS3FIFO(capacity int) *S3FIFO {
	return &S3FIFO{capacity: capacity, uses: make(map[uint32]uint8), ghosts: make(map[uint32]int)}
}

// Access implements Policy.
func (c *S3FIFO) Access(key uint32) bool {
	if n, ok := c.uses[key]; ok {
		c.uses[key] = min(n+1, 3)
		return true
	}
	for len(c.uses) >= c.capacity {
		c.evict()
	}
	c.uses[key] = 0
	if c.ghosts[key] > 0 {
		c.main = append(c.main, key)
	} else {
		c.small = append(c.small, key)
	}
	return false
}

func (c *S3FIFO) evict() {
	if len(c.small) > 0 && (len(c.small) >= c.capacity/10 || len(c.main) == 0) {
		key := c.small[0]
		c.small = c.small[1:]
		if c.uses[key] > 1 {
			c.uses[key] = 0
			c.main = append(c.main, key)
			return
		}
		delete(c.uses, key)
		c.ghost = append(c.ghost, key)
		c.ghosts[key]++
		if len(c.ghost) > c.capacity*9/10 {
			if c.ghosts[c.ghost[0]]--; c.ghosts[c.ghost[0]] == 0 {
				delete(c.ghosts, c.ghost[0])
			}
			c.ghost = c.ghost[1:]
		}
		return
	}
	key := c.main[0]
	c.main = c.main[1:]
	if n := c.uses[key]; n > 0 {
		c.uses[key] = n - 1
		c.main = append(c.main, key)
		return
	}
	delete(c.uses, key)
}

// Optimum is the offline optimum for entries of one size (Belady 1966): it knows the trace, and evicts the key
// that is asked for again the latest.
type Optimum struct {
	capacity int
	now      int
	next     []int // when the key of an access is asked for again
	due      map[uint32]int
	queue    dueQueue
}

// NewOptimum returns an empty cache for the given trace and no other.
func NewOptimum(capacity int, trace []uint32) *Optimum {
	next := make([]int, len(trace))
	seen := make(map[uint32]int)
	for i := len(trace) - 1; i >= 0; i-- {
		next[i] = math.MaxInt
		if at, ok := seen[trace[i]]; ok {
			next[i] = at
		}
		seen[trace[i]] = i
	}
	return &Optimum{capacity: capacity, next: next, due: make(map[uint32]int)}
}

// Access implements Policy.
func (c *Optimum) Access(key uint32) bool {
	due := c.next[c.now]
	c.now++
	_, hit := c.due[key]
	c.due[key] = due
	heap.Push(&c.queue, dueKey{due, key})
	for len(c.due) > c.capacity {
		if last := heap.Pop(&c.queue).(dueKey); c.due[last.key] == last.due {
			delete(c.due, last.key)
		}
	}
	return hit
}

type dueKey struct {
	due int
	key uint32
}

type dueQueue []dueKey

func (q dueQueue) Len() int           { return len(q) }
func (q dueQueue) Less(i, j int) bool { return q[i].due > q[j].due }
func (q dueQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *dueQueue) Push(x any)        { *q = append(*q, x.(dueKey)) }
func (q *dueQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
