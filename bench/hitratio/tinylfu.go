package hitratio

import "container/list"

// TinyLFU is W-TinyLFU (Einziger, Friedman and Manes, ACM Transactions on Storage 2017) with a window of fixed size:
// new keys pass through a small LRU cache. What leaves it is admitted into the large one, a segmented LRU cache, only
// if a sketch says that it was asked for more often, lately, than the key that would have to go for it.
type TinyLFU struct {
	window, probation, protected        *list.List // the last used first
	windowMost, mainMost, protectedMost int
	at                                  map[uint32]*resident
	sketch                              sketch
}

type resident struct {
	in *list.List
	e  *list.Element
}

// NewTinyLFU returns an empty W-TinyLFU cache: 1 % of it is the window, 80 % of the rest is protected.
func NewTinyLFU(capacity int) *TinyLFU {
	window := max(capacity/100, 1)
	return &TinyLFU{
		window: list.New(), probation: list.New(), protected: list.New(),
		windowMost: window, mainMost: capacity - window, protectedMost: (capacity - window) * 8 / 10,
		at: make(map[uint32]*resident), sketch: newSketch(capacity),
	}
}

// Access implements Policy.
func (c *TinyLFU) Access(key uint32) bool {
	c.sketch.add(key)
	if r := c.at[key]; r != nil {
		switch r.in {
		case c.probation:
			c.move(r, c.protected)
			if c.protected.Len() > c.protectedMost {
				c.move(c.at[c.protected.Back().Value.(uint32)], c.probation)
			}
		default:
			r.in.MoveToFront(r.e)
		}
		return true
	}
	c.at[key] = &resident{c.window, c.window.PushFront(key)}
	if c.window.Len() <= c.windowMost {
		return false
	}
	candidate := c.window.Back().Value.(uint32)
	if c.probation.Len()+c.protected.Len() < c.mainMost {
		c.move(c.at[candidate], c.probation)
		return false
	}
	last := c.probation.Back()
	if last == nil {
		last = c.protected.Back()
	}
	if last == nil || c.sketch.count(candidate) <= c.sketch.count(last.Value.(uint32)) {
		c.remove(candidate)
		return false
	}
	c.remove(last.Value.(uint32))
	c.move(c.at[candidate], c.probation)
	return false
}

func (c *TinyLFU) move(r *resident, to *list.List) {
	key := r.in.Remove(r.e)
	r.in, r.e = to, to.PushFront(key)
}

func (c *TinyLFU) remove(key uint32) {
	r := c.at[key]
	r.in.Remove(r.e)
	delete(c.at, key)
}

// sketch is a count-min sketch with counters up to 15, all of which are halved when ten times the capacity was
// counted.
type sketch struct {
	rows  [4][]uint8
	adds  int
	reset int
}

func newSketch(capacity int) (s sketch) {
	width := 16
	for width < capacity {
		width *= 2
	}
	for i := range s.rows {
		s.rows[i] = make([]uint8, width)
	}
	s.reset = 10 * capacity
	return s
}

func (s *sketch) slot(row int, key uint32) *uint8 {
	h := mix(key ^ uint32(row)*0x9E3779B9)
	return &s.rows[row][(h>>32)&uint64(len(s.rows[row])-1)]
}

func (s *sketch) add(key uint32) {
	for row := range s.rows {
		if n := s.slot(row, key); *n < 15 {
			*n++
		}
	}
	if s.adds++; s.adds < s.reset {
		return
	}
	s.adds /= 2
	for _, row := range s.rows {
		for i := range row {
			row[i] /= 2
		}
	}
}

func (s *sketch) count(key uint32) uint8 {
	least := uint8(15)
	for row := range s.rows {
		least = min(least, *s.slot(row, key))
	}
	return least
}
