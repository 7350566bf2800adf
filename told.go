package keepcache

import (
	"fmt"

	"github.com/keepcache/keepcache/internal/engine"
)

// told is the engine.Listener of a DB: what the DB makes of what its engine tells.
type told struct{ db *DB }

// WantsWrites reports whether there is anything that a write could void.
func (t told) WantsWrites() bool {
	return t.db.loads.flights.n.Load() != 0 || t.db.loads.failures.n.Load() != 0 || t.db.suspects.n.Load() != 0
}

// Published voids the loads of keys that are written, and notes who has written what a function is suspected of.
func (t told) Published(buckets []string, writes []engine.Written) {
	loads := t.db.loads
	for i := range writes {
		if w := &writes[i]; !w.Quiet {
			loads.flights.void(w.Bucket, w.Key, w.By)
			loads.failures.forget(w.Bucket, w.Key)
		}
	}
	t.db.suspects.saw(buckets, writes)
}

// Cleared voids the loads of a bucket.
func (t told) Cleared(bucket string) {
	t.db.loads.flights.voidPrefix(bucket, "")
	t.db.loads.failures.forgetPrefix(bucket, "")
}

func (t told) WantsExpired() bool  { return t.db.events.wants(EventExpire) }
func (t told) WantsEvicted() bool  { return t.db.events.wants(EventEvict) }
func (t told) WantsProgress() bool { return t.db.events.wants(EventProgress) }

func (t told) Expired(bucket, key string, inWrite bool) {
	t.db.events.tellFrom(Event{Kind: EventExpire, Bucket: bucket, Key: key}, inWrite)
}

func (t told) Evicted(bucket, key string) {
	t.db.events.tell(Event{Kind: EventEvict, Bucket: bucket, Key: key})
}

func (t told) Progress(what string, done, total int64) {
	t.db.events.tell(Event{Kind: EventProgress, Detail: what, Done: done, Total: total})
}

func (t told) Compacted(before, after int64) {
	t.db.events.tell(Event{Kind: EventCompact, Detail: fmt.Sprintf("%d to %d bytes", before, after)})
}

func (t told) Unavailable(err error) { t.db.events.tell(Event{Kind: EventUnavailable, Err: err}) }
func (t told) Healed(how string)     { t.db.events.tell(Event{Kind: EventHealed, Detail: how}) }

func (t told) Quarantined(aside string, why error) {
	t.db.events.tell(Event{Kind: EventQuarantine, Detail: aside, Err: why})
}

func (t told) BadJournal(why error) {
	t.db.events.tell(Event{Kind: EventCorrupt, Detail: "journal", Err: why})
}
