package keepcache

import (
	"time"

	"github.com/keepcache/keepcache/internal/clock"
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
	return b.db.memory.slide(b.db.clock, b.db.memory.hash(r.id, key), r.id, key, r, until)
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

// slide notes until when an entry lives, if memory has it as it was read and its deadline has not been reached, and reports
// whether it did. Who has to know that no such note is on its way any more, made before a deadline and not yet to be seen, takes
// the lock for himself.
func (m *memory) slide(c *clock.Clock, hash, id uint64, key string, r *reading, until int64) bool {
	s := m.shardOf(hash)
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.table.find(hash, id, key)
	if e == nil || e.revision != r.header.Revision || e.stored == nil {
		return false
	}
	old := e.slid.Load()
	if c.Reached(max(r.deadline(), old)) && !without.deadlines {
		return false
	}
	for ; until > old && !e.slid.CompareAndSwap(old, until); old = e.slid.Load() {
	}
	return true
}

// freshUntil returns until when memory knows the entry of a draft to be fresh, or 0. The caller holds the shard's
// lock.
func (m *memory) freshUntil(d *draft) int64 {
	e := m.shardOf(d.hash).table.find(d.hash, d.id, d.key)
	if e == nil || e.stored == nil {
		return 0
	}
	return max(format.ReadHeader(format.RecordIn(e.stored)).FreshUntil, e.slid.Load())
}

// livesUntil returns when an entry is gone, reads that prolonged its life included. The caller holds the
// shard's lock.
func (e *entry) livesUntil() int64 {
	slid := e.slid.Load()
	if slid == 0 || e.stored == nil {
		return e.goneAt
	}
	h := format.ReadHeader(format.RecordIn(e.stored))
	h.Slide(slid)
	return h.GoneAt
}

// lives reports whether memory knows that an entry, of which the file says that it is gone, lives at a time that has come. See
// slide for the lock.
func (m *memory) lives(id uint64, key string, now int64) bool {
	hash := m.hash(id, key)
	s := m.shardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.table.find(hash, id, key)
	return e != nil && e.slid.Load() != 0 && e.livesUntil() > now
}

// holds reports whether memory knows that an entry lives at a time of which the file says that it is gone: it
// was written anew, or reads have prolonged its life. See slide for the lock.
func (m *memory) holds(id uint64, key string, now int64) bool {
	hash := m.hash(id, key)
	s := m.shardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.table.find(hash, id, key)
	return e != nil && e.stored != nil && (e.pinned || e.slid.Load() != 0) && e.livesUntil() > now
}

// outlives reports whether a pinned entry that was to be gone lives at a time that has come, because reads have prolonged its life
// since it was collected: a commit may take its time. See slide for the lock.
func (m *memory) outlives(p *pin, now int64) bool {
	if p.stored == nil || len(format.OptionBytes(format.RecordIn(p.stored))) == 0 {
		return false
	}
	s := m.shardOf(p.entry.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.entry.revision == p.revision && p.entry.livesUntil() > now
}

// slidKey is an entry whose life reads have prolonged.
type slidKey struct {
	id  uint64
	key string
}

// slidKeys returns the entries of which memory alone knows how long they live.
func (m *memory) slidKeys() (found []slidKey) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		for e := range s.table.all {
			if e.slid.Load() != 0 {
				found = append(found, slidKey{e.id, cloneKey(e.key)})
			}
		}
		s.mu.RUnlock()
	}
	return found
}

// saveSlidKeys writes the times of entries that reads have prolonged. What has changed meanwhile is left out. With
// SyncAlways too they are on disk only after the commit that has to follow: a flush for each would take minutes.
func (db *DB) saveSlidKeys(found []slidKey) error {
	names := make(map[uint64]string)
	db.mu.RLock()
	for name, ns := range db.buckets {
		names[ns.id.Load()] = name
	}
	db.mu.RUnlock()
	for _, s := range found {
		name, ok := names[s.id]
		if !ok {
			continue
		}
		b := db.Bucket(name)
		r, err := b.read(s.key)
		if err == nil && r.held && r.header.FreshUntil > r.saved {
			err = b.saveSlid(s.key, &r, true)
		}
		if err != nil && err != errMissed {
			return err
		}
	}
	return nil
}

// rearm writes entries that the sweeper found due and that live, so that it can move their rows.
func (db *DB) rearm(spared []slidKey) error {
	if err := db.saveSlidKeys(spared); err != nil {
		return err
	}
	return db.commits.commit()
}
