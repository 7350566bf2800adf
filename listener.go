package keepcache

import (
	"fmt"

	"github.com/keepcache/keepcache/internal/engine"
)

// listener is the engine.Listener of a DB: what the DB makes of what its engine tells.
type listener struct{ db *DB }

// WantsWrites reports whether there is anything that a write could void.
func (l listener) WantsWrites() bool {
	return l.db.loads.flights.n.Load() != 0 || l.db.loads.failures.Len() != 0 || l.db.suspects.Any()
}

// Published voids the loads of keys that are written, and notes who has written what a function is suspected of.
func (l listener) Published(buckets []string, writes []engine.Written) {
	loads := l.db.loads
	for i := range writes {
		if w := &writes[i]; !w.Quiet {
			loads.flights.void(w.Bucket, w.Key, w.By)
			loads.failures.Forget(w.Bucket, w.Key)
		}
	}
	l.db.suspects.Wrote(buckets, writes)
}

// Cleared voids the loads of a bucket.
func (l listener) Cleared(bucket string) {
	l.db.loads.flights.voidPrefix(bucket, "")
	l.db.loads.failures.ForgetPrefix(bucket, "")
}

func (l listener) WantsExpired() bool  { return l.db.events.wants(EventExpire) }
func (l listener) WantsEvicted() bool  { return l.db.events.wants(EventEvict) }
func (l listener) WantsProgress() bool { return l.db.events.wants(EventProgress) }

func (l listener) Expired(bucket, key string, inWrite bool) {
	l.db.events.tellFrom(Event{Kind: EventExpire, Bucket: bucket, Key: key}, inWrite)
}

func (l listener) Evicted(bucket, key string) {
	l.db.events.tell(Event{Kind: EventEvict, Bucket: bucket, Key: key})
}

func (l listener) Progress(what string, done, total int64) {
	l.db.events.tell(Event{Kind: EventProgress, Detail: what, Done: done, Total: total})
}

func (l listener) Compacted(before, after int64) {
	l.db.events.tell(Event{Kind: EventCompact, Detail: fmt.Sprintf("%d to %d bytes", before, after)})
}

func (l listener) Unavailable(err error) { l.db.events.tell(Event{Kind: EventUnavailable, Err: err}) }
func (l listener) Healed(how string)     { l.db.events.tell(Event{Kind: EventHealed, Detail: how}) }

func (l listener) Quarantined(aside string, why error) {
	l.db.events.tell(Event{Kind: EventQuarantine, Detail: aside, Err: why})
}

func (l listener) BadJournal(why error) {
	l.db.events.tell(Event{Kind: EventCorrupt, Detail: "journal", Err: why})
}
