package kills_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

func init() {
	cachetest.Children["crash incrementer"] = func(t cachetest.Tester, args []string) {
		opts := &keepcache.Options{CommitInterval: 10 * time.Millisecond}
		if args[1] == "always" {
			opts.Sync = keepcache.SyncAlways
		}
		b := cachetest.Open(t, args[0], opts).Bucket("b")
		failed := make(chan error)
		for range crashWriters {
			go func() {
				for {
					fmt.Fprintln(os.Stdout, "try")
					if _, err := b.Increment("n", 1, 0); err != nil {
						failed <- err
					}
					fmt.Fprintln(os.Stdout, "did")
				}
			}()
		}
		require.NoError(t, <-failed)
	}
}

// Processes that increment one key from many goroutines and are killed lose no increment that returned, and
// count none twice: from one process to the next the sum rises by what was done, and at most by what was tried.
func TestCrash_Increment(t *testing.T) {
	cachetest.SkipOnWindows(t, "a killed process's locks and pipes end too late there to be told from a bug")
	for _, mode := range []string{"periodic", "always"} {
		path := filepath.Join(t.TempDir(), "crash.cache")
		least, most := int64(0), int64(0)
		for range max(*crashRuns/4, 3) {
			cmd, out := cachetest.StartChild(t, "crash incrementer", path, mode)
			counts, began := make(chan [2]int64), make(chan struct{})
			go func() {
				var tried, done int64
				begin := sync.OnceFunc(func() { close(began) })
				for lines := bufio.NewScanner(out); lines.Scan(); {
					tried += int64(strings.Count(lines.Text(), "try"))
					if done += int64(strings.Count(lines.Text(), "did")); done > 0 {
						begin()
					}
				}
				begin()
				counts <- [2]int64{tried, done}
			}()
			<-began // however busy the machine is
			time.Sleep(100 * time.Millisecond)
			require.NoError(t, cmd.Process.Kill())
			count := <-counts
			_ = cmd.Wait()

			db := cachetest.Open(t, path, nil)
			var n int64
			found, err := db.Bucket("b").Get("n", &n)
			require.NoError(t, err)
			require.True(t, found || count[1] == 0)
			least, most = least+count[1], most+count[0]
			require.GreaterOrEqual(t, n, least, "increments are lost (%s)", mode)
			require.LessOrEqual(t, n, most, "increments are counted twice (%s)", mode)
			least, most = n, n
			require.NoError(t, db.Close())
		}
		require.Positive(t, least)
		t.Logf("%s: %d increments", mode, least)
	}
}
