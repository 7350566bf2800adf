package keepcache

import (
	"time"

	"github.com/keepcache/keepcache/internal/format"
)

// A sliding lifetime begins anew with each read. The record says how long it is, and memory keeps the deadline
// that the last read gave, so that a read costs no write. When that deadline is further from the record's own
// than slidingPart of the lifetime, the read writes the record anew, as a Touch would: what memory may drop, and
// what a crash may cost, is never more than that part. Close writes what is left.
const slidingPart = 8

// slidingMillis returns the lifetime that reads give an entry anew, in milliseconds, or 0 if they do not.
func (b *Bucket) slidingMillis(ttl time.Duration) int64 {
	if !b.sliding || ttl == NoExpiry {
		return 0
	}
	return format.Span(ttl)
}

// slideTries is how often a read tries to prolong a life that others write anew at the same time.
const slideTries = 3

// slid prolongs the life of a live entry that was read.
func (b *Bucket) slid(key string, r *reading) {
	if !b.sliding || b.db.options.ReadOnly {
		return
	}
	for range slideTries {
		if b.trySlide(key, r) {
			return
		}
		again, err := b.read(key)
		if err != nil {
			return
		}
		r = &again
	}
}

// trySlide reports false if the entry is not any more what was read.
func (b *Bucket) trySlide(key string, r *reading) bool {
	if !r.live || len(r.options) == 0 {
		return true
	}
	lifetime := r.traits().Lifetime
	until := format.Deadline(b.db.clock.Now(), format.Duration(min(lifetime, format.MaxDeadline)))
	if lifetime == 0 || until <= r.header.FreshUntil {
		return true
	}
	r.header.Slide(until)
	if format.Between(r.saved, until) > lifetime/slidingPart && b.saveSlid(key, r, false) == nil {
		return true
	}
	// Where the write failed, memory alone knows. That is no matter for a reader.
	hash := b.db.memory.Hash(r.id, key)
	return b.db.memory.Slide(b.db.clock, hash, r.id, key, r.header.Revision, r.deadline(), until)
}

// saveSlid writes an entry with the times that reads have given it. It changes nothing that anybody sees. later says
// that the caller has it flushed.
func (b *Bucket) saveSlid(key string, r *reading, later bool) error {
	t := r.traits()
	t.AsOf = t.Since(r.header.Revision)
	d := &draft{key: key, header: r.header, stored: format.Frame(r.header, &t, r.value), quiet: true, later: later, sameLife: true}
	d.expect(*r)
	return b.write(d)
}

// saveSlidKeys writes the times of entries that reads have prolonged. What has changed meanwhile is left out. With
// SyncAlways too they are on disk only after the commit that has to follow: a flush for each would take minutes.
func (db *DB) saveSlidKeys(found []format.EntryKey) error {
	names := make(map[uint64]string)
	db.mu.RLock()
	for name, ns := range db.buckets {
		names[ns.id.Load()] = name
	}
	db.mu.RUnlock()
	for _, s := range found {
		name, ok := names[s.ID]
		if !ok {
			continue
		}
		b := db.Bucket(name)
		r, err := b.read(s.Key)
		if err == nil && r.held && r.header.FreshUntil > r.saved {
			err = b.saveSlid(s.Key, &r, true)
		}
		if err != nil && err != errMissed {
			return err
		}
	}
	return nil
}

// rearm writes entries that the sweeper found due and that live, so that it can move their rows.
func (db *DB) rearm(spared []format.EntryKey) error {
	if err := db.saveSlidKeys(spared); err != nil {
		return err
	}
	return db.commits.commit()
}
