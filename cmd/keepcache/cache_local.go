package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/glob"
)

// local is a cache that this process has open.
type local struct {
	db       *keepcache.DB
	unlocked bool // it is open with NoLock
}

func (l *local) find(bucket, key string, _ bool) (*entry, error) {
	e, found, err := l.db.Bucket(bucket).Stat(key)
	switch {
	case err != nil:
		return nil, err
	case found:
		return &entry{Entry: e}, nil
	case l.db.Stats().Damaged > 0:
		return nil, damagedEntry(bucket, key)
	}
	return nil, absentKey(key, bucket)
}

func (l *local) exists(bucket, key string) (bool, error) { return l.db.Bucket(bucket).Exists(key) }

func (l *local) list(q listing) iter.Seq2[*entry, error] {
	return func(yield func(*entry, error) bool) {
		var match *glob.Glob
		if q.glob != "" {
			var err error
			if match, err = glob.Parse(q.glob); err != nil {
				yield(nil, err)
				return
			}
		}
		for e, err := range l.db.Bucket(q.bucket).After(q.after, q.prefix) {
			switch {
			case err != nil:
			case match != nil && !match.Match(e.Key), q.tag != "" && !slices.Contains(e.Tags, q.tag):
				continue
			}
			if !yield(&entry{Entry: e}, err) {
				return
			}
		}
	}
}

func (l *local) buckets() ([]string, error)      { return l.db.Buckets() }
func (l *local) stats() (keepcache.Stats, error) { return l.db.Stats(), nil }

func (l *local) put(bucket, key string, v value, ttl time.Duration, onlyNew bool) (bool, error) {
	stored, err := v.stored()
	switch {
	case err != nil:
		return false, err
	case onlyNew:
		return l.db.Bucket(bucket).Add(key, stored, ttl)
	}
	err = l.db.Bucket(bucket).Set(key, stored, ttl)
	return err == nil, err
}

// restore sets the entry with exactly its deadline. The library takes a lifetime and rounds the deadline up to
// the millisecond, so the lifetime given is most of a millisecond shorter; where even so too much time
// passed before the library looked at the clock, another try follows.
func (l *local) restore(bucket, key string, v value, expires int64) (bool, error) {
	stored, err := v.stored()
	if err != nil {
		return false, err
	}
	b := l.db.Bucket(bucket)
	if expires == 0 {
		return true, b.Set(key, stored, keepcache.NoExpiry)
	}
	const slack, tries = 900 * time.Microsecond, 20
	deadline := time.UnixMilli(expires)
	for range tries {
		left := time.Until(deadline) // saturates
		if left <= slack {
			return false, nil
		}
		if err := b.Set(key, stored, min(left-slack, keepcache.NoExpiry-1)); err != nil {
			return false, err
		}
		e, found, err := b.Stat(key)
		if err != nil || !found || !e.FreshUntil.After(deadline) {
			return true, nil
		}
	}
	return true, nil
}

// together: the library flushes together what is written together.
func (l *local) together() int { return batchLines }

func (l *local) delete(bucket, key string) (bool, error) { return l.db.Bucket(bucket).Delete(key) }

func (l *local) touch(bucket, key string, ttl time.Duration) (bool, error) {
	return l.db.Bucket(bucket).Touch(key, ttl)
}

// clear removes all entries, and frees their room at once: no daemon may be there to do it.
func (l *local) clear(ctx context.Context, bucket, prefix string, drop bool) (n int, err error) {
	b := l.db.Bucket(bucket)
	if prefix != "" {
		return b.DeletePrefix(ctx, prefix)
	}
	if n, err = b.Len(); err != nil {
		return 0, err
	}
	if drop {
		_, err = l.db.DropBucket(bucket)
	} else {
		err = b.Clear(ctx)
	}
	if err != nil {
		return 0, err
	}
	_, err = l.db.Sweep(ctx)
	return n, err
}

func (l *local) sweep(ctx context.Context) (int, error) { return l.db.Sweep(ctx) }

func (l *local) compact(ctx context.Context) (before, after int64, err error) {
	before = l.db.Stats().FileBytes
	err = l.db.Compact(ctx)
	return before, l.db.Stats().FileBytes, err
}

func (l *local) backup(ctx context.Context, w io.Writer) error { return l.db.Backup(ctx, w) }

// isDamagedEntry reports whether an element of list stands for a damaged entry, behind which the range goes on.
func isDamagedEntry(e *entry, err error) bool {
	return errors.Is(err, keepcache.ErrCorrupt) && e != nil && e.Key != ""
}
