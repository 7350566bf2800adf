package engine

import (
	"strings"

	"github.com/keepcache/keepcache/internal/clock"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
)

// notifyExpired reports expired entries that were removed from the file.
func (sw *sweeper) notifyExpired(gone []store.ExpiryRow) {
	if len(gone) == 0 || !sw.listener.WantsExpired() {
		return
	}
	name := ""
	for i, d := range gone { // sorted by id
		if i == 0 || d.ID != gone[i-1].ID {
			name = sw.nameOf(d.ID)
		}
		sw.listener.Expired(name, string(d.Key), false)
	}
}

// notifyPinned reports entries that expired before they reached the file. changes[i] belongs to pins[i].
func (sw *sweeper) notifyPinned(pins []memory.Pin, changes []*store.Change) {
	if !sw.listener.WantsExpired() {
		return
	}
	name := ""
	for i, p := range pins { // sorted by id
		if i == 0 || p.ID != pins[i-1].ID {
			name = sw.nameOf(p.ID)
		}
		if p.Stored != nil && changes[i].Record == nil {
			sw.listener.Expired(name, strings.Clone(p.Key), false)
		}
	}
}

// hadExpired reports whether the entry that a write has just replaced had expired without a commit noticing. It costs
// next to nothing if the key was not pinned. The caller holds the shard's lock.
func (d *Write) hadExpired(c *clock.Clock) bool {
	b := &d.replaced
	return b.Pinned && b.Stored != nil && !b.Taken &&
		b.Lives != format.Never && !c.IsFar(b.Lives) && b.Lives <= format.Millis(c.Now())
}

// replacedInMemory counts and reports expired entries that writes have replaced or deleted. The writes were not
// retracted.
func (sw *sweeper) replacedInMemory(writes []*Write) {
	for _, d := range writes {
		if d.replacedExpired {
			sw.replaced(d.id, d.Key)
		}
	}
}

// replacedInFile is replacedInMemory for entries in the file, after a transaction has made the changes.
func (sw *sweeper) replacedInFile(changes []*store.Change) {
	for _, c := range changes {
		if c.Late {
			sw.replaced(c.ID, string(c.Key))
		}
	}
}

func (sw *sweeper) replaced(id uint64, key string) {
	sw.count(func(s *SweepStats) { s.Replaced++ })
	if sw.listener.WantsExpired() {
		sw.listener.Expired(sw.nameOf(id), strings.Clone(key), true)
	}
}
