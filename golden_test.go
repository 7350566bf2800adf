package keepcache_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
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

var updateGolden = flag.Bool("update", false, "write the golden files anew; for a new format under a new name only")

// golden is what a golden file holds. Keys and values are in Go syntax, because they may be any bytes.
type golden struct {
	Report  goldenReport
	Entries []goldenEntry
}

// goldenReport is what a Report says of the file.
type goldenReport struct {
	Buckets, Entries, Expired, Pending, Rows int
	Problems                                 []keepcache.Problem
	More                                     int
}

type goldenEntry struct {
	Bucket, Key, Value string
	Size               int
	Written            string
	ExpiresAt          string `json:"FreshUntil"` // as it was called when the file was made
	Revision           uint64
}

// goldenAge is for how long a golden file has lain before it is opened.
const goldenAge = 90 * time.Minute

// writeGolden writes a cache with all that the format has: every kind of value, lifetimes, overwrites that
// left their expiry row behind, names and keys of any bytes, and a bucket that the sweeper has yet to empty.
func writeGolden(t *testing.T, path string) {
	db := open(t, path, &keepcache.Options{SweepInterval: -1})
	values := map[string]any{
		"null": nil, "true": true, "false": false, "empty string": "", "string": "text, \x00 and \u2028 \U0001f511",
		"long string": strings.Repeat("0123456789", 7000),
		"0":           0, "-1": -1, "127": 127, "128": 128, "-33": -33, "65536": 65536, "2^53+1": int64(1<<53 + 1),
		"min": int64(math.MinInt64), "max": uint64(math.MaxUint64),
		"10^40": json.Number("1" + strings.Repeat("0", 40)), "1.50": json.RawMessage("1.50"),
		"1.0": 1.0, "-0.0": math.Copysign(0, -1), "5e-324": 5e-324, "1.7e308": 1.7e308, "float32": float32(0.1),
		"bytes": []byte{0, 1, 254, 255}, "no bytes": []byte{}, "many bytes": make([]byte, 300),
		"array": []any{nil, true, 1, 1.0, "s", []byte("b")}, "empty array": []int{},
		"object":       map[string]any{"a": 1, "": map[string]any{"deep": []int{1, 2, 3}}, "<&>": nil},
		"empty object": map[string]any{}, "many": make([]int, 70_000),
		"struct":      person{address: address{Street: "Main St"}, Name: "ada", Age: 36},
		"time":        time.Date(2024, 2, 29, 1, 2, 3, 4, time.FixedZone("", -3600)),
		"raw message": json.RawMessage(`{"b": [1e2, -0, 0.10]}`),
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		mustSet(t, db.Bucket("values"), key, values[key], 0)
		time.Sleep(time.Second + time.Microsecond)
	}
	ttl := db.Bucket("lifetimes")
	mustSet(t, ttl, "an hour", "gone when it is opened", time.Hour)
	mustSet(t, ttl, "two hours", "there", 2*time.Hour)
	mustSet(t, ttl, "a nanosecond", "gone", 1)
	mustSet(t, ttl, "longest", "there", math.MaxInt64-1)
	mustSet(t, ttl, "prolonged", "old", time.Minute)
	mustSet(t, ttl, "prolonged", "new", 3*time.Hour)
	mustSet(t, ttl, "shortened", "old", 3*time.Hour)
	mustSet(t, ttl, "shortened", "gone", time.Minute)
	mustSet(t, ttl, "touched", "there", time.Minute)
	_, err := ttl.Touch("touched", 4*time.Hour)
	require.NoError(t, err)
	mustSet(t, ttl, "made eternal", "old", time.Minute)
	mustSet(t, ttl, "made eternal", "there", keepcache.NoExpiry)
	for i, name := range hostile {
		mustSet(t, db.Bucket("keys"), name, i, 0)
		mustSet(t, db.Bucket(name), name, i, 2*time.Hour)
	}
	mustSet(t, db.Bucket("keys"), strings.Repeat("\xff", keepcache.MaxKeyBytes), "longest", 2*time.Hour)
	fill(t, db.Bucket("cleared"), 300, time.Hour)
	require.NoError(t, db.Bucket("cleared").Clear(context.Background()))
	mustSet(t, db.Bucket("cleared"), "after", 1, 0)
	fill(t, db.Bucket("dropped"), 30, 0)
	_, err = db.DropBucket("dropped")
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

// readGolden reads all that the cache at path holds.
func readGolden(t *testing.T, db *keepcache.DB) (g golden) {
	names, err := db.Buckets()
	require.NoError(t, err)
	at := func(when time.Time) string {
		if when.IsZero() {
			return "never"
		}
		return when.UTC().Format(time.RFC3339Nano)
	}
	for _, name := range names {
		for e, err := range db.Bucket(name).All() {
			require.NoError(t, err)
			var value any
			require.NoError(t, e.Decode(&value))
			require.Equal(t, e.ExpiresAt, e.StaleUntil)
			g.Entries = append(g.Entries, goldenEntry{
				shorten(fmt.Sprintf("%+q", name)), shorten(fmt.Sprintf("%+q", e.Key)), shorten(typed(value)), e.Size,
				at(e.WrittenAt), at(e.ExpiresAt), e.Revision,
			})
		}
	}
	r := sound(t, db)
	g.Report = goldenReport{r.Buckets, r.Entries, r.Expired, r.Pending, r.Rows, r.Problems, r.More}
	return g
}

// typed writes a value as Get reads it into an any so that each type shows.
func typed(v any) string {
	var parts []string
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			parts = append(parts, typed(e))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, fmt.Sprintf("%+q: %s", key, typed(v[key])))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case string:
		return fmt.Sprintf("%+q", v)
	case nil, bool:
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("%T(%v)", v, v)
}

// shorten replaces the middle of a long text by its checksum.
func shorten(text string) string {
	if len(text) <= 200 {
		return text
	}
	return fmt.Sprintf("%s... %d characters, sum %x ...%s", text[:50], len(text), sha256.Sum256([]byte(text)),
		text[len(text)-50:])
}

// A file that an earlier version wrote opens for ever, with every value, key, lifetime and revision.
func TestGolden(t *testing.T) {
	const name = "v1"                                             // add files for later formats, and never change one
	file := filepath.Join("testdata", "golden", name+".cache.gz") // mostly room that bbolt has grown ahead
	expected := filepath.Join("testdata", "golden", name+".json")
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("bbolt's files are in the byte order of their machine, and this one's is another")
	}
	if *updateGolden {
		synctest.Test(t, func(t *testing.T) { // in a bubble of its own, as both begin at the same time
			path := newPath(t)
			writeGolden(t, path)
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			var packed bytes.Buffer
			w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
			require.NoError(t, err)
			_, err = w.Write(content)
			require.NoError(t, err)
			require.NoError(t, w.Close())
			require.NoError(t, os.WriteFile(file, packed.Bytes(), 0o600))
		})
	}
	packed, err := os.Open(file)
	require.NoError(t, err)
	defer packed.Close()
	r, err := gzip.NewReader(packed)
	require.NoError(t, err)
	content, err := io.ReadAll(r)
	require.NoError(t, err)
	path := newPath(t)
	require.NoError(t, os.WriteFile(path, content, 0o600))

	synctest.Test(t, func(t *testing.T) {
		time.Sleep(goldenAge)
		for _, opts := range []*keepcache.Options{{ReadOnly: true}, {SweepInterval: -1}} {
			db := open(t, path, opts)
			got, err := json.MarshalIndent(readGolden(t, db), "", "\t")
			require.NoError(t, err)
			if *updateGolden {
				require.NoError(t, os.WriteFile(expected, append(got, '\n'), 0o600))
			}
			want, err := os.ReadFile(expected)
			require.NoError(t, err)
			require.Equal(t, strings.TrimSpace(string(want)), string(got))
			require.NoError(t, db.Close())
		}

		// It can be written to, and what was retired in it goes.
		db := open(t, path, &keepcache.Options{SweepInterval: -1})
		before := sound(t, db)
		removed, err := db.Sweep(t.Context())
		require.NoError(t, err)
		require.Equal(t, before.Pending+before.Expired, removed)
		mustSet(t, db.Bucket("values"), "null", "no more", 0)
		entry, _, err := db.Bucket("values").Stat("null")
		require.NoError(t, err)
		var highest uint64
		for _, e := range readGolden(t, db).Entries {
			highest = max(highest, e.Revision)
		}
		require.Equal(t, highest, entry.Revision, "a new write has the highest revision")
		require.Zero(t, sound(t, db).Pending)
	})
}
