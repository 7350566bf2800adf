package keepcache_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// A commit takes no more memory besides that of its entries than the margin that the documentation states, also with
// long keys, of which each changes pages of its own, and while as many entries are evicted.
func TestMemory_Commit(t *testing.T) {
	const budget = 16 << 20
	for _, c := range []struct {
		key, file int // bytes of a key, and entries
		ttl       time.Duration
	}{{300, 30_000, time.Hour}, {1000, 8000, time.Hour}, {30_000, 250, time.Hour}} {
		t.Run(fmt.Sprintf("%d B for %v", c.key, c.ttl), func(t *testing.T) {
			path := newPath(t)
			pad := strings.Repeat("k", c.key)
			write := func(db *keepcache.DB, from, n int) {
				for i := range n {
					s := fmt.Sprintf("%08x", uint32(from+i)*2654435761)
					require.NoError(t, db.Bucket("b").SetBytes(s+pad[len(s):], []byte{1}, c.ttl))
				}
			}
			db := open(t, path, &keepcache.Options{CompactBytes: -1})
			write(db, 0, c.file)
			committed(t, db)
			full := db.Stats().Cost
			require.NoError(t, db.Close())

			// What comes into the file comes all over it.
			db = open(t, path, &keepcache.Options{
				MemoryBytes: budget, MaxBytes: full, CompactBytes: -1, SweepInterval: -1, CommitInterval: time.Hour,
				CommitBytes: budget,
			})
			write(db, c.file, budget/4/(c.key+600))
			committed(t, db)
			t.Logf("%.1f MiB", float64(db.LargestTransaction())/(1<<20))
			// The rest is for keys, and for what bbolt makes of each page.
			require.LessOrEqual(t, db.LargestTransaction(), int64(budget/4+16<<20)*3/4)
		})
	}
}
