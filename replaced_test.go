package keepcache_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// Each entry that expires is counted and told of once, whether a sweep, a commit or a write to its key comes first, and
// wherever it is.
func TestReplaced(t *testing.T) {
	type cache struct {
		db *keepcache.DB
		b  *keepcache.Bucket
	}
	set := func(c cache) error { return c.b.Set("k", 1, time.Second) }
	for name, write := range map[string]func(cache) error{
		"Set":  set,
		"Add":  func(c cache) error { return second(c.b.Add("k", 1, time.Second)) },
		"Swap": func(c cache) error { return second(c.b.Swap("k", 1, time.Second, nil)) },
		"Update": func(c cache) error {
			return update(c.b, "k", func(keepcache.Entry, bool) (any, error) { return 1, nil })
		},
		"Increment": func(c cache) error { return second(c.b.Increment("k", 1, time.Second)) },
		"SetMany":   func(c cache) error { return c.b.SetMany(map[string]any{"k": 1}, time.Second) },
		"Apply": func(c cache) error {
			var batch keepcache.Batch
			batch.Set(c.b, "k", 1, time.Second)
			return c.db.Apply(&batch)
		},
		"GetOrLoad": func(c cache) error {
			return second(c.b.GetOrLoad(context.Background(), "k", new(int),
				func(context.Context, *keepcache.Load) (any, error) { return 1, nil },
				&keepcache.LoadOptions{TTL: time.Second}))
		},
		"SetUntil":   func(c cache) error { return c.b.SetUntil("k", 1, time.Now().Add(time.Second)) },
		"Delete":     func(c cache) error { return errors.Join(second(c.b.Delete("k")), set(c)) },
		"DeleteMany": func(c cache) error { return errors.Join(second(c.b.DeleteMany([]string{"k"})), set(c)) },
		"Take":       func(c cache) error { return errors.Join(second(c.b.Take("k", nil)), set(c)) },
	} {
		for where, between := range map[string]func(cache){
			"in memory": func(cache) {},
			"in the file": func(c cache) {
				require.NoError(t, c.db.Compact(context.Background())) // which commits
			},
		} {
			t.Run(name+" "+where, func(t *testing.T) {
				t.Parallel()
				if where == "in the file" {
					skipOnWindows(t, "Compact is what commits here")
				}
				synctest.Test(t, func(t *testing.T) {
					told := make(chan keepcache.Event, 100)
					db := newDB(t, &keepcache.Options{
						CommitInterval: -1, SweepInterval: -1, DefaultTTL: time.Second, MemoryBytes: 1 << 20, JournalBytes: 1 << 20,
						Events: keepcache.Events{Kinds: keepcache.EventExpire, Handle: func(e keepcache.Event) { told <- e }},
					})
					c := cache{db, db.Bucket("b")}
					require.NoError(t, set(c))
					for range 5 {
						between(c)
						time.Sleep(2 * time.Second)
						require.NoError(t, write(c))
					}
					between(c) // what the file had is known when it is changed
					require.Equal(t, uint64(5), db.Stats().Evictions.Expired, "%+v", db.Stats().Sweep)
					time.Sleep(2 * time.Second)
					_, err := db.Sweep(t.Context())
					require.NoError(t, err)
					require.Equal(t, uint64(6), db.Stats().Evictions.Expired)
					synctest.Wait()
					require.Len(t, told, 6)
					e := <-told
					require.Equal(t, "b/k", e.Bucket+"/"+e.Key)
				})
			})
		}
	}
}

// Entries that are overwritten or removed while they live count as nothing of that kind.
func TestReplaced_Live(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, &keepcache.Options{CommitInterval: -1, SweepInterval: -1})
		b := db.Bucket("b")
		for i := range 5 {
			mustSet(t, b, "k", i, time.Second)
			mustSet(t, b, "l", i, time.Second)
			committed(t, db)
			time.Sleep(time.Second / 2)
			_, err := b.Delete("l")
			require.NoError(t, err)
			time.Sleep(time.Second / 4)
		}
		mustSet(t, b, "k", 1, 0)
		time.Sleep(2 * time.Second)
		committed(t, db)
		require.Zero(t, db.Stats().Evictions.Expired)
	})
}

// What a restored entry says of when it was written does not matter: an entry counts as expired if it was when it was
// replaced.
func TestReplaced_Restored(t *testing.T) {
	for _, inFile := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			db := newDB(t, &keepcache.Options{CommitInterval: -1, SweepInterval: -1, MemoryBytes: 1 << 20})
			b := db.Bucket("b")
			mustSet(t, b, "k", 1, time.Hour)
			if inFile {
				committed(t, db)
			}
			require.NoError(t, b.Restore(keepcache.Entry{Key: "k", WrittenAt: time.Now().Add(10 * time.Hour)}, 2))
			committed(t, db)
			require.Zero(t, db.Stats().Evictions.Expired)

			if !inFile {
				mustSet(t, b, "k", 1, time.Second)
				time.Sleep(2 * time.Second)
				require.NoError(t, b.Restore(keepcache.Entry{Key: "k", WrittenAt: time.Now().Add(-time.Hour)}, 2))
				require.Equal(t, uint64(1), db.Stats().Evictions.Expired)
			}
		})
	}
}

// An expired entry counts once also where the commit fails that was to bring it into the file, and where the write
// fails that was to replace it.
func TestReplaced_Failed(t *testing.T) {
	skipOnWindows(t, "the file cannot be taken away")
	for _, retracted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "cache")
			o := healOptions
			o.OnCorruption, o.CommitInterval = keepcache.CorruptionFail, -1
			db, err := keepcache.Open(path, &o)
			require.NoError(t, err)
			fillToTake(t, db)
			b := db.Bucket("b")
			mustSet(t, b, "k", 1, time.Second)
			whole, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(path, 5000))
			if retracted {
				require.NoError(t, os.Remove(path+"-journal"))
			}
			db.Heal()
			synctest.Wait()
			if !retracted {
				require.ErrorIs(t, second(db.Sweep(t.Context())), keepcache.ErrUnavailable)
			}
			time.Sleep(2 * time.Second)
			if retracted {
				require.ErrorIs(t, b.Set("other", 2, 0), keepcache.ErrUnavailable) // a commit has tried it: the outcome is unknown
				require.ErrorIs(t, b.Set("k", 2, time.Hour), keepcache.ErrUnavailable)
				require.Zero(t, db.Stats().Evictions.Expired)
			}
			require.NoError(t, os.WriteFile(path, whole, 0o600))
			db.Heal()
			synctest.Wait()
			mustSet(t, b, "k", 3, time.Hour)
			require.Equal(t, uint64(1), db.Stats().Evictions.Expired)
			committed(t, db)
			require.Equal(t, uint64(1), db.Stats().Evictions.Expired)
			require.NoError(t, db.Close())
		})
	}
}
