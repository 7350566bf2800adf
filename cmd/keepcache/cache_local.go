package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/glob"
	"github.com/keepcache/keepcache/internal/rewrite"
)

// local is a cache that this process has open.
type local struct {
	db       *keepcache.DB
	unlocked bool // opened with NoLock
	fresh    bool // it is a new file, which is removed if the command fails
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
		for e, err := range l.db.Bucket(q.bucket).Scan(&q.ScanOptions) {
			if err == nil && match != nil && !match.Match(e.Key) {
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

func (l *local) set(bucket string, w write) error {
	stored, err := w.value.stored()
	if err != nil {
		return err
	}
	r := rewrite.Write{Key: w.key, Value: stored, TTL: w.ttl, Tags: w.tags, Retag: len(w.tags) > 0}
	r.Look(l.db.Bucket(bucket))
	return r.Set(l.db.Bucket(bucket))
}

func (l *local) add(bucket string, w write) (bool, error) {
	stored, err := w.value.stored()
	if err != nil {
		return false, err
	}
	return l.db.Bucket(bucket).WithTags(w.tags...).Add(w.key, stored, w.ttl)
}

func (l *local) increment(bucket, key string, by int64, ttl time.Duration) (int64, error) {
	return l.db.Bucket(bucket).Increment(key, by, ttl)
}

func (l *local) invalidate(tags []string) error { return l.db.InvalidateTags(tags...) }

func (l *local) restore(bucket string, e keepcache.Entry, v value) (bool, error) {
	stored, err := v.stored()
	if err == nil {
		err = l.db.Bucket(bucket).Restore(e, stored)
	}
	return restored(e, err)
}

// restored reports whether an entry was restored. An entry that has expired is not an error.
func restored(e keepcache.Entry, err error) (bool, error) {
	if errors.Is(err, keepcache.ErrInvalidTTL) && !e.StaleUntil.IsZero() && !time.Now().Before(e.StaleUntil) {
		return false, nil
	}
	return err == nil, err
}

// together: the library flushes together what is written together.
func (l *local) together() int { return batchLines }

func (l *local) delete(bucket, key string) (bool, error) { return l.db.Bucket(bucket).Delete(key) }

func (l *local) touch(bucket, key string, ttl time.Duration) (bool, error) {
	return l.db.Bucket(bucket).Touch(key, ttl)
}

// clear removes all entries and frees their space at once: there may be no daemon to do it later.
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

// isDamagedEntry reports whether an element of list stands for a damaged entry, after which the range continues.
func isDamagedEntry(e *entry, err error) bool {
	return errors.Is(err, keepcache.ErrCorrupt) && e != nil && e.Key != ""
}
