package engine

import "github.com/keepcache/keepcache/internal/format"

// A sliding lifetime begins anew with each read. The record says how long it is, and memory keeps the deadline that the
// last read gave, so that a read costs no write. When that deadline is further from the record's own than slidingPart
// of the lifetime, the read writes the record anew, as keepcache.Bucket.Touch would: what memory may drop, and what a
// crash may cost, is never more than that part. Close writes what is left.
const slidingPart = 8

// slideTries is how often a read tries to prolong a life that others write anew at the same time.
const slideTries = 3

// Slide prolongs the life of an entry that was read, if it is live and has a lifetime that reads prolong. r says then what it has become.
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

// trySlide reports false if the entry is not any more what was read.
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
	if format.Between(r.saved, until) > lifetime/slidingPart && e.saveSlid(at, key, r, false) == nil {
		return true
	}
	// Where the write failed, memory alone knows. That is no matter for a reader.
	hash := e.memory.Hash(r.ID, key)
	return e.memory.Slide(e.clock, hash, r.ID, key, r.Header.Revision, r.deadline(), until)
}

// saveSlid writes an entry with the times that reads have given it. It changes nothing that anybody sees. later says
// that the caller has it flushed.
func (e *Engine) saveSlid(at *Ref, key string, r *Reading, later bool) error {
	t := r.ParseOptions()
	t.AsOf = t.Since(r.Header.Revision)
	d := &Write{Key: key, Header: r.Header, Stored: format.Frame(r.Header, &t, r.Value), quiet: true, later: later, SameLife: true}
	d.Expect(r)
	return e.Write(at, d)
}

// saveSlidKeys writes the times of entries that reads have prolonged. What has changed meanwhile is left out. With
// SyncAlways too they are on disk only after the commit that has to follow: a flush for each would take minutes.
func (e *Engine) saveSlidKeys(found []format.EntryKey) error {
	for _, s := range found {
		name := e.nameOf(s.ID)
		if name == "" {
			continue
		}
		at := newRef(name)
		r, err := e.Read(at, s.Key, true)
		if err == nil && r.Held && r.Header.ExpiresAt > r.saved {
			err = e.saveSlid(at, s.Key, &r, true)
		}
		if err != nil && err != ErrMissed {
			return err
		}
	}
	return nil
}

// rearm writes entries that the sweeper found due and that live, so that it can move their rows.
func (e *Engine) rearm(spared []format.EntryKey) error {
	if err := e.saveSlidKeys(spared); err != nil {
		return err
	}
	return e.commits.commit()
}
