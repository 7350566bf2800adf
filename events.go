package keepcache

import (
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/eventqueue"
	"github.com/keepcache/keepcache/internal/foreign"
	"github.com/keepcache/keepcache/internal/ground"
)

// Events says whom to tell what happens in a cache. The zero value tells nobody.
type Events struct {
	// Handle is called for each event of a kind in Kinds, possibly from several goroutines at once. It must return soon
	// and must not call Close, except as said below. A panic in it is contained.
	//
	// Most events are handled in the goroutine in which they happen, and the operation waits for Handle. EventProgress and
	// EventCompact happen in the middle of a compaction or a backup: from them, Handle must not call what waits for one of
	// these or for a commit, such as Compact, Backup, Sweep and Sync.
	//
	// EventLoad, EventLoadFailed of a loader, and EventRefresh are handled in a goroutine of the load. Nobody waits for
	// Handle there, so who waits for the load may go on before it is called. Handle may ask for any key.
	//
	// EventExpire and EventEvict happen in commits, sweeps and writes. They are handled soon after, one by one in their
	// order, in a goroutine of their own; an event of a later write may be handled first. There Handle may call anything,
	// though a Close takes a second or two, and it may take its time while no more than 8 MiB of such events wait. Beyond
	// that, commits and sweeps wait for Handle, and writes do not. If it then does not return for a second, because it
	// waits for them or for something else, events that do not fit are dropped, and the Logger is told how many. Close
	// waits until the events that are left have been handled, but not for a call that takes more than a second, and ten
	// seconds at most.
	//
	// An event that Handle itself causes, such as EventSet of a Set in it, is handled after that call has begun, never
	// inside it: one by one in their order, in another goroutine. 1 MiB of these can wait, some 4,000. Nobody waits for
	// room, as that could be Handle itself. Events that do not fit are dropped, as are those that come after Close has
	// begun, and the Logger is told how many. So a Handle whose every event causes another keeps a goroutine busy until
	// Close, and does no other harm. What Handle does in goroutines that it starts counts as done by others.
	Handle func(Event)

	// Kinds are the kinds that Handle is called for, combined with |. Default: RareEvents.
	Kinds EventKind
}

// Event is one thing that happened in a cache.
type Event struct {
	Time   time.Time
	Kind   EventKind
	Bucket string // empty where it is about the whole cache
	Key    string // empty where it is not about one entry
	Detail string // what else there is to say, for a person
	Err    error  // the cause, where there is one

	Done, Total int64 // of EventProgress, in bytes
}

// EventKind is a set of kinds of events; an Event has exactly one.
type EventKind uint32

// The kinds of events.
const (
	EventCorrupt    EventKind = 1 << iota // a read met a damaged entry, or Open a damaged journal
	EventLoad                             // a loader brought a value, or ErrNotFound; Detail is how long it took
	EventLoadFailed                       // a loader failed, or the cache failed around a load
	EventRefresh                          // a load began in the background
	EventStale                            // a stale value was served; Err is why, if a load has just failed
	EventHit                              // a read of a value found the key
	EventMiss                             // a read of a value found it absent or expired
	EventSet                              // a value was written: Set, and whatever else counts as one in Stats.Sets
	EventDelete                           // an entry was removed by Delete, DeleteMany, DeletePrefix or Take

	EventNegative // GetOrLoad answered ErrNotFound from memory of an earlier load
	EventEvict    // an entry was evicted to keep a budget

	EventCompact  // a compaction has ended well
	EventProgress // long work, which Detail names, has done Done of Total bytes

	EventUnavailable // the file cannot be used any more, and reads and writes go on without it; Err is the reason
	EventHealed      // it can again; Detail is how
	EventQuarantine  // a damaged or replaced file or journal was quarantined; Detail is its new name, Err the reason

	EventExpire // an expired entry was removed, or replaced by a write; it was absent from its deadline on

	// RareEvents are the kinds that do not come with every operation.
	RareEvents = EventCorrupt | EventLoadFailed | EventCompact | EventUnavailable | EventHealed | EventQuarantine
)

// String returns the name of one kind of event, in one word, as the command prints and takes it.
func (k EventKind) String() string {
	switch k {
	case EventCorrupt:
		return "corrupt"
	case EventEvict:
		return "evict"
	case EventUnavailable:
		return "unavailable"
	case EventHealed:
		return "healed"
	case EventQuarantine:
		return "quarantine"
	case EventCompact:
		return "compact"
	case EventProgress:
		return "progress"
	case EventExpire:
		return "expire"
	case EventLoad:
		return "load"
	case EventLoadFailed:
		return "load-failed"
	case EventRefresh:
		return "refresh"
	case EventStale:
		return "stale"
	case EventNegative:
		return "negative"
	case EventHit:
		return "hit"
	case EventMiss:
		return "miss"
	case EventSet:
		return "set"
	case EventDelete:
		return "delete"
	}
	return "unknown"
}

// lateKinds are the kinds of events that happen while commits or sweeps cannot run. They wait in a queue until they can
// be handled outside of that, so that a handler may call whatever waits for a commit.
const lateKinds = EventExpire | EventEvict

const (
	lateBytes = 8 << 20 // some 30,000 events with short keys

	// ownBytes is for the events that handlers bring about: some 4,000.
	ownBytes = 1 << 20

	// lateLast is the longest that Close waits for a handler. To handle all events of a full queue, it may take a third of
	// a millisecond for each.
	lateLast = 10 * time.Second
	ownLast  = time.Second
)

// cost is the memory of an event in a queue. Half of the queue's slice may be spare capacity.
func (e *Event) cost() int64 { return int64(2*unsafe.Sizeof(*e)) + int64(len(e.Key)) }

// notifier passes events on to Options.Events and to the watches.
type notifier struct {
	wanted atomic.Uint32 // the kinds that anybody wants to know of; all that an operation looks at if nobody does

	handle  func(Event)
	kinds   EventKind                // that handle is called for
	late    *eventqueue.Queue[Event] // nil where handle is called for none of lateKinds
	own     *eventqueue.Queue[Event] // of what happens in a call of a handler; nil where there is none
	watches atomic.Pointer[[]*Watch]

	ground *ground.Ground // where the channels of watches are made and closed
	mu     sync.Mutex     // held while watches, wanted and ended change
	ended  bool           // the cache is closed: nothing is told any more
}

func newNotifier(path string, o *Options, g *ground.Ground) *notifier {
	e := &o.Events
	t := &notifier{handle: e.Handle, ground: g}
	if t.handle != nil {
		if t.kinds = e.Kinds; t.kinds == 0 {
			t.kinds = RareEvents
		}
	}
	queue := func(most int64) *eventqueue.Queue[Event] {
		return &eventqueue.Queue[Event]{Handle: t.handle, Cost: (*Event).cost, Most: most, Ground: g, Dropped: func(n int) {
			o.Logger.Warn("keepcache: events were dropped, because Options.Events.Handle did not keep up", "path", path,
				"events", n)
		}}
	}
	if t.kinds != 0 {
		t.own = queue(ownBytes)
		t.own.NoWait = true
	}
	if t.kinds&lateKinds != 0 {
		t.late = queue(lateBytes)
	}
	t.watches.Store(new([]*Watch))
	t.wanted.Store(uint32(t.kinds))
	return t
}

// wants reports whether anybody wants events of that kind, so that none is built in vain.
func (t *notifier) wants(kind EventKind) bool { return t.wanted.Load()&uint32(kind) != 0 }

// note reports an event of one entry. It costs nothing if nobody wants to know.
func (b *Bucket) note(kind EventKind, key string) {
	if t := b.db.events; t.wants(kind) {
		t.note(kind, b.at.Name, key)
	}
}

// counted counts a read of a value, and tells of it.
func (b *Bucket) counted(key string, r *engine.Reading) {
	b.db.counts.get(r)
	if r.Live {
		b.note(EventHit, key)
	} else {
		b.note(EventMiss, key)
	}
}

// note is tell for an event of one entry that an operation causes, and so of none of lateKinds. It builds no event if
// the buffers of all watches are full, as on a busy cache.
func (t *notifier) note(kind EventKind, bucket, key string) {
	for _, w := range *t.watches.Load() {
		if w.takes(kind, bucket, key) {
			w.send(Event{Kind: kind, Bucket: bucket, Key: key})
		}
	}
	if t.kinds&kind != 0 {
		t.call(Event{Kind: kind, Bucket: bucket, Key: key}, false)
	}
}

// tell reports an event to those who want to know.
func (t *notifier) tell(e Event) { t.tellFrom(e, false) }

// tellFrom is tell for a caller that may be in a write. A write does not wait for a handler of lateKinds.
func (t *notifier) tellFrom(e Event, inWrite bool) {
	if !t.wants(e.Kind) {
		return
	}
	for _, w := range *t.watches.Load() {
		if w.takes(e.Kind, e.Bucket, e.Key) {
			w.send(e)
		}
	}
	if t.kinds&e.Kind != 0 {
		t.call(e, inWrite)
	}
}

// call calls Options.Events, now or soon. It is soon for lateKinds, and if a call of the handler causes the event.
func (t *notifier) call(e Event, inWrite bool) {
	e.Time = time.Now()
	switch {
	case e.Kind&lateKinds != 0:
		t.late.Put(e, inWrite)
	case foreign.InHandler():
		t.own.Put(e, false)
	case e.Kind&callersKinds != 0:
		foreign.Handle(func() { t.handle(e) })
	default:
		foreign.Apart(func() { foreign.Handle(func() { t.handle(e) }) })
	}
}

// hurry has the queues end soon: Close waits for them.
func (t *notifier) hurry() {
	t.own.Hurry(ownLast)
	t.late.Hurry(lateLast)
}

// close ends the queues, when what is left in them has been told, and all watches.
func (t *notifier) close() {
	t.late.Close()
	t.own.Close()
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	for _, w := range *t.watches.Load() {
		w.Close()
	}
}

// callersKinds are the kinds of events that happen in the goroutine of a caller, outside of everything that others wait
// for. A runtime.Goexit in a handler, such as that of a failing test, ends that goroutine. The other kinds happen in
// goroutines of the cache too.
const callersKinds = EventHit | EventMiss | EventSet | EventDelete | EventStale | EventNegative
