package damage_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

// repairValue is long enough for some to have pages of their own.
func repairValue(i int) []byte {
	return bytes.Repeat([]byte{byte(i), byte(i >> 8), 7}, 50+i%40*i%3*1000)
}

// fileToRepair returns a closed cache of n entries in two buckets and some in a small one, which were all written
// twice, and with some that were deleted.
func fileToRepair(t *testing.T, n int) string {
	t.Helper()
	path := cachetest.NewPath(t)
	db := cachetest.Open(t, path, &keepcache.Options{SweepInterval: -1, CompactBytes: -1})
	for round := range 2 {
		for i := range n {
			value := repairValue(i)
			if round == 0 {
				value = []byte("an earlier value")
			}
			require.NoError(t, db.Bucket(fmt.Sprint("bucket", i%2)).SetBytes(cachetest.Numbered(i), value, time.Hour))
		}
		cachetest.MustSet(t, db.Bucket("small"), "k", round, 0)
		cachetest.MustSet(t, db.Bucket("small"), "deleted", round, 0)
		cachetest.Committed(t, db)
	}
	_, err := db.Bucket("small").Delete("deleted")
	require.NoError(t, err)
	require.NoError(t, db.Close())
	return path
}

// look counts the entries of the repaired file, and requires that each is right.
func lookRepaired(t *testing.T, path string, n int) (there int) {
	t.Helper()
	db := cachetest.Open(t, path, nil)
	cachetest.Sound(t, db)
	for i := range n {
		got, found, err := db.Bucket(fmt.Sprint("bucket", i%2)).GetBytes(cachetest.Numbered(i))
		require.NoError(t, err)
		if found {
			there++
			require.True(t, bytes.Equal(got, repairValue(i)) || string(got) == "an earlier value", "%d", i)
		}
	}
	require.NoError(t, db.Close())
	return there
}

// Of a file that is whole repair saves everything, and nothing that was deleted.
func TestRepair_Whole(t *testing.T) {
	const n = 2000
	path, to := fileToRepair(t, n), cachetest.NewPath(t)
	before := cachetest.Snapshot(t, path)
	report, err := keepcache.Repair(context.Background(), path, to, nil)
	require.NoError(t, err)
	require.Equal(t, keepcache.RepairReport{Entries: n + 1, Buckets: 3, Whole: true}, report)
	require.Equal(t, before, cachetest.Snapshot(t, path))
	require.Equal(t, n, lookRepaired(t, to, n))
	db := cachetest.Open(t, to, nil)
	cachetest.RequireValue(t, db.Bucket("small"), "k", int64(1))
	cachetest.RequireAbsent(t, db.Bucket("small"), "deleted")

	_, err = keepcache.Repair(context.Background(), path, to, nil)
	require.ErrorIs(t, err, os.ErrExist)
	_, err = keepcache.Repair(context.Background(), to, cachetest.NewPath(t), nil)
	cachetest.RequireError(t, err, keepcache.ErrLocked, "repair", to)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	none := cachetest.NewPath(t)
	_, err = keepcache.Repair(ctx, path, none, nil)
	require.ErrorIs(t, err, context.Canceled)
	left, err := filepath.Glob(none + "*")
	require.NoError(t, err)
	require.Empty(t, left)
}

// Of a file in which pages are overwritten repair saves nearly everything else, whichever pages they are.
func TestRepair_Damaged(t *testing.T) {
	const n = 2000
	whole, err := os.ReadFile(fileToRepair(t, n))
	require.NoError(t, err)
	for name, damage := range map[string]func(content []byte) ([]byte, []string){
		"both meta pages": func(c []byte) ([]byte, []string) { clear(c[:8192]); return c, nil },
		"cut in half":     func(c []byte) ([]byte, []string) { return c[:len(c)/2], []string{"bucket0", "bucket1", "small"} },
		"every tenth page": func(c []byte) ([]byte, []string) {
			for at := 2 * 4096; at+4096 <= len(c); at += 40960 {
				clear(c[at : at+4096])
			}
			return c, []string{"bucket0", "bucket1", "small"}
		},
		"noise": func(c []byte) ([]byte, []string) {
			for range 200 {
				c[rand.IntN(len(c))] ^= byte(1 + rand.IntN(255))
			}
			return c, []string{"bucket0", "bucket1", "small"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, to := cachetest.NewPath(t), cachetest.NewPath(t)
			content, names := damage(bytes.Clone(whole))
			require.NoError(t, os.WriteFile(path, content, 0o600))
			report, err := keepcache.Repair(context.Background(), path, to, &keepcache.RepairOptions{Buckets: names})
			require.NoError(t, err)
			there := lookRepaired(t, to, n)
			t.Logf("%+v, %d of %d", report, there, n)
			if name == "both meta pages" {
				require.False(t, report.Whole)
				require.Equal(t, n, there)
			}
			require.Greater(t, there, n/4)
		})
	}
}

// What a page claims to be long of is not taken into memory.
func TestRepair_Claims(t *testing.T) {
	const n = 300
	path, to := fileToRepair(t, n), cachetest.NewPath(t)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	for at := 2 * 4096; at+4096 <= len(content); at += 4096 {
		page := content[at : at+4096]
		count := int(binary.NativeEndian.Uint16(page[10:]))
		if binary.NativeEndian.Uint16(page[8:]) == 2 && count > 0 && count < 250 {
			binary.NativeEndian.PutUint32(page[12:], math.MaxUint32)
			binary.NativeEndian.PutUint32(page[16*count+12:], 510<<20)
		}
	}
	path = cachetest.NewPath(t)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	require.NoError(t, os.Truncate(path, 600<<20))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	report, err := keepcache.Repair(context.Background(), path, to,
		&keepcache.RepairOptions{Buckets: []string{"bucket0", "bucket1", "small"}})
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	require.Positive(t, report.Unproved)
	require.Positive(t, report.Entries)
	require.Less(t, after.HeapSys, before.HeapSys+400<<20)
}

// Of what is no cache, and of a cache of which nothing can be proved, repair makes no file. One that is empty is whole.
func TestRepair_Nothing(t *testing.T) {
	foreign := cachetest.NewPath(t)
	other, err := bolt.Open(foreign, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, other.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("users"))
		if err != nil {
			return err
		}
		return b.Put([]byte("ada"), bytes.Repeat([]byte{1}, 100)) // which looks like a record at first sight
	}))
	require.NoError(t, other.Close())
	text := cachetest.NewPath(t)
	require.NoError(t, os.WriteFile(text, bytes.Repeat([]byte("this is a text. "), 1000), 0o600))
	unnamed := cachetest.NewPath(t)
	db := cachetest.Open(t, unnamed, nil)
	for i := range 100 {
		cachetest.MustSet(t, db.Bucket("sessions"), cachetest.Numbered(i), i, time.Hour)
	}
	require.NoError(t, db.Close())
	content, err := os.ReadFile(unnamed)
	require.NoError(t, err)
	clear(content[:8192])
	require.NoError(t, os.WriteFile(unnamed, bytes.ReplaceAll(content, []byte("sessions"), []byte("sossions")), 0o600))

	for _, c := range []struct {
		path string
		want error
	}{{text, keepcache.ErrFormat}, {foreign, keepcache.ErrFormat}, {unnamed, keepcache.ErrCorrupt}} {
		to := cachetest.NewPath(t)
		report, err := keepcache.Repair(t.Context(), c.path, to, nil)
		cachetest.RequireError(t, err, c.want, "repair", c.path)
		require.Zero(t, report.Entries)
		left, err := filepath.Glob(to + "*")
		require.NoError(t, err)
		require.Empty(t, left)
	}
	to := cachetest.NewPath(t)
	report, err := keepcache.Repair(t.Context(), unnamed, to, &keepcache.RepairOptions{Buckets: []string{"sessions"}})
	require.NoError(t, err)
	require.EqualValues(t, 100, report.Entries)

	empty, to := cachetest.NewPath(t), cachetest.NewPath(t)
	require.NoError(t, cachetest.Open(t, empty, nil).Close())
	report, err = keepcache.Repair(t.Context(), empty, to, nil)
	require.NoError(t, err)
	require.True(t, report.Whole)
	require.FileExists(t, to)
}
