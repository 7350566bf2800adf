package kills_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

func init() { cachetest.Children["compact writer"] = compactWriter }

// compactWriter writes and compacts until it is killed. It tells the number of each write that returned.
func compactWriter(t cachetest.Tester, args []string) {
	o := &keepcache.Options{CompactBytes: -1, CommitInterval: 2 * time.Millisecond, SweepInterval: 5 * time.Millisecond}
	what := args[1]
	switch what {
	case "evict":
		o.MaxBytes = 1 << 20
	case "crowd": // commits of more entries than go into the file at a time, because the journal is half full by then
		o.CommitInterval, o.JournalBytes = time.Hour, 4<<20
	}
	db := cachetest.Open(t, args[0], o)
	b := db.Bucket("b")
	failed := make(chan error)
	if what == "compact" {
		go func() {
			for {
				if err := db.Compact(context.Background()); err != nil {
					failed <- err
				}
			}
		}()
	}
	go func() {
		for i := 0; ; i++ {
			if err := b.Set(cachetest.Numbered(i%maintainedKeys[what]), i, time.Duration(i%2)*time.Hour); err != nil {
				failed <- err
			}
			if what == "crowd" {
				if i%100 == 0 {
					fmt.Fprintln(os.Stdout, i)
				}
				continue
			}
			if err := db.Bucket("fill").Set(cachetest.Numbered(i%700), strings.Repeat("x", i%5000),
				10*time.Millisecond+time.Duration(i%3)*time.Hour); err != nil {
				failed <- err
			}
			fmt.Fprintln(os.Stdout, i)
		}
	}()
	require.NoError(t, <-failed)
}

// maintainedKeys is how many keys compactWriter writes to.
var maintainedKeys = map[string]int{"compact": 3000, "evict": 3000, "crowd": 50_000}

// Processes that are killed while they compact, or evict, leave one whole file, which lost nothing but what was
// evicted, and at most one stray, which is gone after the next Open.
func TestCrash_KillCompacting(t *testing.T) { killMaintaining(t, "compact") }

func TestCrash_KillEvicting(t *testing.T) { killMaintaining(t, "evict") }

// So do those that are killed while they commit what nearly fills the journal.
func TestCrash_KillCrowded(t *testing.T) { killMaintaining(t, "crowd") }

func killMaintaining(t *testing.T, what string) {
	var strays, total atomic.Int64
	keys, most := maintainedKeys[what], 150
	if what == "crowd" {
		most = 1500
	}
	kill(t, func(t *testing.T, run int) {
		if what == "crowd" && run%10 > 0 {
			return // each is long
		}
		path := filepath.Join(t.TempDir(), "crash.cache")
		cmd, out := cachetest.StartChild(t, "compact writer", path, what)
		lines, begun := make(chan int), make(chan bool)
		go func() {
			in, last := bufio.NewReader(out), -1
			for n := 0; ; {
				if _, err := fmt.Fscanln(in, &n); err != nil {
					break
				}
				if last = n; n == 0 {
					close(begun)
				}
			}
			lines <- last
		}()
		<-begun // the file exists: its creation is for TestCrash_KillDuringCreation
		time.Sleep(time.Duration(10+rand.IntN(most)) * time.Millisecond)
		require.NoError(t, cmd.Process.Kill())
		last := <-lines
		if _, err := os.Stat(path); err != nil {
			return
		}
		if _, err := os.Stat(path + ".compact"); err == nil {
			strays.Add(1)
		}
		db := cachetest.Open(t, path, &keepcache.Options{CompactBytes: -1})
		cachetest.Sound(t, db)
		found := 0
		for k := range min(last+1, keys) {
			var got int
			is, err := db.Bucket("b").Get(cachetest.Numbered(k), &got)
			require.NoError(t, err)
			want := last - (last-k)%keys // the last number that was written to this key
			switch {
			case !is:
				require.Equal(t, "evict", what, "%d is lost", k)
			default:
				require.GreaterOrEqual(t, got, want, "an older value came back")
				require.Zero(t, (got-k)%keys)
				found++
			}
		}
		require.True(t, last < 100 || found > 0)
		total.Add(int64(last + 1))
		require.NoError(t, db.Close())
		beside, err := filepath.Glob(path + "*")
		require.NoError(t, err)
		require.Equal(t, []string{path}, beside)
	})
	t.Logf("%d runs, %d writes, %d strays", *crashRuns, total.Load(), strays.Load())
	require.Positive(t, total.Load())
}
