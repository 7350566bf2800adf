package keepcache_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/disk"
)

// Who is told of what a commit or a sweep removed may call whatever waits for a commit.
func TestEventQueue_Calls(t *testing.T) {
	skipOnWindows(t, "a file cannot be replaced while it is open")
	ctx := context.Background()
	const failing = "failing.cache" // whose journal fails
	disk.Between = func(op *disk.Op, do func() error) error {
		if op.Kind == disk.KindSync && strings.HasSuffix(op.File.Name(), failing+"-journal") {
			return &os.PathError{Op: "sync", Path: op.File.Name(), Err: syscall.EIO}
		}
		return do()
	}
	t.Cleanup(func() { disk.Between = nil }) // behind all of them
	for name, call := range map[string]func(db *keepcache.DB, b *keepcache.Bucket, key string) error{
		"Sweep":   func(db *keepcache.DB, _ *keepcache.Bucket, _ string) error { _, err := db.Sweep(ctx); return err },
		"Compact": func(db *keepcache.DB, _ *keepcache.Bucket, _ string) error { return db.Compact(ctx) },
		"Backup":  func(db *keepcache.DB, _ *keepcache.Bucket, _ string) error { return db.Backup(ctx, io.Discard) },
		"a write past the journal": func(_ *keepcache.DB, b *keepcache.Bucket, key string) error {
			return b.SetBytes(key, make([]byte, 100<<10), 0)
		},
		"Sync after the journal failed": func(db *keepcache.DB, b *keepcache.Bucket, key string) error {
			if err := b.Set(key, 1, 0); err != nil {
				return err
			}
			return db.Sync(ctx)
		},
		"Close": func(db *keepcache.DB, _ *keepcache.Bucket, _ string) error { return db.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := newPath(t)
			if name == "Sync after the journal failed" {
				path = filepath.Join(filepath.Dir(path), failing)
			}
			var db *keepcache.DB
			ready, returned := make(chan struct{}), make(chan keepcache.EventKind, 100)
			db = open(t, path, &keepcache.Options{
				CommitInterval: 5 * time.Millisecond, SweepInterval: 5 * time.Millisecond, JournalBytes: 64 << 10,
				MemoryBytes: 4 << 20,
				Buckets:     map[string]keepcache.BucketOptions{"b": {MaxEntries: 1}},
				Events: keepcache.Events{
					Kinds: keepcache.EventExpire | keepcache.EventEvict,
					Handle: func(e keepcache.Event) {
						<-ready
						if err := call(db, db.Bucket("other"), e.Kind.String()+e.Key); err != nil {
							t.Errorf("%v: %v", e.Kind, err)
						}
						returned <- e.Kind
					},
				},
			})
			if name != "Close" {
				close(ready)
			}
			for i := range 3 {
				mustSet(t, db.Bucket("b"), numbered(i), 1, 0)
				mustSet(t, db.Bucket("c"), numbered(i), 1, time.Duration(1+i*20)*time.Millisecond) // in memory and in the file
			}
			if name == "Close" {
				close(ready) // not before all is written: then no write would be taken
			}
			left, late := map[keepcache.EventKind]int{keepcache.EventEvict: 2, keepcache.EventExpire: 3},
				time.After(20*time.Second)
			if name == "Close" {
				left = map[keepcache.EventKind]int{keepcache.EventEvict: 0, keepcache.EventExpire: 1}
			}
			for left[keepcache.EventEvict] > 0 || left[keepcache.EventExpire] > 0 {
				select {
				case kind := <-returned:
					if left[kind]--; name == "Close" {
						return
					}
				case <-late:
					go panic("the handler waits for itself") // Close, which a panic here would call, would too
					select {}
				}
			}
		})
	}
}

// withQueue has a cache whose entries expire at once, with a handler and a log. write writes n of them, with long keys:
// some 270 of these fill the event queue.
func withQueue(t *testing.T, log io.Writer, handle func(keepcache.Event)) (db *keepcache.DB, write func(n int)) {
	db = newDB(t, &keepcache.Options{
		CommitInterval: time.Hour, SweepInterval: -1, MemoryBytes: 64 << 20, Logger: slog.New(slog.NewTextHandler(log, nil)),
		Events: keepcache.Events{Kinds: keepcache.EventExpire, Handle: handle},
	})
	next := 0
	return db, func(n int) {
		t.Helper()
		many := make(map[string]any)
		for range n {
			many[numbered(next)+strings.Repeat("x", 31_000)] = 1
			next++
		}
		require.NoError(t, db.Bucket("b").SetMany(many, time.Millisecond))
		time.Sleep(time.Second)
		committed(t, db)
	}
}

// A handler that is slow is told of everything, in order, and commits wait for it rather than hold more than they may.
func TestEventQueue_Slow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var told []string
		db, write := withQueue(t, &log, func(e keepcache.Event) {
			time.Sleep(900 * time.Millisecond)
			told = append(told, e.Key[:7])
		})
		begun := time.Now()
		write(400)
		require.Greater(t, time.Since(begun), 100*time.Second)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Len(t, told, 400)
		for i, key := range told {
			require.Equal(t, numbered(i), key)
		}
		require.Empty(t, log.String())
		require.NoError(t, db.Close())
	})
}

// Commits wait for a handler that does not return, but not for long. What there is no room for then is dropped, and
// that is said; afterwards everything is told of again.
func TestEventQueue_Stuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		told, hold := 0, make(chan struct{})
		db, write := withQueue(t, &log, func(keepcache.Event) {
			<-hold
			time.Sleep(time.Millisecond)
			told++
		})
		begun := time.Now()
		write(400)
		write(100)
		require.Equal(t, 3*time.Second, time.Since(begun)) // two of them are write's own
		close(hold)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Greater(t, told, 250)
		require.Less(t, told, 300)
		dropped := regexp.MustCompile(`events=(\d+)`).FindStringSubmatch(log.String())
		require.Len(t, dropped, 2, log.String())
		require.Equal(t, fmt.Sprint(500-told), dropped[1])
		told = 0
		write(400)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 400, told)
		require.NoError(t, db.Close())
	})
}

// Close has the handler told of what waits. It does so for ten seconds at the longest, and only as long as the handler
// returns within one.
func TestEventQueue_Close(t *testing.T) {
	for name, c := range map[string]struct {
		takes, want time.Duration
		told        int
	}{
		"quick":   {10 * time.Millisecond, time.Second, 100},
		"slow":    {time.Second - 1, 10 * time.Second, 10},
		"waiting": {time.Hour, time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				var mu sync.Mutex
				told, dropped := 0, 0
				db := newDB(t, &keepcache.Options{
					CommitInterval: time.Hour, SweepInterval: -1, Logger: slog.New(slog.NewTextHandler(&log, nil)),
					Buckets: map[string]keepcache.BucketOptions{"b": {MaxEntries: 1}},
					Events: keepcache.Events{Kinds: keepcache.EventEvict, Handle: func(keepcache.Event) {
						time.Sleep(c.takes)
						mu.Lock()
						told++
						mu.Unlock()
					}},
				})
				fill(t, db.Bucket("b"), 101, 0)
				begun := time.Now()
				require.NoError(t, db.Close())
				require.Equal(t, c.want, time.Since(begun))
				mu.Lock()
				require.Equal(t, c.told, told)
				mu.Unlock()
				if c.told < 100 {
					_, err := fmt.Sscanf(regexp.MustCompile(`events=\d+`).FindString(log.String()), "events=%d", &dropped)
					require.NoError(t, err)
				}
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				require.Equal(t, 100, told+dropped) // the one that was under way ends
			})
		})
	}
}

// Close has the handler told of more than there is room for too, where that comes with the last commit. It takes no
// longer for that.
func TestEventQueue_CloseFull(t *testing.T) {
	for name, c := range map[string]struct{ takes, least, most time.Duration }{
		"quick":   {time.Millisecond, 400 * time.Millisecond, time.Second},
		"slow":    {900 * time.Millisecond, 10 * time.Second, 10 * time.Second},
		"waiting": {time.Hour, time.Second, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				told := 0
				db := newDB(t, &keepcache.Options{
					CommitInterval: time.Hour, SweepInterval: -1, MemoryBytes: 64 << 20, CommitBytes: 24 << 20,
					JournalBytes: 128 << 20, Logger: slog.New(slog.NewTextHandler(&log, nil)),
					Events: keepcache.Events{Kinds: keepcache.EventExpire, Handle: func(keepcache.Event) {
						time.Sleep(c.takes)
						told++
					}},
				})
				for i := range 400 {
					mustSet(t, db.Bucket("b"), numbered(i)+strings.Repeat("x", 31_000), 1, time.Millisecond)
				}
				time.Sleep(time.Second)
				begun := time.Now()
				require.NoError(t, db.Close())
				require.GreaterOrEqual(t, time.Since(begun), c.least)
				require.LessOrEqual(t, time.Since(begun), c.most)
				dropped := 0
				for _, found := range regexp.MustCompile(`events=(\d+)`).FindAllStringSubmatch(log.String(), -1) {
					n, err := strconv.Atoi(found[1])
					require.NoError(t, err)
					dropped += n
				}
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				require.Equal(t, 400, told+dropped)
				require.Equal(t, name == "quick", told == 400, "%d", told)
			})
		})
	}
}

// A handler that panics, or ends its goroutine, is told of what follows all the same.
func TestEventQueue_Ended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		_, write := withQueue(t, io.Discard, func(keepcache.Event) {
			if told++; told%2 == 0 {
				panic("a handler that fails")
			}
			runtime.Goexit()
		})
		write(10)
		synctest.Wait()
		require.Equal(t, 10, told)
		write(1)
		synctest.Wait()
		require.Equal(t, 11, told)
	})
}
