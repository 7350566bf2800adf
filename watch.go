package keepcache

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// WatchOptions say which events a Watch gets. The zero value is all of them.
type WatchOptions struct {
	// Kinds are the kinds of events, combined with |. Default: all.
	Kinds EventKind

	// Bucket limits the events to those of one bucket. Default: all, and those of the whole cache.
	Bucket string

	// Prefix limits the events to those of keys that begin with it. Default: all.
	Prefix string

	// Buffer is how many events wait for the reader before further ones are dropped, 1,048,576 at most. Default: 1024, as
	// for values below 1.
	Buffer int
}

const (
	defaultWatchBuffer = 1024
	mostWatchBuffer    = 1 << 20
)

// Watch is somebody who looks at the events of a cache as they happen. Operations never wait for it: what finds the
// buffer full is dropped, and counted.
type Watch struct {
	t       *teller
	o       WatchOptions
	events  chan Event
	dropped atomic.Uint64
}

// Watch begins to watch events. It costs operations next to nothing while the buffer is full, about as much as a send
// to a channel while it is not, and nothing after Watch.Close. When the cache is closed there are no more events.
func (db *DB) Watch(o WatchOptions) *Watch {
	if o.Kinds == 0 {
		o.Kinds = ^EventKind(0)
	}
	if o.Buffer <= 0 {
		o.Buffer = defaultWatchBuffer
	}
	w := &Watch{t: db.events, o: o}
	db.ground.Do(func() { w.events = make(chan Event, min(o.Buffer, mostWatchBuffer)) })
	w.t.change(func(all []*Watch) []*Watch { return append(all, w) })
	return w
}

// Events returns the channel of events, which is never closed.
func (w *Watch) Events() <-chan Event { return w.events }

// Dropped returns how many events were dropped so far.
func (w *Watch) Dropped() uint64 { return w.dropped.Load() }

// Close ends the watch. It may be called more than once.
func (w *Watch) Close() {
	w.t.change(func(all []*Watch) []*Watch {
		return slices.DeleteFunc(all, func(other *Watch) bool { return other == w })
	})
}

// change replaces the list of those who watch.
func (t *teller) change(fn func([]*Watch) []*Watch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := fn(slices.Clone(*t.watches.Load()))
	wanted := t.kinds
	for _, w := range all {
		wanted |= w.o.Kinds
	}
	t.watches.Store(&all)
	t.wanted.Store(uint32(wanted))
}

// takes reports whether an event is to be sent: it is wanted, and there is room for it. Where there is none it counts it
// as dropped.
func (w *Watch) takes(kind EventKind, bucket, key string) bool {
	switch {
	case kind&w.o.Kinds == 0,
		w.o.Bucket != "" && w.o.Bucket != bucket,
		!strings.HasPrefix(key, w.o.Prefix):
		return false
	case len(w.events) == cap(w.events):
		w.dropped.Add(1)
		return false
	}
	return true
}

// send sends an event, unless others have taken the room for it.
func (w *Watch) send(e Event) {
	e.Time = time.Now()
	select {
	case w.events <- e:
	default:
		w.dropped.Add(1)
	}
}
