package preflight_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/preflight"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// layout is that of the caches.
var layout = preflight.Layout{Plain: []string{"plain", "index"}, Nested: "nested"}

// checkFile checks the file at path as a whole.
func checkFile(t testing.TB, path string) error {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	file, err := preflight.Open(f, info.Size())
	if err != nil {
		return err
	}
	found, err := file.Audit(t.Context(), layout)
	require.NoError(t, err)
	err = file.Check(layout, math.MaxInt)
	require.Equal(t, err != nil, len(found.Problems) > 0, "%v, %v", err, found.Problems)
	return err
}

// workload changes a file at random as long as it is called.
type workload struct {
	rand *rand.Rand
	db   *bolt.DB
	keys int // how many different ones
	long int // bytes of the longest key
	much int // bytes of the longest value
}

func (w *workload) key() []byte {
	n := uint64(w.rand.IntN(w.keys))
	key := binary.BigEndian.AppendUint64(nil, n*0x9E3779B97F4A7C15)
	return append(key, make([]byte, n%uint64(w.long))...)
}

func (w *workload) step() error {
	return w.db.Update(func(tx *bolt.Tx) error {
		var buckets []*bolt.Bucket
		for _, name := range []string{"plain", "index"} {
			b, err := tx.CreateBucketIfNotExists([]byte(name))
			if err != nil {
				return err
			}
			buckets = append(buckets, b)
		}
		nested, err := tx.CreateBucketIfNotExists([]byte("nested"))
		if err != nil {
			return err
		}
		for id := range uint64(3) {
			b, err := nested.CreateBucketIfNotExists(binary.BigEndian.AppendUint64(nil, id))
			if err != nil {
				return err
			}
			buckets = append(buckets, b)
		}
		for _, b := range buckets {
			b.FillPercent = []float64{0.1, 0.5, 0.9, 1}[w.rand.IntN(4)]
			deletes := w.rand.IntN(11) // in ten
			switch w.rand.IntN(12) {
			case 0: // a range goes
				c := b.Cursor()
				n := w.rand.IntN(w.keys)
				for k, _ := c.Seek(w.key()); k != nil && n > 0; k, _ = c.Next() {
					if err := c.Delete(); err != nil {
						return err
					}
					n--
				}
			case 1, 2, 3, 4, 5:
				for range w.rand.IntN(w.keys) {
					if w.rand.IntN(10) < deletes {
						err = b.Delete(w.key())
					} else {
						err = b.Put(w.key(), make([]byte, w.rand.IntN(w.much)))
					}
					if err != nil {
						return err
					}
				}
			}
		}
		if w.rand.IntN(8) == 0 {
			return nested.DeleteBucket(binary.BigEndian.AppendUint64(nil, w.rand.Uint64N(3)))
		}
		return nil
	})
}

// Whatever bbolt writes is accepted: files of all kinds of keys, values, fill and deletions, with and without a list
// of free pages, after each transaction.
func TestCheck_Sound(t *testing.T) {
	steps := effort.Of(15, 60)
	if os.Getenv("KEEPCACHE_LONG") != "" {
		steps = 3000
	}
	for _, c := range []workload{
		{keys: 40, long: 3, much: 10},
		{keys: 600, long: 40, much: 100},
		{keys: 6000, long: 20, much: 60},
		{keys: 300, long: 2000, much: 30},
		{keys: 100, long: 9, much: 30_000},
		{keys: 60, long: 30_000, much: 300_000},
	} {
		for _, pageSize := range []int{1 << 10, 1 << 12, 1 << 14} {
			t.Run(fmt.Sprint(c.keys, c.long, c.much, pageSize), func(t *testing.T) {
				seed := uint64(time.Now().UnixNano())
				t.Logf("seed %d", seed)
				c.rand = rand.New(rand.NewPCG(seed, 0))
				path := filepath.Join(t.TempDir(), "file")
				db, err := bolt.Open(path, 0o600,
					&bolt.Options{PageSize: pageSize, NoSync: true, FreelistType: bolt.FreelistMapType})
				require.NoError(t, err)
				defer db.Close()
				c.db = db
				for i := range steps {
					db.NoFreelistSync = c.rand.IntN(2) == 0
					require.NoError(t, c.step())
					require.NoError(t, checkFile(t, path), "step %d", i)
				}
			})
		}
	}
}
