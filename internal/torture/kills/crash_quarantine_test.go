package kills_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

func init() { cachetest.Children["crash quarantiner"] = crashQuarantiner }

const (
	quarantineWriters = 4
	quarantineSlots   = 5  // keys of each writer
	lateEntries       = 10 // that only the journal has

	// asidesLeft is how many damaged files a crash may leave: those that are kept, and one more from when a fresh file has
	// taken the place of the last one until the oldest is removed.
	asidesLeft = 3 + 1
)

// crashQuarantiner opens the cache at a path and writes until it is killed: rising numbers from the last argument on.
func crashQuarantiner(t cachetest.Tester, args []string) {
	from, err := strconv.Atoi(args[2])
	require.NoError(t, err)
	o := keepcache.Options{CommitInterval: 5 * time.Millisecond}
	if args[1] == "always" {
		o.Sync = keepcache.SyncAlways
	}
	fmt.Println("start")
	b := cachetest.Open(t, args[0], &o).Bucket("new")
	fmt.Println("open")
	failed := make(chan error)
	for writer := range quarantineWriters {
		go func() {
			for number := from; ; number++ {
				fmt.Fprintf(os.Stdout, "try %d %d\n", writer, number)
				if err := b.Set(slotOf(writer, number), number, time.Hour); err != nil {
					failed <- err
				}
				fmt.Fprintf(os.Stdout, "did %d %d\n", writer, number)
			}
		}()
	}
	require.NoError(t, <-failed)
}

func slotOf(writer, number int) string { return fmt.Sprint(writer, "-", number%quarantineSlots) }

// damagedCache makes a cache at path as a killed process leaves it, and damages its file, of which it returns the
// content. Three others are kept aside already.
func damagedCache(t *testing.T, path string) []byte {
	t.Helper()
	other := cachetest.NewPath(t)
	db := cachetest.Open(t, other, &keepcache.Options{
		CommitInterval: time.Hour, SweepInterval: -1, CompactBytes: -1, JournalBytes: 64 << 10, MemoryBytes: 4 << 20,
	})
	b := db.Bucket("old")
	for i := range 200 {
		cachetest.MustSet(t, b, cachetest.Numbered(i), i, 0)
	}
	cachetest.Committed(t, db)
	cachetest.MustSet(t, b, "replaced", "old", 0)
	require.NoError(t, b.SetBytes("replaced", make([]byte, 50_000), 0)) // too large for the journal
	for i := range lateEntries {
		cachetest.MustSet(t, b, fmt.Sprint("late", i), i, 0)
	}
	cachetest.CrashCopy(t, other, path)
	require.NoError(t, db.Close())
	for i := range 3 {
		require.NoError(t, os.WriteFile(fmt.Sprintf("%s.corrupt-2000010%dT000000.000000Z", path, i+1), []byte("older"),
			0o600))
	}
	return cachetest.BreakFile(t, path)
}

// readNumbers reads the lines of a quarantiner, the last of which may be cut short, and adds the last numbers that it
// tried to write to each slot, and that it wrote.
func readNumbers(out io.Reader, tried, did map[string]int) {
	in := bufio.NewReader(out)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		var verb string
		var writer, number int
		if n, _ := fmt.Sscan(line, &verb, &writer, &number); n < 3 {
			continue
		}
		tried[slotOf(writer, number)] = number // it may be killed between the two lines of another goroutine
		if verb == "did" {
			did[slotOf(writer, number)] = number
		}
	}
}

// A process that is killed while it keeps a damaged file aside and begins a fresh one, and while it writes to that,
// loses no write that returned, nothing that the journal had, and not the damaged file; what comes next opens the
// cache, and nothing that was replaced is back.
func TestCrash_KillInQuarantine(t *testing.T) {
	var before, during, behind atomic.Int64
	kill(t, func(t *testing.T, run int) {
		path := filepath.Join(t.TempDir(), "crash.cache")
		damaged := damagedCache(t, path)
		isDamaged := func(path string) bool {
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			return bytes.Equal(content, damaged)
		}
		mode := []string{"periodic", "always"}[run%2]
		tried, did := map[string]int{}, map[string]int{}
		for round := range 1 + rand.IntN(2) { // the second meets what the first has left
			cmd, out := cachetest.StartChild(t, "crash quarantiner", path, mode, fmt.Sprint(1+round*1_000_000))
			in := bufio.NewReader(out)
			line, err := in.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "start\n", line)
			most := time.Duration(1+rand.IntN(40)) * time.Millisecond // most of it happens in the first of them
			time.AfterFunc(rand.N(most), func() { _ = cmd.Process.Kill() })
			readNumbers(in, tried, did)
			_ = cmd.Wait()
			require.Equal(t, -1, cmd.ProcessState.ExitCode(), "it ended by itself: %v", cmd.ProcessState)
		}

		still := isDamaged(path)
		beside, err := filepath.Glob(path + ".corrupt-*")
		require.NoError(t, err)
		switch {
		case len(did) > 0:
			require.False(t, still)
			behind.Add(1)
		case still && len(beside) == 3:
			before.Add(1)
		default:
			during.Add(1)
		}
		db := cachetest.Open(t, path, nil)
		require.Equal(t, still, db.Stats().Health.Quarantined == 1, "%+v", db.Stats().Health)
		cachetest.Sound(t, db)
		b := db.Bucket("new")
		for slot, least := range did {
			var number int
			found, err := b.Get(slot, &number)
			require.NoError(t, err)
			require.True(t, found, "lost: %s, %d", slot, least)
			require.GreaterOrEqual(t, number, least, "lost: %s", slot)
			require.LessOrEqual(t, number, tried[slot])
		}
		b = db.Bucket("old")
		for i := range lateEntries {
			cachetest.RequireValue(t, b, fmt.Sprint("late", i), int64(i))
		}
		cachetest.RequireAbsent(t, b, "replaced")
		for e, err := range b.Prefix("k") {
			require.NoError(t, err)
			var i int
			require.NoError(t, e.Decode(&i))
			require.Equal(t, e.Key, cachetest.Numbered(i))
		}
		cachetest.MustSet(t, b, "after", 1, 0)
		require.NoError(t, db.Sync(context.Background()))
		require.NoError(t, db.Close())

		all, err := filepath.Glob(path + "*")
		require.NoError(t, err)
		asides, kept := 0, false
		for _, name := range all {
			if name == path {
				continue
			}
			require.Contains(t, name, ".corrupt-", "left behind")
			asides++
			kept = kept || isDamaged(name)
		}
		require.True(t, kept, "the damaged file is gone: %v", all)
		require.LessOrEqual(t, asides, asidesLeft)
	})
	t.Logf("%d runs: killed %d times before anything had happened, %d while the damaged file was kept aside, %d behind the first write",
		*crashRuns, before.Load(), during.Load(), behind.Load())
	require.Positive(t, before.Load()+during.Load()+behind.Load())
}
