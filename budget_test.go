package keepcache_test

import (
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// burden is a workload whose entries need far more of the file than their keys and records, or leave much of it behind.
type burden struct {
	name  string
	limit int64
	extra int64 // bytes of the file that no budget counts
	load  func(t *testing.T, db *keepcache.DB)
}

// burdens are about the smallest of their kind whose files are large enough to be compacted.
func burdens() []burden {
	entries := func(n, key, value int, ttl time.Duration) func(*testing.T, *keepcache.DB) {
		return func(t *testing.T, db *keepcache.DB) {
			raw := make([]byte, value)
			for i := range n {
				require.NoError(t, db.Bucket("b").SetBytes(padded(i, key), raw[:1+i%2*(value-1)], ttl))
				if i%2000 == 1999 {
					committed(t, db)
				}
			}
		}
	}
	buckets := func(n int, ttl time.Duration) func(*testing.T, *keepcache.DB) {
		return func(t *testing.T, db *keepcache.DB) {
			for i := range n {
				mustSet(t, db.Bucket(padded(i, 255)), "k", 1, ttl)
			}
		}
	}
	return []burden{
		{"values of 1 byte", 1 << 20, 0, entries(40_000, 5, 1, time.Hour)},
		{"keys of 1,500 bytes", -1, 0, entries(3000, 1500, 1, time.Hour)},
		{"keys of 1,500 bytes, evicting", 2 << 20, 0, entries(3000, 1500, 1, time.Hour)},
		{"keys of 30,000 bytes", -1, 0, entries(200, 30_000, 1, time.Hour)},
		{"keys of 30,000 bytes, evicting", 2 << 20, 0, entries(500, 30_000, 1, time.Hour)},
		{"1 byte and 20,000 in turn", 2 << 20, 0, entries(1500, 20, 20_000, time.Hour)},
		{"all expire at once", -1, 0, entries(30_000, 20, 500, time.Minute)},
		{"buckets", 2 << 20, 0, buckets(8000, time.Hour)},
		{"buckets whose entries have expired", 2 << 20, 0, buckets(12_000, time.Minute)},
		{"tags", 2 << 20, 40_000 * 300, func(t *testing.T, db *keepcache.DB) {
			for i := range 40_000 {
				require.NoError(t, db.InvalidateTags(padded(i, 250)))
			}
		}},
	}
}

// The file stays below three times what its entries and buckets cost and 16 MiB, whatever they are, and a cache that
// is not used writes nothing and compacts nothing, a second time least of all.
func TestBudget_Idle(t *testing.T) {
	t.Parallel()
	skipOnWindows(t, "a file cannot be replaced while it is open")
	for _, w := range burdens() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				path := newPath(t)
				o := &keepcache.Options{MaxBytes: w.limit, CommitInterval: time.Second, MemoryBytes: 32 << 20}
				db := open(t, path, o)
				w.load(t, db)
				committed(t, db)
				for round := range 2 {
					time.Sleep(5 * time.Minute) // what expires is swept, its buckets go, what is worth it is compacted
					before, first := fileInfos(t, path), db.Stats()
					if round > 0 {
						require.LessOrEqual(t, first.Compact.Compactions, uint64(1), "after the file was opened anew")
					}
					time.Sleep(2 * time.Minute)
					after, last := fileInfos(t, path), db.Stats()
					require.Equal(t, first.Compact.Compactions, last.Compact.Compactions, "compactions while idle")
					require.Equal(t, before, after, "an idle cache has written")
					require.LessOrEqual(t, last.FileBytes, 3*last.Cost+16<<20+w.extra)
					if round == 0 {
						t.Logf("cost %d KiB, file %d, %d compactions", last.Cost>>10, last.FileBytes>>10, last.Compact.Compactions)
						db = reopen(t, db, path, o)
					}
				}
			})
		})
	}
}

// Under writers that evict all the while the file stays below three times the budget and 16 MiB, by far where the disk
// keeps up: also where keys are long, of which one transaction could write many times the budget.
func TestBudget_File(t *testing.T) {
	skipOnWindows(t, "a file cannot be replaced while it is open")
	for _, key := range []int{5, 1500, 30_000} {
		synctest.Test(t, func(t *testing.T) {
			const limit = 2 << 20
			path := newPath(t)
			db := open(t, path, &keepcache.Options{MaxBytes: limit, CommitInterval: time.Hour})
			most := int64(0)
			for i := range 12_000_000 / (key + 1000) {
				require.NoError(t, db.Bucket("b").SetBytes(padded(i, key), []byte("v"), time.Hour))
				if i%2000 == 1999 {
					committed(t, db)
					most = max(most, fileSize(t, path))
					time.Sleep(2 * time.Second)
				}
			}
			committed(t, db)
			most = max(most, fileSize(t, path))
			t.Logf("keys of %d bytes: the file had %d KiB at most, %d entries cost %d", key, most>>10, db.Stats().Entries,
				db.Stats().Cost>>10)
			require.LessOrEqual(t, db.Stats().Cost, int64(limit))
			require.LessOrEqual(t, most, int64(3*limit+8<<20))
		})
	}
}

// Buckets leave entries half of the budget, whatever their number.
func TestBudget_Buckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 256 << 10
		db := newDB(t, &keepcache.Options{MaxBytes: limit, CommitInterval: time.Hour})
		for i := range 2000 {
			mustSet(t, db.Bucket(padded(i, 200)), "k", 1, time.Hour)
		}
		fill(t, db.Bucket("b"), 2000, time.Hour)
		committed(t, db)
		s := db.Stats()
		entries := int64(0)
		for _, b := range s.Buckets {
			entries += b.Cost
		}
		require.Greater(t, s.Cost-entries, int64(limit), "buckets alone pass the budget")
		require.LessOrEqual(t, entries, int64(limit/2))
		require.Greater(t, entries, int64(limit*2/5))
	})
}

// fileInfos says how the files of a cache stand, so that any write shows.
func fileInfos(t *testing.T, path string) (infos []string) {
	for _, name := range []string{path, path + "-journal"} {
		info, err := os.Stat(name)
		if os.IsNotExist(err) {
			continue // a journal comes with the first write
		}
		require.NoError(t, err)
		infos = append(infos, fmt.Sprint(name, info.Size(), info.ModTime()))
	}
	return infos
}
