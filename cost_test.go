package keepcache_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// weighed is an entry of a file whose cost is compared with its size.
type weighed struct {
	bucket, key string
	value       int // bytes, without a few for JSON
	ttl         time.Duration
}

// padded returns a text for i that is so many bytes long, or as long as it needs.
func padded(i, n int) string {
	s := fmt.Sprintf("%05x", uint32(i)*2654435761>>12) // in no order
	return s + strings.Repeat("-", max(0, n-len(s)))
}

// costOff fills a cache with the entries, compacts it, and returns by which part the cost is off what the file needs.
func costOff(t *testing.T, entries func(yield func(weighed) bool)) (off float64, s keepcache.Stats) {
	db := newDB(t, &keepcache.Options{MaxBytes: -1, CompactBytes: -1, SweepInterval: -1})
	require.NoError(t, db.Compact(t.Context()))
	empty := db.Stats()
	require.Zero(t, empty.Cost)
	value := make([]byte, 2<<20)
	for e := range entries {
		require.NoError(t, db.Bucket(e.bucket).SetBytes(e.key, value[:e.value], e.ttl))
	}
	require.NoError(t, db.Compact(t.Context()))
	s = db.Stats()
	const slack = 10 << 12 // where a few pages are not full that would be, if there were more
	need, cost := float64(s.FileBytes-empty.FileBytes), float64(s.Cost)
	switch {
	case cost > need:
		off = max(0, cost-need-slack) / need
	default:
		off = min(0, cost-need+slack) / need
	}
	t.Logf("%6d entries need %6.0f KiB, cost %6.0f: %+.1f %%, %d pages are free", s.Entries, need/1024, cost/1024,
		100*(cost/need-1), s.FreePages)
	require.NoError(t, db.Close())
	return off, s
}

// What entries and buckets cost is what they need in a compacted file, whatever the lengths of keys, values and names.
func TestCost(t *testing.T) {
	skipOnWindows(t, "a file cannot be replaced while it is open")
	keys, values, total := []int{5, 250, 1500, 8000, 32_000}, []int{1, 250, 1300, 6000}, effort.Of(256, 512)<<10
	if long {
		keys = []int{5, 40, 250, 700, 1000, 1500, 1950, 2500, 4000, 8000, 16_000, 29_000, 32_000}
		values = []int{1, 40, 200, 700, 1000, 1300, 1900, 2500, 4000, 6000, 20_000, 100_000, 1 << 20}
		total = 4 << 20
	}
	for _, key := range keys {
		for _, value := range values {
			for _, ttl := range []time.Duration{0, time.Hour} {
				t.Run(fmt.Sprintf("key %d value %d ttl %v", key, value, ttl), func(t *testing.T) {
					t.Parallel()
					off, _ := costOff(t, func(yield func(weighed) bool) {
						for i := range max(80, total/(key+value+100)) {
							if !yield(weighed{"b", padded(i, key), value, ttl * time.Duration(1+i%100)}) {
								return
							}
						}
					})
					require.InDelta(t, 0, off, 0.1)
				})
			}
		}
	}
}

// So it is for many buckets, also where their names are long or their keys of one byte, and for buckets that are empty.
func TestCost_Buckets(t *testing.T) {
	skipOnWindows(t, "a file cannot be replaced while it is open")
	for _, c := range []struct{ name, per, value int }{{1, 1, 1}, {255, 1, 1}, {100, 1, 2000}, {30, 10, 1}, {30, 10, 50},
		{255, 50, 100}, {5, 100, 500}} {
		t.Run(fmt.Sprintf("name %d entries %d value %d", c.name, c.per, c.value), func(t *testing.T) {
			t.Parallel()
			entries := func(yield func(weighed) bool) {
				for i := range max(50, effort.Of(1500, 3000)/c.per) {
					for k := range c.per {
						if !yield(weighed{padded(i, c.name), string(rune(k + 1)), c.value, time.Hour}) {
							return
						}
					}
				}
			}
			off, _ := costOff(t, entries)
			require.InDelta(t, 0, off, 0.1)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, &keepcache.Options{MaxBytes: -1, SweepInterval: -1}) // sweeps drop empty buckets
		require.NoError(t, db.Compact(t.Context()))
		empty := db.Stats().FileBytes
		for i := range 2000 {
			mustSet(t, db.Bucket(padded(i, 255)), "k", 1, time.Minute)
		}
		committed(t, db)
		require.Greater(t, db.Stats().Cost, int64(2000*(255+64)))
		time.Sleep(2 * time.Minute)
		require.NoError(t, db.Compact(t.Context()))
		s := db.Stats()
		require.Zero(t, s.Entries)
		require.InEpsilon(t, s.FileBytes-empty, s.Cost, 0.1)
	})
}

// Of entries of mixed sizes it is right too where these are all there are between two bounds. Where they are two, of
// which one does not fit into what the other leaves of a page, it can be off by half.
func TestCost_Mixtures(t *testing.T) {
	skipOnWindows(t, "a file cannot be replaced while it is open")
	r := rand.New(rand.NewPCG(1, 1))
	for name, c := range map[string]struct {
		most float64
		size func(i int) int
	}{
		"up to 1,000":               {0.1, func(int) int { return r.IntN(1000) }},
		"up to 2,000":               {0.1, func(int) int { return r.IntN(2000) }},
		"up to 10,240":              {0.1, func(int) int { return r.IntN(10_240) }},
		"1,000 to 3,000":            {0.1, func(int) int { return 1000 + r.IntN(2000) }},
		"4,000 to 12,000":           {0.1, func(int) int { return 4000 + r.IntN(8000) }},
		"log-normal, median 500":    {0.1, func(int) int { return min(1<<20, int(500*math.Exp(r.NormFloat64()))) }},
		"log-normal, median 5,000":  {0.1, func(int) int { return min(1<<20, int(5000*math.Exp(r.NormFloat64()))) }},
		"1 and 20,000":              {0.1, func(i int) int { return 1 + i%2*19_999 }},
		"100 and 1,000,000":         {0.1, func(i int) int { return 100 + i%2*999_900 }},
		"9 of 1 to one of 4,000":    {0.6, func(int) int { return 1 + r.IntN(10)/9*3999 }},
		"1,200 and 2,400 in turn":   {0.55, func(i int) int { return 1200 + i%2*1200 }},
		"of 1,200 and 2,400 either": {0.3, func(int) int { return 1200 + r.IntN(2)*1200 }},
	} {
		t.Run(name, func(t *testing.T) {
			off, _ := costOff(t, func(yield func(weighed) bool) {
				for i, size := 0, 0; size < 2<<20; i++ {
					n := c.size(i)
					if size += n + 100; !yield(weighed{"b", fmt.Sprintf("%08d", i), n, 0}) {
						return
					}
				}
			})
			require.InDelta(t, 0, off, c.most)
		})
	}
}

// A compacted file and a backup have next to no free pages, whatever the size of what they hold.
func TestCompact_FreePages(t *testing.T) {
	skipOnWindows(t, "a file cannot be replaced while it is open")
	for _, size := range []int{300, 100_000, 1 << 20, 3 << 20} {
		db := newDB(t, &keepcache.Options{MaxBytes: -1, CompactBytes: -1})
		value := make([]byte, size)
		for i := range max(effort.Of(6, 12), effort.Of(4, 16)<<20/(size+100)) {
			require.NoError(t, db.Bucket("b").SetBytes(numbered(i), value, 0))
			if i%5 == 0 && size > 1000 { // of odd sizes between them
				require.NoError(t, db.Bucket("b").SetBytes(numbered(i)+"x", value[:size/3], 0))
			}
		}
		require.NoError(t, db.Compact(t.Context()))
		require.Less(t, db.Stats().FreePages, int64(16), "values of %d bytes", size)
		sound(t, db)

		path := newPath(t)
		f, err := os.Create(path)
		require.NoError(t, err)
		require.NoError(t, db.Backup(t.Context(), f))
		require.NoError(t, f.Close())
		copied := open(t, path, &keepcache.Options{ReadOnly: true})
		require.Less(t, copied.Stats().FreePages, int64(16), "a backup of values of %d bytes", size)
		require.Equal(t, db.Stats().Cost, copied.Stats().Cost)
		n, err := copied.Bucket("b").Len()
		require.NoError(t, err)
		require.Equal(t, db.Stats().Entries, int64(n))
		require.NoError(t, copied.Close())
		require.NoError(t, db.Close())
	}
}

// A file that an older keepcache made or changed, which keeps no costs, is counted anew once; who may not write
// estimates.
func TestCost_Older(t *testing.T) {
	for name, change := range map[string]func(*bolt.Tx, []byte) error{
		"made": func(tx *bolt.Tx, _ []byte) error { return tx.DeleteBucket([]byte("costs")) },
		"changed": func(tx *bolt.Tx, id []byte) error { // an entry is gone
			b, _ := entryBucket(tx, "b")
			k, v := b.Cursor().First()
			row := binary.BigEndian.AppendUint64(nil, 499)
			used := binary.BigEndian.Uint64(tx.Bucket([]byte("usage")).Get(id)[8:])
			row = binary.BigEndian.AppendUint64(row, used-uint64(len(k)+len(v)-storedRecord))
			if err := tx.Bucket([]byte("usage")).Put(id, row); err != nil {
				return err
			}
			return b.Delete(append([]byte(nil), k...))
		},
		"damaged": func(tx *bolt.Tx, id []byte) error {
			row := append([]byte(nil), tx.Bucket([]byte("costs")).Get(id)...)
			row[3] ^= 1
			return tx.Bucket([]byte("costs")).Put(id, row)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			db := openUnchecked(t, path)
			fill(t, db.Bucket("b"), 500, 0)
			require.NoError(t, db.Close())
			withBolt(t, path, false, func(tx *bolt.Tx) error {
				_, id := entryBucket(tx, "b")
				return change(tx, id)
			})
			for _, o := range []keepcache.Options{{ReadOnly: true}, {ReadOnly: true, NoLock: true}} {
				reader := open(t, path, &o)
				s := reader.Stats()
				require.InDelta(t, 500*100, s.Buckets["b"].Cost, 500*50) // in truth 72 each
				require.Greater(t, s.Cost, s.Buckets["b"].Cost)
				require.NoError(t, reader.Close())
			}
			db = open(t, path, nil) // whose end proves the counts
			s := db.Stats()
			withFresh := newDB(t, nil)
			fill(t, withFresh.Bucket("b"), 500, 0)
			if name == "changed" {
				_, err := withFresh.Bucket("b").Delete(numbered(0))
				require.NoError(t, err)
			}
			committed(t, withFresh)
			require.Equal(t, withFresh.Stats().Cost, s.Cost)
			require.Equal(t, withFresh.Stats().Buckets["b"], s.Buckets["b"])
		})
	}
}

// Verify tells of costs that are not those of the entries.
func TestCost_Verify(t *testing.T) {
	path := newPath(t)
	db := openUnchecked(t, path)
	mustSet(t, db.Bucket("b"), "k", "v", time.Hour)
	require.NoError(t, db.Close())
	withBolt(t, path, false, func(tx *bolt.Tx) error {
		_, id := entryBucket(tx, "b")
		row := binary.BigEndian.AppendUint64(make([]byte, 8), 7)
		sum := crc32.MakeTable(crc32.Castagnoli)
		check := crc32.Checksum(append(append(append([]byte(nil), id...), tx.Bucket([]byte("usage")).Get(id)...), row...),
			sum)
		return tx.Bucket([]byte("costs")).Put(id, binary.BigEndian.AppendUint32(row, check))
	})
	db = openDamaged(t, path, nil)
	report, err := db.Verify(t.Context())
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(report.Problems), "the file counts its entries as 0 and 7 bytes of it")
}
