package keepcache_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// Somebody who has docs/file-format.md and nothing else reads the same of a file and its journal as the cache does: in
// use, as a crash leaves them, after it is closed, and as time goes by.
func TestFormat(t *testing.T) {
	for name, opts := range map[string]keepcache.Options{
		"periodic": {},
		"always":   {Sync: keepcache.SyncAlways},
		"small":    {JournalBytes: 256 << 10, MemoryBytes: 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				file := "test.cache"
				if name == "small" {
					file = strings.Repeat("länge", 40) // its journal's name is cut
				}
				path := filepath.Join(t.TempDir(), file)
				opts.SweepInterval, opts.CompactBytes, opts.CommitInterval = -1, -1, -1
				opts.Buckets = map[string]keepcache.BucketOptions{"sliding": {Sliding: true},
					"budget": {MaxEntries: 10, MaxBytes: 1 << 20}}

				db := open(t, path, &opts)
				formatCommitted(t, db)
				require.NoError(t, db.Close())
				c := requireFormat(t, path, nil)
				require.Zero(t, c.journal)
				require.True(t, c.cleanMark)

				db = open(t, path, &opts)
				for e := range db.Bucket("budget").All() {
					require.Zero(t, db.Stats().Buckets["budget"].Cost-c.costs[c.names["budget"]], e.Key)
				}
				formatPending(t, db)
				synctest.Wait()

				// What a crash at this moment leaves.
				left := filepath.Join(t.TempDir(), file)
				copyFormat(t, path, left)
				c = requireFormat(t, left, db)
				require.False(t, c.cleanMark)
				require.Equal(t, map[bool]int{true: 1, false: 2}[opts.Sync == keepcache.SyncAlways], c.journal)
				if name != "small" {
					require.Greater(t, c.logRecords, 50)
				}
				db2 := open(t, left, &keepcache.Options{ReadOnly: true})
				requireFormat(t, left, db2)
				report, err := db2.Verify(t.Context())
				require.NoError(t, err)
				require.Equal(t, c.logRecords, report.Journal.Records)
				require.Equal(t, c.rows, report.Rows)
				require.Equal(t, len(c.names), report.Buckets)
				require.NoError(t, db2.Close())

				for _, later := range []time.Duration{0, time.Minute, 30 * time.Minute} {
					time.Sleep(later)
					copyFormat(t, path, left)
					requireFormat(t, left, db)
				}
				require.NoError(t, db.Close())
				requireFormat(t, path, nil)
			})
		})
	}
}

// copyFormat copies file and journal of a cache that is open, and that nobody writes to.
func copyFormat(t *testing.T, path, to string) {
	synctest.Wait() // until no commit is under way
	for from, to := range map[string]string{path: to, formatJournalPath(path): formatJournalPath(to)} {
		content, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, content, 0o600))
	}
}

// formatCommitted writes whatever a file may hold.
func formatCommitted(t *testing.T, db *keepcache.DB) {
	now := time.Now()
	for key, value := range map[string]any{
		"null": nil, "true": true, "string": "text, \x00 and \u2028 \U0001f511", "bad": "\xff", "0": 0, "-33": -33,
		"2^53": int64(1<<53 + 1), "max": ^uint64(0),
		"10^40": json.Number("1" + strings.Repeat("0", 40)), "1.50": json.RawMessage("[1.50,1e2,-0]"), "1.0": 1.0,
		"5e-324": 5e-324, "float32": float32(0.1),
		"bytes": []byte{0, 255}, "no bytes": []byte{}, "many": make([]int, 7_000),
		"deep":   json.RawMessage(strings.Repeat(`{"a":[`, 300) + strings.Repeat("]}", 300)),
		"object": map[string]any{"": map[string]any{"b": nil}, "<&>": 1}, "large": strings.Repeat("0123456789", 30_000),
	} {
		require.NoError(t, db.Bucket("values").Set(key, value, 0))
	}
	ttl := db.Bucket("lifetimes")
	for i := range 8 {
		many := map[string]any{}
		for k := range 25 {
			many[fmt.Sprint("key ", 25*i+k)] = k
		}
		require.NoError(t, ttl.SetMany(many, time.Duration(i+1)*10*time.Minute))
	}
	require.NoError(t, ttl.Set("prolonged", 1, time.Minute))
	require.NoError(t, ttl.Set("longest", 1, keepcache.NoExpiry-1))
	require.NoError(t, ttl.Set("soon", 1, time.Millisecond))
	for i, name := range hostile {
		require.NoError(t, db.Bucket(name[:min(len(name), 255)]).Set(name, i, 0))
	}
	require.NoError(t, db.Bucket("keys").Set(strings.Repeat("\xff", keepcache.MaxKeyBytes), 1, time.Hour))
	fill(t, db.Bucket("cleared"), 300, time.Hour)
	fill(t, db.Bucket("dropped"), 30, 0)
	fill(t, db.Bucket("budget"), 50, time.Hour)

	for i := range 20 {
		require.NoError(t, db.Bucket("tagged").WithTags(fmt.Sprint("tag ", i%3), "all").Set(fmt.Sprint(i), i, time.Hour))
	}
	require.NoError(t, db.InvalidateTags("tag 1"))
	require.NoError(t, db.Bucket("tagged").WithTags("tag 1").Set("since", 1, 0))
	formatLoaded(t, db, "")
	require.NoError(t, db.Bucket("kept").Restore(keepcache.Entry{
		Key: "everything", WrittenAt: now.Add(-time.Hour), ExpiresAt: now.Add(-time.Minute),
		StaleUntil: now.Add(2 * time.Hour), LoadedAt: now.Add(-time.Hour),
		RetryAt: now.Add(time.Minute), ETag: "\x00etag", Tags: []string{"a", "b"}, Sliding: time.Hour,
	}, "stale"))
}

// formatLoaded loads what is fresh, then stale, negative, and loaded again without success.
func formatLoaded(t *testing.T, db *keepcache.DB, more string) {
	b := db.Bucket("loaded").WithTags("loads")
	var s string
	get := func(key string, load keepcache.Loader, opts *keepcache.LoadOptions) error {
		_, err := b.GetOrLoad(t.Context(), key+more, &s, load, opts)
		return err
	}
	good := func(_ context.Context, l *keepcache.Load) (any, error) {
		l.ETag = "etag of " + l.Key
		return "loaded", nil
	}
	failing := func(context.Context, *keepcache.Load) (any, error) { return nil, errors.New("down") }
	require.NoError(t, get("fresh", good, &keepcache.LoadOptions{TTL: time.Hour, StaleFor: 2 * time.Hour}))
	require.NoError(t, get("for ever", good, &keepcache.LoadOptions{TTL: time.Hour, StaleFor: keepcache.NoExpiry}))
	require.NoError(t, get("retried", good, &keepcache.LoadOptions{TTL: time.Second, StaleFor: 3 * time.Hour}))
	time.Sleep(2 * time.Second)
	require.NoError(t, get("retried", failing, &keepcache.LoadOptions{SoftTimeout: time.Second, RetryAfter: time.Hour}))
	none := func(context.Context, *keepcache.Load) (any, error) { return nil, keepcache.ErrNotFound }
	require.ErrorIs(t, get("negative", none, &keepcache.LoadOptions{NegativeTTL: 2 * time.Hour}), keepcache.ErrNotFound)
	sliding := db.Bucket("sliding")
	require.NoError(t, sliding.Set("slides"+more, 1, time.Minute))
	time.Sleep(30 * time.Second)
	found, err := sliding.Exists("slides" + more)
	require.NoError(t, err)
	require.True(t, found)
}

// formatPending writes whatever a journal may hold beside the file that formatCommitted has left.
func formatPending(t *testing.T, db *keepcache.DB) {
	require.NoError(t, db.Bucket("cleared").Clear(t.Context()))
	require.NoError(t, db.Bucket("cleared").Set("after", 1, 0))
	_, err := db.DropBucket("dropped")
	require.NoError(t, err)
	require.NoError(t, db.Bucket("new").Set("k", strings.Repeat("v", 100_000), time.Hour))
	for i := range 60 {
		require.NoError(t, db.Bucket("new").Set(fmt.Sprint(i%20), strings.Repeat("v", i*35), time.Hour))
	}
	ttl := db.Bucket("lifetimes")
	_, err = ttl.Touch("key 100", 4*time.Hour)
	require.NoError(t, err)
	_, err = ttl.Touch("key 101", keepcache.NoExpiry)
	require.NoError(t, err)
	_, err = ttl.Delete("key 102")
	require.NoError(t, err)
	require.NoError(t, ttl.SetMany(map[string]any{"a": 1, "b": 2, "key 103": 3}, time.Hour))
	var batch keepcache.Batch
	batch.Set(db.Bucket("one"), "k", 1, 0)
	batch.Delete(ttl, "key 104")
	require.NoError(t, db.Apply(&batch))
	require.NoError(t, db.InvalidateTags("tag 2"))
	require.NoError(t, db.Bucket("tagged").WithTags("tag 2").Set("since", 2, 0))
	formatLoaded(t, db, " again")
}

// requireFormat compares what the page's reader finds at path with what the cache says, which db has open or not.
func requireFormat(t *testing.T, path string, db *keepcache.DB) *formatCache {
	t.Helper()
	c, err := readFormat(path)
	require.NoError(t, err)
	got, err := c.kept(time.Now())
	require.NoError(t, err)
	if db == nil {
		db, err = keepcache.Open(path, &keepcache.Options{ReadOnly: true})
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
	}
	names, err := db.Buckets()
	require.NoError(t, err)
	require.Equal(t, names, slices.Sorted(maps.Keys(c.names)))
	var want []formatEntry
	ms := func(at time.Time) int64 {
		if at.IsZero() {
			return formatNever
		}
		return at.UnixMilli()
	}
	lived := func(at time.Time) int64 { // 0 is none
		if at.IsZero() {
			return 0
		}
		return at.UnixMilli()
	}
	for _, name := range names {
		live := map[string]bool{}
		for e, err := range db.Bucket(name).All() {
			require.NoError(t, err)
			live[e.Key] = true
		}
		for e, err := range db.Bucket(name).Scan(&keepcache.ScanOptions{Stale: true}) {
			require.NoError(t, err)
			text, err := e.AppendJSON(nil)
			require.NoError(t, err)
			d := json.NewDecoder(strings.NewReader(string(text)))
			d.UseNumber()
			w := formatEntry{
				Bucket: name, Key: e.Key, Size: e.Size, Written: ms(e.WrittenAt), ExpiresAt: ms(e.ExpiresAt),
				StaleUntil: ms(e.StaleUntil), Loaded: lived(e.LoadedAt),
				RetryAt: lived(e.RetryAt), Sliding: e.Sliding.Milliseconds(), Revision: e.Revision, ETag: e.ETag, Tags: e.Tags,
				Negative: e.Negative, Live: live[e.Key],
			}
			require.NoError(t, d.Decode(&w.Value))
			want = append(want, w)
		}
	}
	slices.SortFunc(want, func(a, b formatEntry) int {
		return strings.Compare(a.Bucket+"\x00"+a.Key, b.Bucket+"\x00"+b.Key)
	})
	require.Equal(t, len(want), len(got))
	for i := range want {
		require.Equal(t, want[i], got[i])
	}
	return c
}
