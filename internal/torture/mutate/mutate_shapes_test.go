//go:build unix

package mutate_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
	"github.com/keepcache/keepcache/internal/torture/mutate"
)

// The caches that are damaged are of several shapes. Each has an earlier and a later state; what the later one has was
// set in between, so that a page of the earlier one is a realistic lost write.
//
// A value says under which key of which bucket it was set, as which of how many, and how long it is.

func shapeValue(bucket, key string, n, size int) string {
	return fmt.Sprintf("%s|%s|%d|%d|%s", bucket, key, n, size, strings.Repeat(string(rune('a'+n%26)), size))
}

// checkShapeValue returns what is wrong with a value that was found under a key.
func checkShapeValue(bucket, key, value string) error {
	parts := strings.SplitN(value, "|", 5)
	if len(parts) == 5 && parts[0] == bucket && parts[1] == key {
		n, err := strconv.Atoi(parts[2])
		size, err2 := strconv.Atoi(parts[3])
		if err == nil && err2 == nil && size >= 0 && size <= 1<<20 && value == shapeValue(bucket, key, n, size) {
			return nil
		}
	}
	return fmt.Errorf("%q in bucket %q is %.100q", key, bucket, value)
}

type shape struct {
	name    string
	buckets int
	keys    int           // in each bucket
	size    int           // of a value, in bytes
	ttl     time.Duration // of every second entry; 0 for none
	holes   bool          // most of the entries of the earlier state are deleted
	crashed bool          // it was not closed, and has a journal
}

var shapes = []shape{
	{name: "small", buckets: 2, keys: 12, size: 40},
	{name: "many buckets", buckets: 40, keys: 8, size: 30, ttl: time.Hour},
	{name: "expiring", buckets: 2, keys: 500, size: 60, ttl: 10 * time.Minute},
	{name: "large values", buckets: 2, keys: 8, size: 40_000, ttl: time.Hour},
	{name: "holes", buckets: 3, keys: 400, size: 200, ttl: time.Hour, holes: true},
	{name: "crashed", buckets: 3, keys: 60, size: 100, ttl: time.Hour, crashed: true},
	{name: "crashed with holes", buckets: 3, keys: 300, size: 300, holes: true, crashed: true},
}

func (s *shape) bucket(i int) string { return fmt.Sprintf("bucket-%03d", i) }
func (s *shape) key(i int) string    { return fmt.Sprintf("key-%05d", i) }

// make makes the cache at path, in its earlier state at path + "-old".
func (s *shape) make(t cachetest.Tester, path string) {
	opts := &keepcache.Options{SweepInterval: -1, CompactBytes: -1, CommitInterval: time.Hour}
	fill := func(db *keepcache.DB, n, step int) {
		for i := range s.buckets {
			b := db.Bucket(s.bucket(i))
			for j := 0; j < s.keys; j += step {
				ttl := time.Duration(keepcache.NoExpiry)
				if s.ttl > 0 && j%2 == 0 {
					ttl = s.ttl + time.Duration(j)*time.Second
				}
				w := b
				if j%5 == 0 {
					w = b.WithTags("tag", fmt.Sprint("tag-", j%3))
				}
				key := s.key(j)
				require.NoError(t, w.Set(key, shapeValue(s.bucket(i), key, n, s.size*(1+j%3)/2), ttl))
			}
		}
	}
	db := cachetest.Open(t, path, opts)
	fill(db, 1, 1)
	require.NoError(t, db.InvalidateTags("some tag"))
	cachetest.Committed(t, db)
	if s.holes {
		for i := range s.buckets {
			for j := range s.keys {
				if j%10 != 0 {
					_, err := db.Bucket(s.bucket(i)).Delete(s.key(j))
					require.NoError(t, err)
				}
			}
		}
	}
	if !s.crashed {
		require.NoError(t, db.Close())
	}
	cachetest.CrashCopy(t, path, path+".old")
	if !s.crashed {
		db = cachetest.Open(t, path, opts)
	}
	fill(db, 2, 7)
	cachetest.Committed(t, db)
	if s.buckets > 2 {
		_, err := db.DropBucket(s.bucket(1))
		require.NoError(t, err)
		_, err = db.Sweep(context.Background())
		require.NoError(t, err)
	}
	if s.crashed {
		fill(db, 3, 11)
		_, err := db.Bucket(s.bucket(0)).Delete(s.key(0))
		require.NoError(t, err)
		cachetest.CrashCopy(t, path, path+".new")
		require.NoError(t, db.Close())
		for _, end := range []string{"", "-journal"} {
			require.NoError(t, os.Rename(path+".new"+end, path+end))
		}
		return
	}
	require.NoError(t, db.Close())
}

// read reads a cache that make made. Room that the file has grown ahead is left out, as it only costs time.
func (s *shape) read(t cachetest.Tester, path string) (v mutate.Victim, changed time.Time) {
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			require.NoError(t, err)
		}
		return b
	}
	v = mutate.Victim{
		File: read(path), Journal: read(path + "-journal"), OldFile: read(path + ".old"),
		OldJournal: read(path + ".old-journal"),
	}
	v.Journal = v.Journal[:min(len(v.Journal), 256<<10)]
	v.OldJournal = v.OldJournal[:min(len(v.OldJournal), 256<<10)]
	if s.crashed {
		db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
		require.NoError(t, err)
		require.NoError(t, db.View(func(tx *bolt.Tx) error {
			v.File = v.File[:min(len(v.File), int(tx.Size())+4<<12)]
			return nil
		}))
		require.NoError(t, db.Close())
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	return v, info.ModTime()
}

func shapePath(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("shape-%d", i)) }
