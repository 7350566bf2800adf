package engine

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/ground"
	"github.com/keepcache/keepcache/internal/jsonpack"
	"github.com/keepcache/keepcache/internal/verify"
)

// cache is an engine opened by a test, with those calls of the root package that the tests here need.
type cache struct {
	*Engine
	ground  *ground.Ground
	closing sync.Once
	err     error // of Close
}

// handles counts the open caches of each path, so that closing the last one checks the file.
var handles = make(map[string]int)

// open opens the cache at path. Fields of conf that are 0 get the default of the root package, and a time of -1 is off.
// When the test ends, it closes the cache and checks the file.
func open(t *testing.T, path string, conf Config) *cache {
	t.Helper()
	db := openUnchecked(t, path, conf)
	handles[path]++
	t.Cleanup(func() {
		require.NoError(t, db.Close())
		if handles[path]--; handles[path] == 0 {
			checkFile(t, path)
		}
	})
	return db
}

// openUnchecked is open, but leaves closing and checking to the test.
func openUnchecked(t *testing.T, path string, conf Config) *cache {
	t.Helper()
	conf.Quarantine = true
	conf.LockTimeout = cmp.Or(conf.LockTimeout, time.Second)
	conf.MaxBytes = cmp.Or(conf.MaxBytes, 1<<30)
	conf.MemoryBytes = cmp.Or(conf.MemoryBytes, 64<<20)
	conf.JournalBytes = cmp.Or(conf.JournalBytes, 128<<20)
	conf.CommitBytes = cmp.Or(conf.CommitBytes, 24<<20)
	conf.CompactBytes = cmp.Or(conf.CompactBytes, 8<<20)
	conf.SyncInterval = cmp.Or(conf.SyncInterval, syncInterval)
	conf.CommitInterval = cmp.Or(conf.CommitInterval, 5*time.Second)
	conf.SweepInterval = cmp.Or(conf.SweepInterval, time.Second)
	conf.Log = slog.New(slog.DiscardHandler)
	if conf.Listener == nil {
		conf.Listener = nopListener{}
	}
	conf.Ground = ground.New()
	in, real, err := disk.OpenDir(path)
	require.NoError(t, err)
	beside.Remember(real)
	e, err := Open(in, real, conf)
	require.NoError(t, err)
	return &cache{Engine: e, ground: conf.Ground}
}

// syncInterval is how long after a write it is durable at the latest, by default.
const syncInterval = 100 * time.Millisecond

// checkFile checks the closed cache at path by Verify and by bbolt's own check, and that there are no files left beside
// it.
func checkFile(t *testing.T, path string) {
	t.Helper()
	db := openUnchecked(t, path, Config{SweepInterval: -1})
	report, err := db.Verify(context.Background())
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	require.NoError(t, db.Close())

	plain, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, plain.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			require.NoError(t, err)
		}
		return nil
	}))
	require.NoError(t, plain.Close())
	left, err := filepath.Glob(path + "-*")
	require.NoError(t, err)
	require.Empty(t, left, "files left beside the closed cache")
}

// copyCache copies a cache that may be open.
func copyCache(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", "-journal"} {
		content, err := os.ReadFile(from + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to+suffix, content, 0o600))
	}
}

// Close closes the engine. Later calls return the error of the first.
func (db *cache) Close() error {
	db.closing.Do(func() {
		db.err = db.Engine.Close(db.Shut())
		db.ground.Close()
	})
	return db.err
}

// Verify commits what was written and checks the cache.
func (db *cache) Verify(ctx context.Context) (verify.Report, error) {
	if !db.conf.ReadOnly {
		_ = db.Commit()
	}
	return db.Engine.Verify(ctx)
}

// Bucket returns a handle of a bucket.
func (db *cache) Bucket(name string) *bucket { return &bucket{db: db, at: Ref{Name: name}} }

// bucket is a handle of a bucket. A lifetime of 0 is none.
type bucket struct {
	db   *cache
	at   Ref
	tags format.Tags
}

// WithTags returns a handle of the same bucket whose writes have a tag.
func (b *bucket) WithTags(tag string) *bucket {
	return &bucket{db: b.db, at: Ref{Name: b.at.Name}, tags: append(format.Tags{byte(len(tag))}, tag...)}
}

// prepare makes a write for a key.
func (b *bucket) prepare(key string, value any, ttl time.Duration) (*Write, error) {
	now := b.db.Now()
	h := format.Header{WrittenAt: format.Millis(now), ExpiresAt: format.Deadline(now, cmp.Or(ttl, format.Forever))}
	h.StaleUntil = h.ExpiresAt
	encoded, err := jsonpack.Append(nil, value, format.MaxValueBytes)
	return &Write{Key: key, Header: h, Stored: format.Frame(h, &format.Options{Tags: b.tags}, encoded)}, err
}

func (b *bucket) Set(key string, value any, ttl time.Duration) error {
	d, err := b.prepare(key, value, ttl)
	if err != nil {
		return err
	}
	return b.db.Write(&b.at, d)
}

// SetMany sets all of the values, or none.
func (b *bucket) SetMany(values map[string]any, ttl time.Duration) error {
	var drafts []*Write
	for key, value := range values {
		d, err := b.prepare(key, value, ttl)
		if err != nil {
			return err
		}
		drafts = append(drafts, d)
	}
	return b.db.Write(&b.at, drafts...)
}

func (b *bucket) Get(key string, dst any) (found bool, err error) {
	r, err := b.db.Read(&b.at, key, false)
	if err != nil || !r.Live {
		return false, err
	}
	return true, jsonpack.Unmarshal(r.Value, dst)
}

func (b *bucket) Exists(key string) (bool, error) {
	r, err := b.db.Read(&b.at, key, false)
	return r.Live && err == nil, err
}

// modify makes the write that decide returns for the entry of a key, unless the entry has changed meanwhile. If decide
// returns nil there is nothing to write.
func (b *bucket) modify(key string, decide func(r *Reading) (*Write, error)) error {
	r, err := b.db.Read(&b.at, key, false)
	if err != nil {
		return err
	}
	d, err := decide(&r)
	if err != nil {
		return err
	}
	if d == nil {
		return b.db.WaitDurable()
	}
	d.Expect(&r)
	return b.db.Write(&b.at, d)
}

// Add sets a key that is not there, and reports whether it did.
func (b *bucket) Add(key string, value any, ttl time.Duration) (added bool, err error) {
	err = b.modify(key, func(r *Reading) (*Write, error) {
		if added = !r.Live; !added {
			return nil, nil
		}
		return b.prepare(key, value, ttl)
	})
	return added, err
}

// Delete removes a key and reports whether it was there.
func (b *bucket) Delete(key string) (found bool, err error) {
	err = b.modify(key, func(r *Reading) (*Write, error) {
		if found = r.Live; !r.IsStored() {
			return nil, nil
		}
		return &Write{Key: key}, nil
	})
	return found, err
}

// DeleteMany deletes all of the keys, or none. The keys must exist.
func (b *bucket) DeleteMany(keys []string) error {
	var drafts []*Write
	for _, key := range keys {
		drafts = append(drafts, &Write{Key: key})
	}
	return b.db.Write(&b.at, drafts...)
}

// Touch gives an existing key another lifetime.
func (b *bucket) Touch(key string, ttl time.Duration) error {
	return b.modify(key, func(r *Reading) (*Write, error) {
		h, t := r.Header, r.ParseOptions()
		t.AsOf = t.Since(h.Revision)
		h.ExpiresAt = format.Deadline(b.db.Now(), ttl)
		h.StaleUntil = h.ExpiresAt
		return &Write{Key: key, Header: h, Stored: format.Frame(h, &t, r.Value)}, nil
	})
}

// Increment adds to the integer of a key; an absent key counts as 0. The new entry has no lifetime.
func (b *bucket) Increment(key string, delta int) error {
	return b.modify(key, func(r *Reading) (*Write, error) {
		sum := 0
		if r.Live {
			if err := jsonpack.Unmarshal(r.Value, &sum); err != nil {
				return nil, err
			}
		}
		return b.prepare(key, sum+delta, 0)
	})
}

// All returns the live entries, in key order.
func (b *bucket) All() (live []ScanEntry, err error) {
	err = b.db.Scan(&b.at, Scan{}, func(found []ScanEntry) bool {
		live = append(live, slices.DeleteFunc(found, func(f ScanEntry) bool {
			return f.Damage == nil && !b.db.StateOf(&f.Header, f.Options).Live
		})...)
		return true
	})
	for _, f := range live {
		if f.Damage != nil {
			return nil, f.Damage
		}
	}
	return live, err
}

// nopListener ignores all events.
type nopListener struct{}

func (nopListener) WantsWrites() bool             { return false }
func (nopListener) Published([]string, []Written) {}
func (nopListener) Cleared(string)                {}
func (nopListener) WantsExpired() bool            { return false }
func (nopListener) WantsEvicted() bool            { return false }
func (nopListener) WantsProgress() bool           { return false }
func (nopListener) Expired(_, _ string, _ bool)   {}
func (nopListener) Evicted(_, _ string)           {}
func (nopListener) Progress(string, int64, int64) {}
func (nopListener) Compacted(_, _ int64)          {}
func (nopListener) Unavailable(error)             {}
func (nopListener) Healed(string)                 {}
func (nopListener) Quarantined(string, error)     {}
func (nopListener) BadJournal(error)              {}
