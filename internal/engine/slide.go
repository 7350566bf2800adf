package engine

import "github.com/keepcache/keepcache/internal/format"

// A sliding lifetime starts over with each read. The record has its length, and memory keeps the deadline that the last
// read gave, so a read costs no write. If that deadline is later than the record's by more than 1/slidingShare of the
// lifetime, the read writes the record again, as keepcache.Bucket.Touch would. So neither an eviction from memory nor a
// crash can cost more than that share. Close writes what is left.
const slidingShare = 8

// slideTries is how often a read tries to prolong a life while others write the entry.
const slideTries = 3

// Slide prolongs the life of an entry that was read, if the entry is live and has a sliding lifetime. It updates r.
func (e *Engine) Slide(at *Ref, key string, r *Reading) {
	for range slideTries {
		if e.trySlide(at, key, r) {
			return
		}
		again, err := e.Read(at, key, true)
		if err != nil {
			return
		}
		r = &again
	}
}

// trySlide reports false if the entry is no longer what was read.
func (e *Engine) trySlide(at *Ref, key string, r *Reading) bool {
	if !r.Live || len(r.Options) == 0 {
		return true
	}
	lifetime := r.ParseOptions().Lifetime
	until := format.Deadline(e.clock.Now(), format.Duration(min(lifetime, format.MaxDeadline)))
	if lifetime == 0 || until <= r.Header.ExpiresAt {
		return true
	}
	r.Header.Slide(until)
	if format.Between(r.recordedUntil, until) > lifetime/slidingShare && e.saveSlid(at, key, r, false) == nil {
		return true
	}
	// If the write failed, only memory has the new deadline. Readers do not notice.
	hash := e.memory.Hash(r.ID, key)
	return e.memory.Slide(e.clock, hash, r.ID, key, r.Header.Revision, r.deadline(), until)
}

// saveSlid writes an entry with the times that reads have given it. Nobody sees a change. deferFlush says that the
// caller flushes the write.
func (e *Engine) saveSlid(at *Ref, key string, r *Reading, deferFlush bool) error {
	t := r.ParseOptions()
	t.AsOf = t.Since(r.Header.Revision)
	d := &Write{
		Key: key, Header: r.Header, Stored: format.Frame(r.Header, &t, r.Value),
		quiet: true, deferFlush: deferFlush, SameLife: true,
	}
	d.Expect(r)
	return e.Write(at, d)
}

// saveSlidKeys writes the times of entries whose life reads have prolonged. It leaves out entries that have changed
// meanwhile. The writes are durable only after the next commit, even with SyncAlways: a flush for each would take
// minutes.
func (e *Engine) saveSlidKeys(found []format.EntryKey) error {
	for _, s := range found {
		name := e.nameOf(s.ID)
		if name == "" {
			continue
		}
		at := newRef(name)
		r, err := e.Read(at, s.Key, true)
		if err == nil && r.Held && r.Header.ExpiresAt > r.recordedUntil {
			err = e.saveSlid(at, s.Key, &r, true)
		}
		if err != nil && err != ErrMissed {
			return err
		}
	}
	return nil
}

// saveSpared writes entries that the sweeper found due but that still live, so that it can move their rows.
func (e *Engine) saveSpared(spared []format.EntryKey) error {
	if err := e.saveSlidKeys(spared); err != nil {
		return err
	}
	return e.commits.commit()
}
