package engine

import (
	"strings"

	"github.com/keepcache/keepcache/internal/clock"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
)

// tell tells of expired entries that were removed from the file.
func (sw *sweeper) tell(gone []store.ExpiryRow) {
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

// tellPinned tells of entries that expired before they came into the file. changes are what became of pins.
func (sw *sweeper) tellPinned(pins []memory.Pin, changes []*store.Change) {
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

// lapsed reports whether what a write has just replaced had expired, and no commit knows of it. It costs next to
// nothing where memory had nothing of the key alone. The caller holds the shard's lock.
func (d *Write) lapsed(c *clock.Clock) bool {
	b := &d.before
	return b.Pinned && b.Stored != nil && !b.Taken && b.Lives != format.Never && !c.IsFar(b.Lives) && b.Lives <= format.Millis(c.Now())
}

// replacedInMemory counts and tells of expired entries that writes, which were published and not taken back, have replaced or removed.
func (sw *sweeper) replacedInMemory(writes []*Write) {
	for _, d := range writes {
		if d.late {
			sw.replaced(d.id, d.Key)
		}
	}
}

// replacedInFile is the same for what the file had, after a transaction has made changes.
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
