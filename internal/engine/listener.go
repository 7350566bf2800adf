package engine

import (
	"sync"
	"sync/atomic"

	"github.com/keepcache/keepcache/internal/store"
)

// Listener receives reports on what happens in an engine.
type Listener interface {
	// WantsWrites reports whether Published should be called.
	WantsWrites() bool

	// Published is called for a write that is about to become visible, while the shards of its keys are locked. It must be
	// quick, must not call the engine, and must not keep its arguments. Loads of one of the keys that began before are
	// void.
	Published(buckets []string, writes []Written)

	// Cleared is called when a bucket is about to lose all its entries, and again before others may write to it. Loads
	// into it that began before are void.
	Cleared(bucket string)

	WantsExpired() bool
	WantsEvicted() bool
	WantsProgress() bool
	Expired(bucket, key string, inWrite bool) // inWrite: a write waits for the call
	Evicted(bucket, key string)
	Progress(what string, done, total int64) // in bytes
	Compacted(before, after int64)           // in bytes
	Unavailable(err error)
	Healed(how string)
	Quarantined(movedTo string, why error) // movedTo is "" if the file could not be kept
	BadJournal(why error)
}

// Written is a key that is written.
type Written struct {
	Bucket, Key string
	Quiet       bool         // nobody sees a change
	By          *atomic.Bool // see Write.Void
}

// notify calls Listener.Published for a write, if the listener wants that.
func (w *writer) notify(names []store.NameOp, writes []*Write) {
	if !w.listener.WantsWrites() {
		return
	}
	var buckets []string
	for i := range names {
		if !names[i].Tag {
			buckets = append(buckets, names[i].Name)
		}
	}
	all := writtenLists.Get().(*[]Written)
	for _, d := range writes {
		*all = append(*all, Written{d.ns.name, d.Key, d.quiet, d.Void})
	}
	w.listener.Published(buckets, *all)
	clear(*all)
	if *all = (*all)[:0]; cap(*all) <= maxWrittenKept {
		writtenLists.Put(all)
	}
}

// writtenLists has lists for notify, which is called for every write while anything is being loaded.
var writtenLists = sync.Pool{New: func() any { return new([]Written) }}

// maxWrittenKept bounds the lists to keep. Each key takes about 50 bytes.
const maxWrittenKept = 1024
