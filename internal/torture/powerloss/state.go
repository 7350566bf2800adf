package powerloss

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/keepcache/keepcache/internal/disk"
)

// State is what a power cut left: files by their names.
type State struct {
	files map[string]*image
	how   string
	live  map[string]*node // of a Live state
}

type image struct {
	content []byte // without the zeros at its end
	size    int64
	damaged bool
}

// String says how the state was chosen.
func (s *State) String() string {
	text := s.how
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		text += fmt.Sprintf("; %s: %d bytes", name, s.files[name].size)
	}
	return text
}

// Hash returns a number that is most likely different for another state.
func (s *State) Hash(seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		f := s.files[name]
		fmt.Fprintf(&h, "%q %d %d ", name, f.size, len(f.content))
		h.Write(f.content)
	}
	return h.Sum64()
}

// Content returns all that the file of a name has, or nil if there is none.
func (s *State) Content(name string) []byte {
	f := s.files[name]
	if f == nil {
		return nil
	}
	b := make([]byte, f.size)
	copy(b, f.content)
	return b
}

// Is reports whether there is a file of that name that has the content.
func (s *State) Is(name string, content []byte) bool {
	f := s.files[name]
	return f != nil && f.size == int64(len(content)) && bytes.Equal(f.content, trim(content))
}

// Damage replaces all that the file of a name has, whatever other names it has: as if the disk had done it.
func (s *State) Damage(name string, content []byte) {
	f := s.files[name]
	f.content, f.size, f.damaged = trim(content), int64(len(content)), true
	s.how += "; " + name + " damaged"
}

// Write makes the state in an empty directory.
func (s *State) Write(dir string) error {
	made := map[*image]string{}
	for name, f := range s.files {
		path := filepath.Join(dir, name)
		if other, ok := made[f]; ok {
			if err := os.Link(other, path); err != nil {
				return err
			}
			continue
		}
		made[f] = path
		if err := os.WriteFile(path, f.content, 0o600); err != nil {
			return err
		}
		if err := os.Truncate(path, f.size); err != nil {
			return err
		}
	}
	return nil
}

// Cut returns a state that a power cut now may leave.
func (d *Disk) Cut(r *rand.Rand) *State {
	s := &State{files: map[string]*image{}}
	names := maps.Clone(d.names)
	kept := len(d.pending)
	if r.IntN(2) == 0 {
		kept = r.IntN(kept + 1)
	}
	subset := r.IntN(4) == 0
	s.how = fmt.Sprintf("names %d of %d, subset %t", kept, len(d.pending), subset)
	for _, e := range d.pending[:kept] {
		if !subset || r.IntN(2) == 0 {
			rename(names, e)
		}
	}
	same, way := r.IntN(2) == 0, r.IntN(ways)
	made := map[*node]*image{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n := names[name]
		if made[n] == nil {
			if !same {
				way = r.IntN(ways)
			}
			f := d.files[n]
			sizes := len(f.pending)
			switch {
			case way == wayNothing:
				sizes = 0
			case r.IntN(4) == 0:
				sizes = r.IntN(sizes + 1)
			}
			content, size := f.with(f.pending, sizes, choose(r, way, f.pending))
			made[n] = &image{content: trim(content), size: size}
			if len(f.pending) > 0 {
				s.how += fmt.Sprintf("; way %d for %d writes of file %d, %d sizes", way, len(f.pending), n.number, sizes)
			}
		}
		s.files[name] = made[n]
	}
	return s
}

// The ways in which pending sectors are chosen.
const (
	wayNothing    = iota // none
	wayEverything        // all
	waySome              // each with some probability
	wayEvents            // each write, whole, with some probability
	wayPrefix            // the first few writes, and some of the next
	wayOneMissing        // all but one sector of one write
	wayOneThere          // one sector of one write
	ways
)

// tornOften is how many of the sectors that were stored through a map are torn, in percent.
const tornOften = 10

// choose returns a function that picks what of a sector of an event reaches the disk.
func choose(r *rand.Rand, way int, pending []*event) func(*event, int64) part {
	if len(pending) == 0 || way == wayNothing {
		return func(*event, int64) part { return none }
	}
	p := []float64{0.03, 0.2, 0.5, 0.8, 0.97}[r.IntN(5)]
	chosen := r.IntN(len(pending))
	one := pending[chosen]
	at := one.off
	if len(one.data) > 0 {
		if k := int64(r.IntN(len(one.data))) / sector * sector; k > 0 {
			at = (one.off + k) / sector * sector
		}
	}
	order := map[*event]int{}
	if way == wayPrefix {
		for i, e := range pending {
			order[e] = i
		}
	}
	events := map[*event]bool{}
	if way == wayEvents {
		for _, e := range pending {
			events[e] = r.Float64() < p
		}
	}
	return func(e *event, off int64) part {
		there := true
		switch way {
		case waySome:
			there = r.Float64() < p
		case wayEvents:
			there = events[e]
		case wayPrefix:
			there = order[e] < chosen || e == one && r.Float64() < p
		case wayOneMissing:
			there = e != one || off != at
		case wayOneThere:
			there = e == one && off == at
		}
		switch {
		case !there:
			return none
		case e.mapped && way != wayEverything && r.IntN(100) < tornOften:
			from, to := r.IntN(sector), 1+r.IntN(sector)
			switch r.IntN(3) {
			case 0:
				from = 0
			case 1:
				to = sector
			}
			return part{from, to}
		}
		return whole
	}
}

// rename makes one change of names.
func rename(names map[string]*node, e *event) {
	if names[e.name] == e.node && e.kind != disk.KindCreate {
		delete(names, e.name)
	}
	switch e.kind {
	case disk.KindCreate:
		names[e.name] = e.node
	case disk.KindRename, disk.KindLink:
		names[e.to] = e.node
	}
}
