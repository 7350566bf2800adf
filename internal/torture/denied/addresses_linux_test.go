package denied_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

func init() {
	cachetest.Children["few addresses"] = fewAddresses
	cachetest.Children["growing map"] = growingMap
	cachetest.Children["no addresses"] = noAddresses
}

// limitAddresses bounds the addresses of this process to so many bytes more than it has.
func limitAddresses(t cachetest.Tester, more int64) {
	unlimitAddresses(t)
	status, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	pages, err := strconv.ParseInt(strings.Fields(string(status))[0], 10, 64)
	require.NoError(t, err)
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_AS,
		&unix.Rlimit{Cur: uint64(pages*int64(os.Getpagesize()) + more), Max: math.MaxUint64}))
}

func unlimitAddresses(t cachetest.Tester) {
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: math.MaxUint64, Max: math.MaxUint64}))
}

// growHeap has the heap reserve addresses, which it keeps: then what follows is about those of the map.
func growHeap(bytes int) {
	room := make([]byte, bytes)
	for i := 0; i < len(room); i += 4096 {
		room[i] = 1
	}
	runtime.KeepAlive(room)
	room = nil
	runtime.GC()
}

func runLimited(t *testing.T, name string, kib int) {
	t.Helper()
	t.Parallel()
	if cachetest.Raced || math.MaxInt == math.MaxInt32 {
		t.Skip("the race detector needs more addresses than there are, and 32 bits have their own limit")
	}
	cmd := cachetest.ChildCommand(name, t.TempDir())
	cmd.Env = append(cmd.Env, "MALLOC_ARENA_MAX=1") // of a libc's 64 MiB for each thread, where the test binary has one
	if kib > 0 {
		// From the beginning, as the runtime reserves less then. A libc gives each thread as much as a stack may have.
		cmd.Args = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -s 1024 && ulimit -v %d && exec "$0" "$@"`, kib),
			cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
	}
	out, err := cmd.Output()
	require.NoError(t, err, "%s", out)
}

// With 1 GiB of addresses for the whole process all that opens a file works, several at a time.
func TestAddresses_Few(t *testing.T) { runLimited(t, "few addresses", 1<<20) }

func fewAddresses(t cachetest.Tester, args []string) {
	ctx := context.Background()
	var dbs []*keepcache.DB
	for i := range 2 { // three passed most of the time: the stacks of threads, whose number nobody sets, may take the rest
		db := cachetest.Open(t, filepath.Join(args[0], fmt.Sprint(i, ".cache")), nil)
		for n := range 200 {
			require.NoError(t, db.Set(fmt.Sprint(n), strings.Repeat("x", 1000), time.Hour))
		}
		dbs = append(dbs, db)
	}
	for _, db := range dbs {
		require.NoError(t, db.Compact(ctx))
		var copied bytes.Buffer
		require.NoError(t, db.Backup(ctx, &copied))
		_, err := db.Verify(ctx)
		require.NoError(t, err)
		reader, err := keepcache.Open(db.Path(), &keepcache.Options{ReadOnly: true, NoLock: true})
		require.NoError(t, err)
		requireFound(t, reader, "7", strings.Repeat("x", 1000))
		require.NoError(t, reader.Close())

		path := filepath.Join(args[0], "copy.cache")
		require.NoError(t, os.WriteFile(path, copied.Bytes(), 0o600))
		reader, err = keepcache.Open(path, &keepcache.Options{ReadOnly: true})
		require.NoError(t, err)
		requireFound(t, reader, "7", strings.Repeat("x", 1000))
		require.NoError(t, reader.Close())
		repaired := filepath.Join(args[0], "repaired.cache")
		_, err = keepcache.Repair(ctx, path, repaired, nil)
		require.NoError(t, err)
		require.NoError(t, os.Remove(repaired))
		at := copied.Len() / 2 / 4096 * 4096
		clear(copied.Bytes()[at : at+4096])
		require.NoError(t, os.WriteFile(path, copied.Bytes(), 0o600))
		fresh, err := keepcache.Open(path, nil) // what is damaged is kept aside
		require.NoError(t, err)
		require.Equal(t, uint64(1), fresh.Stats().Health.Quarantined)
		require.NoError(t, fresh.Close())
		require.NoError(t, os.Remove(path))
	}
}

func requireFound(t cachetest.Tester, db *keepcache.DB, key, want string) {
	t.Helper()
	var got string
	found, err := db.Get(key, &got)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, want, got)
}

// A file that outgrows its map several times does so while it is read in every way, copied and backed up, and nobody
// waits for another.
func TestAddresses_Growth(t *testing.T) { runLimited(t, "growing map", 0) }

func growingMap(t cachetest.Tester, args []string) {
	const entries, size = 1200, 100 << 10 // 120 MiB
	growHeap(256 << 20)
	limitAddresses(t, 600<<20)
	db := cachetest.Open(t, filepath.Join(args[0], "x.cache"), &keepcache.Options{MemoryBytes: 4 << 20, CompactBytes: -1})
	limitAddresses(t, 500<<20)
	value := func(i int) []byte {
		v := make([]byte, size)
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		for n := 0; n < len(v); n += 512 {
			v[n] = byte(rng.Uint32())
		}
		return v
	}
	b := db.Bucket("b")
	require.NoError(t, b.SetBytes("0000", value(0), 0))
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	for w := range 3 {
		work.Go(func() {
			rng := rand.New(rand.NewPCG(2, uint64(w)))
			for ctx.Err() == nil {
				i := rng.IntN(entries)
				got, found, err := b.GetBytes(fmt.Sprintf("%04d", i))
				require.NoError(t, err)
				if found {
					require.Equal(t, value(i), got)
				}
			}
		})
	}
	work.Go(func() {
		for ctx.Err() == nil {
			for e, err := range b.Prefix("") {
				require.NoError(t, err)
				require.NoError(t, b.Set("seen", e.Key, 0)) // a write in the loop
			}
		}
	})
	work.Go(func() {
		for ctx.Err() == nil {
			require.NoError(t, db.Backup(context.Background(), new(counter)))
		}
	})
	for i := range entries {
		require.NoError(t, b.SetBytes(fmt.Sprintf("%04d", i), value(i), 0))
	}
	_, err := db.Sweep(context.Background())
	require.NoError(t, err)
	stop()
	work.Wait()
	require.Zero(t, db.Stats().Health.Failures)
	require.Greater(t, db.Stats().FileBytes, int64(100<<20))
}

// counter is a writer that counts.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// Where no addresses are left for a larger map, writes fail with the cause, what is there is read, and all goes on when
// there are some again.
func TestAddresses_None(t *testing.T) { runLimited(t, "no addresses", 0) }

func noAddresses(t cachetest.Tester, args []string) {
	growHeap(384 << 20)
	limitAddresses(t, 150<<20)
	db := cachetest.Open(t, filepath.Join(args[0], "x.cache"),
		&keepcache.Options{MemoryBytes: 4 << 20, CompactBytes: -1, CommitInterval: -1})
	limitAddresses(t, 100<<20) // threads take some too
	value := bytes.Repeat([]byte("v"), 100<<10)
	written, failure := 0, error(nil)
	for ; failure == nil; written++ {
		require.Less(t, written, 4000, "the file has no bound")
		failure = db.Bucket("b").SetBytes(fmt.Sprintf("%04d", written), value, 0)
	}
	written--
	require.ErrorIs(t, failure, syscall.ENOMEM)
	require.Greater(t, written, 100)
	require.ErrorIs(t, db.Stats().Commit.Err, syscall.ENOMEM)
	require.Zero(t, db.Stats().Health.Failures, "the file is still open")
	for i := range written {
		got, found, err := db.Bucket("b").GetBytes(fmt.Sprintf("%04d", i))
		require.NoError(t, err)
		require.True(t, found, i)
		require.Equal(t, value, got)
	}
	unlimitAddresses(t)
	_, err := db.Sweep(context.Background()) // which commits
	require.NoError(t, err)
	for i := range 200 {
		require.NoError(t, db.Bucket("b").SetBytes(fmt.Sprintf("more%04d", i), value, 0))
	}
	require.NoError(t, db.Stats().Commit.Err)
	n, err := db.Bucket("b").Len()
	require.NoError(t, err)
	require.Equal(t, written+200, n)
}
