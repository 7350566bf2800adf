package keepcache

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
)

// SetMany stores all values under their keys for the given lifetime, or none of them: a crash leaves no part of them
// without the rest. Other goroutines may see part of them for an instant. An empty map writes nothing; the bucket's
// name and the lifetime are checked all the same.
func (b *Bucket) SetMany(values map[string]any, ttl time.Duration) error {
	return setMany(b, values, ttl)
}

func setMany[T any](b *Bucket, values map[string]T, ttl time.Duration) error {
	writes, all := make([]*engine.Write, 0, len(values)), make([]engine.Write, len(values))
	for key, value := range values {
		d := &all[len(writes)]
		if err := b.prepareIn(d, key, value, ttl); err != nil {
			return b.fail("set", key, err)
		}
		writes = append(writes, d)
	}
	if len(writes) == 0 {
		_, err := b.canWrite(ttl)
		return b.fail("set", "", err)
	}
	if err := b.write(writes...); err != nil {
		return b.fail("set", "", err)
	}
	b.db.counts.sets.Add(uint64(len(writes)))
	for key := range values { // not those of the writes, which would keep their records alive
		b.note(EventSet, key)
	}
	return nil
}

// GetMany returns the live entries among keys. Absent keys are missing in the result, which is nil only with an error.
func (b *Bucket) GetMany(keys []string) (map[string]Entry, error) {
	if err := b.canRead(); err != nil {
		return nil, b.fail("get", "", err)
	}
	entries := make(map[string]Entry, len(keys))
	for _, key := range keys {
		r, err := b.read(key)
		b.counted(key, &r)
		if err != nil {
			return nil, b.fail("get", key, err)
		}
		if r.Live {
			b.slid(key, &r)
			entries[key] = entryOf(key, &r)
		}
	}
	return entries, nil
}

// DeleteMany removes all keys, or none of them if it fails, and returns how many were there.
func (b *Bucket) DeleteMany(keys []string) (deleted int, err error) {
	deleted, err = b.deleteMany(keys)
	return deleted, b.fail("delete", "", err)
}

func (b *Bucket) deleteMany(keys []string) (deleted int, err error) {
	if err := b.db.writable(); err != nil {
		return 0, err
	}
	if !format.ValidName(b.at.Name) {
		return 0, ErrInvalidName
	}
	keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	b.voidFlights(keys...)
	for range conflictTries {
		var writes []*engine.Write
		var live []string
		for _, key := range keys {
			r, err := b.read(key)
			if err != nil {
				return 0, err
			}
			if r.Live {
				live = append(live, key)
			}
			if r.IsStored() {
				d := &engine.Write{Key: key}
				d.Expect(&r)
				writes = append(writes, d)
			}
		}
		if len(writes) == 0 {
			return 0, b.db.engine.WaitDurable()
		}
		if err = b.write(writes...); err == nil {
			b.db.counts.deletes.Add(uint64(len(live)))
			for _, key := range live {
				b.note(EventDelete, key)
			}
			return len(live), nil
		}
		if err != engine.ErrMissed {
			return 0, err
		}
	}
	return 0, ErrContended
}

// DeletePrefix removes the entries whose key begins with prefix and returns how many of them were live. The prefix is
// literal. An empty one removes everything, entry by entry; Clear is quicker. DeletePrefix works in chunks and is not
// atomic: if it fails or ctx ends it, the entries counted so far are gone. Entries that are set while it runs may stay
// or go.
func (b *Bucket) DeletePrefix(ctx context.Context, prefix string) (deleted int, err error) {
	if err = b.db.writable(); err != nil {
		return 0, b.fail("delete prefix", prefix, err)
	}
	b.voidFlightsOf(prefix)
	scanErr := b.scan(&ScanOptions{Prefix: prefix, KeysOnly: true}, func(found []engine.ScanEntry) bool {
		if err = ctx.Err(); err != nil {
			return false
		}
		keys := make([]string, len(found))
		for i, f := range found {
			keys[i] = f.Key
		}
		var n int
		n, err = b.deleteMany(keys)
		deleted += n
		return err == nil
	})
	if err = errors.Join(scanErr, err); err == nil {
		err = b.db.engine.WaitDurable()
	}
	if err != nil {
		return deleted, b.fail("delete prefix", prefix, err)
	}
	return deleted, nil
}
