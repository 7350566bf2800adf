// Package rewrite stores values from outside of the program that a cache is of: by hand, on the page or with the
// command.
package rewrite

import (
	"time"

	"github.com/keepcache/keepcache"
)

// Write is a value to be stored.
type Write struct {
	Key   string
	Value any
	TTL   time.Duration // as in Bucket.Set; only if Until is zero
	Until time.Time     // as in Bucket.SetUntil, but not for never
	Tags  []string      // of the entry, if Retag
	Retag bool          // it does not keep the tags that it has

	old keepcache.Entry // without its value
}

// Look looks at the entry that is there, of which it reads the value too, and returns the size of that.
func (w *Write) Look(b *keepcache.Bucket) (size int) {
	old, found, err := b.Stat(w.Key)
	if w.old = (keepcache.Entry{}); err == nil && found { // what else is wrong with it, the write says or mends
		w.old = keepcache.Entry{ExpiresAt: old.ExpiresAt, StaleUntil: old.StaleUntil, Sliding: old.Sliding, Tags: old.Tags}
	}
	return old.Size
}

// Set stores a value. The entry that Look has found, a stale one too, keeps its tags; it may be served stale for as
// long as before, and slides if it did. ETag and the times of loading belong to the old value, and go: with them the
// next load could find that the value of the source is still the one that is here.
func (w *Write) Set(b *keepcache.Bucket) error {
	old, tags := &w.old, w.Tags
	if !w.Retag {
		tags = old.Tags
	}
	forever := old.StaleUntil.IsZero()
	staleFor := old.StaleUntil.Sub(old.ExpiresAt) // saturates
	if old.ExpiresAt.IsZero() || !forever && staleFor <= 0 && (old.Sliding == 0 || w.Until.IsZero()) {
		b = b.WithTags(tags...)
		if w.Until.IsZero() {
			return b.Set(w.Key, w.Value, w.TTL)
		}
		return b.SetUntil(w.Key, w.Value, w.Until)
	}
	e := keepcache.Entry{Key: w.Key, Tags: tags, ExpiresAt: w.Until, Sliding: old.Sliding}
	if w.Until.IsZero() {
		ttl := w.TTL
		if ttl == 0 {
			ttl = b.DefaultTTL()
		}
		switch {
		case ttl < 0:
			return b.Set(w.Key, w.Value, ttl) // which refuses it
		case ttl == keepcache.NoExpiry:
			e.Sliding = 0
			return b.Restore(e, w.Value)
		case e.Sliding > 0:
			e.Sliding = ttl
		}
		e.ExpiresAt = time.Now().Add(ttl)
	}
	if !forever {
		e.StaleUntil = e.ExpiresAt.Add(staleFor)
	}
	return b.Restore(e, w.Value)
}
