package keepcache

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// WatchOptions say which events a Watch gets. A nil *WatchOptions is the zero value: all events.
type WatchOptions struct {
	// Kinds are the kinds of events, combined with |. Default: all.
	Kinds EventKind

	// Bucket limits the events to those of one bucket. Default: all, and those of the whole cache.
	Bucket string

	// Prefix limits the events to those of keys that begin with it. Default: all.
	Prefix string

	// Buffer is how many events wait for the reader before further ones are dropped, 1,048,576 at most.
	// Default: 1024, as for values below 1.
	Buffer int
}

const (
	defaultWatchBuffer = 1024
	mostWatchBuffer    = 1 << 20
)

// Watch is a subscription to the events of a cache as they happen. Operations never wait for its reader: an event that
// finds the buffer full is dropped, and counted. All methods may be called from any goroutine.
type Watch struct {
	t       *notifier
	o       WatchOptions
	events  chan Event
	dropped atomic.Uint64

	mu    sync.Mutex // held to send to events and to close it
	ended bool
}

// Watch begins to watch events. A watch costs each operation about as much as a send to a channel, next to nothing
// while its buffer is full, and nothing after Watch.Close. With o nil it gets all events. Close ends it; on a cache
// that is closed it has ended from the start.
func (db *DB) Watch(o *WatchOptions) *Watch {
	w := &Watch{t: db.events}
	if o != nil {
		w.o = *o
	}
	if w.o.Kinds == 0 {
		w.o.Kinds = ^EventKind(0)
	}
	if w.o.Buffer <= 0 {
		w.o.Buffer = defaultWatchBuffer
	}
	db.ground.Do(func() { w.events = make(chan Event, min(w.o.Buffer, mostWatchBuffer)) })
	if !w.t.add(w) {
		w.end()
	}
	return w
}

// Events returns the channel of events. It is closed when the watch ends, by Watch.Close or because the cache was
// closed; what is in the buffer then can still be received. So a loop over it ends by itself.
func (w *Watch) Events() <-chan Event { return w.events }

// Dropped returns how many events were dropped so far because the buffer was full.
func (w *Watch) Dropped() uint64 { return w.dropped.Load() }

// Close ends the watch and closes its channel. It may be called more than once.
func (w *Watch) Close() {
	w.t.remove(w)
	w.end()
}

// end closes the channel of events.
func (w *Watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.ended = true
		w.t.ground.Do(func() { close(w.events) })
	}
}

// takes reports whether an event is to be sent: it is wanted, and there is room for it. Where there is no room, it
// counts the event as dropped.
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

// send sends an event, unless others have taken the room for it or the watch has ended.
func (w *Watch) send(e Event) {
	e.Time = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	select {
	case w.events <- e:
	default:
		w.dropped.Add(1)
	}
}

// add adds a watch to those that are told of events, and reports whether the cache still has any to tell.
func (t *notifier) add(w *Watch) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.setWatches(append(slices.Clone(*t.watches.Load()), w))
	}
	return !t.ended
}

// remove takes a watch from those that are told of events.
func (t *notifier) remove(w *Watch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setWatches(slices.DeleteFunc(slices.Clone(*t.watches.Load()), func(other *Watch) bool { return other == w }))
}

// setWatches replaces the list of those who watch, and with it the kinds of events that anybody wants to know of.
func (t *notifier) setWatches(all []*Watch) {
	wanted := t.kinds
	for _, w := range all {
		wanted |= w.o.Kinds
	}
	t.watches.Store(&all)
	t.wanted.Store(uint32(wanted))
}
