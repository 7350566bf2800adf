package powerloss

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keepcache/keepcache/internal/disk"
)

// Disk is what is durable at a moment of a record, and what may be.
type Disk struct {
	// Skips says of a sync, by the name of its file, that it did nothing; a directory has the name ".". For controls.
	// Default: nil.
	Skips func(name string) bool

	// Rand chooses what a sync brings to the disk of what an earlier one, which failed, was to bring. It is needed where
	// syncs fail.
	Rand *rand.Rand

	events  []event
	next    int // the first event that has not happened
	files   map[*node]*durable
	names   map[string]*node
	pending []*event // changes of names since the directory was synced
	called  map[*node]string
}

// durable is one file.
type durable struct {
	base    []byte // as of its last sync, without the zeros at its end
	size    int64
	pending []*event // writes and truncations since
	dropped int      // how many of the first of them were to be synced by a sync that failed
}

// Disk returns the disk at the beginning of the record, which has ended.
func (r *Recorder) Disk() *Disk {
	d := &Disk{events: r.events, files: map[*node]*durable{}, names: maps.Clone(r.start), called: map[*node]string{}}
	for name, n := range r.start {
		d.called[n] = name
		d.files[n] = &durable{base: trim(n.before), size: int64(len(n.before))}
	}
	return d
}

// Live returns the state that a process sees now: all that was written, durable or not. It is what a killed process
// leaves.
func (d *Disk) Live() *State {
	s := &State{files: map[string]*image{}, how: "as a killed process leaves it", live: map[string]*node{}}
	names := maps.Clone(d.names)
	for _, e := range d.pending {
		rename(names, e)
	}
	made := map[*node]*image{}
	for name, n := range names {
		if made[n] == nil {
			f := d.files[n]
			content, size := f.with(f.pending, len(f.pending), func(*event, int64) part { return whole })
			made[n] = &image{content: trim(content), size: size}
		}
		s.files[name], s.live[name] = made[n], n
	}
	return s
}

// Then returns a Disk that has come as far as this one and goes on with the record r, which began with the files as s,
// the Live state of now, has them.
func (d *Disk) Then(s *State, r *Recorder) *Disk {
	then := &Disk{Skips: d.Skips, files: map[*node]*durable{}, names: maps.Clone(d.names), called: maps.Clone(d.called)}
	then.pending = slices.Clone(d.pending)
	for n, f := range d.files {
		then.files[n] = &durable{f.base, f.size, slices.Clone(f.pending), f.dropped}
	}
	same := map[*node]*node{}
	for name, n := range r.start {
		same[n] = s.live[name]
	}
	for name, n := range s.live {
		if f := s.files[name]; f.damaged {
			then.files[n] = &durable{base: f.content, size: f.size}
		}
	}
	// What is pending here comes before all of r.
	for i := range then.pending {
		e := *then.pending[i]
		e.number = -1
		then.pending[i] = &e
	}
	for _, f := range then.files {
		for i := range f.pending {
			e := *f.pending[i]
			e.number = -1
			f.pending[i] = &e
		}
	}
	then.events = slices.Clone(r.events)
	for i := range then.events {
		if n := same[then.events[i].node]; n != nil {
			then.events[i].node = n
		}
	}
	return then
}

// Events returns how many events there are.
func (d *Disk) Events() int { return len(d.events) }

// Time returns when event i happened.
func (d *Disk) Time(i int) time.Time { return d.events[i].at }

// Marks returns the numbers of the events that are marks, and what they are.
func (d *Disk) Marks() (numbers []int, marks []any) {
	for i, e := range d.events {
		if e.kind == mark {
			numbers, marks = append(numbers, i), append(marks, e.mark)
		}
	}
	return numbers, marks
}

// Syncs returns the numbers of all events that end a sync or are marks: just before and behind them, states are most
// likely to differ.
func (d *Disk) Syncs() (numbers []int) {
	for i, e := range d.events {
		if e.kind == disk.KindSync || e.kind == disk.KindSyncDir || e.kind == disk.KindRename {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

// Advance lets everything happen up to event number to, without it, and calls fn for each mark.
func (d *Disk) Advance(to int, fn func(v any, at time.Time)) {
	for ; d.next < to; d.next++ {
		e := &d.events[d.next]
		switch e.kind {
		case mark:
			fn(e.mark, e.at)
		case disk.KindCreate:
			d.files[e.node] = &durable{}
			d.called[e.node] = e.name
			d.pending = append(d.pending, e)
		case disk.KindRename, disk.KindLink:
			d.called[e.node] = e.to
			d.pending = append(d.pending, e)
		case disk.KindRemove:
			d.pending = append(d.pending, e)
		case disk.KindWrite, disk.KindTruncate:
			f := d.files[e.node]
			f.pending = append(f.pending, e)
		case disk.KindSync:
			if e.node != nil && (d.Skips == nil || !d.Skips(d.called[e.node])) {
				d.files[e.node].sync(e.begun, d.Rand)
			}
		case drop:
			f := d.files[e.node]
			f.dropped = len(f.pending)
		case harm:
			d.files[e.node] = &durable{base: trim(e.data), size: int64(len(e.data))}
		case disk.KindSyncDir:
			if d.Skips == nil || !d.Skips(".") {
				for len(d.pending) > 0 && d.pending[0].number < e.begun {
					rename(d.names, d.pending[0])
					d.pending = d.pending[1:]
				}
			}
		}
	}
}

// sync makes durable what happened before event number begun.
func (f *durable) sync(begun int, r *rand.Rand) {
	n := 0
	for n < len(f.pending) && f.pending[n].number < begun {
		n++
	}
	lost := map[*event]bool{}
	for _, e := range f.pending[:min(n, f.dropped)] {
		lost[e] = true
	}
	f.base, f.size = f.with(f.pending[:n], n, func(e *event, _ int64) part {
		if lost[e] && r.IntN(2) == 0 {
			return none
		}
		return whole
	})
	f.dropped = max(f.dropped-n, 0)
	f.base = trim(f.base)
	f.pending = slices.Clone(f.pending[n:])
}

// part is what of a sector reaches the disk: bytes from, to.
type part struct{ from, to int }

var (
	whole = part{0, sector}
	none  = part{}
)

// with returns the content of the file with the sectors of events that pick lets through, as long as the first sizes
// events made it.
func (f *durable) with(events []*event, sizes int, pick func(*event, int64) part) (content []byte, size int64) {
	size = f.size
	for _, e := range events[:sizes] {
		if e.kind == disk.KindTruncate {
			size = e.off
		} else {
			size = max(size, e.off+int64(len(e.data)))
		}
	}
	most := int64(len(f.base))
	for _, e := range events {
		most = max(most, e.off+int64(len(e.data)))
	}
	content = make([]byte, min(most, size))
	copy(content, f.base)
	for _, e := range events {
		if e.kind == disk.KindTruncate {
			if e.off < int64(len(content)) && pick(e, 0) == whole {
				clear(content[e.off:])
			}
			continue
		}
		for at := e.off; at < e.off+int64(len(e.data)); {
			end := min(at/sector*sector+sector, e.off+int64(len(e.data)))
			if at < int64(len(content)) {
				if p := pick(e, at); p == whole {
					copy(content[at:], e.data[at-e.off:end-e.off])
				} else if p.to > p.from {
					from, to := at+int64(p.from), min(at+int64(p.to), end)
					if from < to && from < int64(len(content)) {
						copy(content[from:], e.data[from-e.off:to-e.off])
					}
				}
			}
			at = end
		}
	}
	return content, size
}

// trim cuts off the zeros at the end.
func trim(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}
