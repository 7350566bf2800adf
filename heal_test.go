package keepcache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// small options let reads go to the file, and leave commits to the test.
var healOptions = keepcache.Options{
	MemoryBytes: 256 << 10, JournalBytes: 4 << 20, CommitInterval: time.Hour, SweepInterval: -1, CompactBytes: -1,
}

const healEntries = 500

func healValue(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 300) }

// fillToHeal makes a cache with entries in the file and some that only memory and journal have.
func fillToHeal(db *keepcache.DB) error {
	b := db.Bucket("b")
	for i := range healEntries {
		if err := b.SetBytes(numbered(i), healValue(i), time.Hour); err != nil {
			return err
		}
	}
	if _, err := db.Sweep(context.Background()); err != nil {
		return err
	}
	for i := range 20 {
		if err := b.Set(fmt.Sprint("late", i), i, 0); err != nil {
			return err
		}
	}
	return nil
}

// fillToTake is fillToHeal in a bubble, for a test that takes the file away next. A commit that filling has asked for
// may still be due, and would bring what the test writes then into the file.
func fillToTake(t *testing.T, db *keepcache.DB) {
	t.Helper()
	require.NoError(t, fillToHeal(db))
	synctest.Wait()
}

// lookHealed says what is wrong with a cache that fillToHeal made and that was healed. all says that nothing was lost,
// else what was only in the file may be.
func lookHealed(db *keepcache.DB, all bool) error {
	b := db.Bucket("b")
	for i := range 20 {
		var got int
		if found, err := b.Get(fmt.Sprint("late", i), &got); err != nil || !found || got != i {
			return fmt.Errorf("acknowledged late%d is lost: %v %v", i, found, err)
		}
	}
	there := 0
	for i := range healEntries {
		got, found, err := b.GetBytes(numbered(i))
		if err != nil {
			return err
		}
		if found && !bytes.Equal(got, healValue(i)) {
			return fmt.Errorf("%s has a wrong value", numbered(i))
		}
		if found {
			there++
		}
	}
	if all && there != healEntries {
		return fmt.Errorf("%d of %d entries are left", there, healEntries)
	}
	report, err := db.Verify(context.Background())
	if err == nil && !report.OK() {
		err = fmt.Errorf("%v", report.Problems)
	}
	return err
}

// A panic in a transaction makes the file unavailable for a moment and loses nothing.
func TestHeal_Panic(t *testing.T) {
	for name, fail := range map[string]func(*keepcache.DB) error{
		"view":   (*keepcache.DB).PanicInView,
		"update": (*keepcache.DB).PanicInUpdate,
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var told []keepcache.EventKind
			o := healOptions
			o.Events.Handle = func(e keepcache.Event) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, e.Kind)
			}
			db := newDB(t, &o)
			require.NoError(t, fillToHeal(db))
			for range 5 {
				require.ErrorIs(t, fail(db), keepcache.ErrUnavailable)
				require.NoError(t, awaitHealed(db))
			}
			require.NoError(t, lookHealed(db, true))
			h := db.Stats().Health
			require.Equal(t, keepcache.HealthStats{Failures: 5, Healed: 5}, h)
			mu.Lock()
			defer mu.Unlock()
			for range 5 {
				require.Equal(t, []keepcache.EventKind{keepcache.EventUnavailable, keepcache.EventHealed}, told[:2])
				told = told[2:]
			}
			require.Empty(t, told)
		})
	}
}

// While the file is unavailable reads find what memory has and miss else, writes go on, and what depends on
// what is stored is refused; when it is back all of that is in it.
func TestHeal_Unavailable(t *testing.T) {
	skipOnWindows(t, "the file cannot be taken away")
	o := healOptions
	o.OnCorruption = keepcache.CorruptionFail
	path := newPath(t)
	db := open(t, path, &o)
	require.NoError(t, fillToHeal(db))
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, 5000))
	require.Eventually(t, func() bool { return db.Stats().Health.Unavailable }, 10*time.Second, time.Millisecond)

	b := db.Bucket("b")
	requireValue(t, b, "late1", int64(1))
	for i := range healEntries { // memory may have some
		var got []byte
		found, err := b.Get(numbered(i), &got)
		require.NoError(t, err)
		require.True(t, !found || bytes.Equal(got, healValue(i)))
	}
	missing := numbered(0)
	_, err = b.Exists(missing)
	require.NoError(t, err)
	_, _, err = b.TTL(missing)
	require.NoError(t, err)
	_, err = b.GetMany([]string{missing})
	require.NoError(t, err)
	var loaded int
	_, err = b.GetOrLoad(context.Background(), "absent", &loaded,
		func(context.Context, *keepcache.Load) (any, error) { return 7, nil }, nil)
	require.NoError(t, err)
	require.Equal(t, 7, loaded)

	unavailable := func(what string, err error) { require.ErrorIs(t, err, keepcache.ErrUnavailable, what) }
	_, err = b.Add("none", 1, 0)
	unavailable("Add", err)
	_, err = b.Increment("none", 1, 0)
	unavailable("Increment", err)
	unavailable("Update", update(b, "none", func(keepcache.Entry, bool) (any, error) { return 1, nil }))
	_, err = b.Swap("none", 1, 0, nil)
	unavailable("Swap", err)
	_, err = compareAndSwap(b, "none", 1, 1)
	unavailable("CompareAndSwap", err)
	_, err = b.Take("none", nil)
	unavailable("Take", err)
	_, err = b.Touch("none", time.Hour)
	unavailable("Touch", err)
	_, err = b.Len()
	unavailable("Len", err)
	for _, err := range b.All() {
		unavailable("All", err)
	}
	_, err = db.Verify(context.Background())
	unavailable("Verify", err)
	unavailable("Compact", db.Compact(context.Background()))
	unavailable("Backup", db.Backup(context.Background(), &bytes.Buffer{}))
	_, err = db.Sweep(context.Background())
	unavailable("Sweep", err)

	mustSet(t, b, "meanwhile", "x", 0)
	requireValue(t, b, "meanwhile", "x")
	sum, err := b.Increment("late3", 10, 0) // memory knows it
	require.NoError(t, err)
	require.Equal(t, int64(13), sum)
	_, err = b.Increment("late3", -10, 0)
	require.NoError(t, err)
	_, err = b.Delete(numbered(1))
	require.NoError(t, err)
	require.NoError(t, db.Sync(context.Background()))

	// Until there is no room left. Then writers fail at once, with the cause.
	var full error
	for i := 0; full == nil && i < 10_000; i++ {
		full = b.SetBytes(fmt.Sprint("more", i), make([]byte, 1000), 0)
	}
	unavailable("Set", full)
	start := time.Now()
	unavailable("Set", b.SetBytes("another", make([]byte, 1000), 0))
	require.Less(t, time.Since(start), 2*time.Second)

	require.NoError(t, os.WriteFile(path, whole, 0o600)) // the same file, as it was
	require.NoError(t, awaitHealed(db))
	requireAbsent(t, b, numbered(1))
	requireValue(t, b, "meanwhile", "x")
	require.NoError(t, b.SetBytes(numbered(1), healValue(1), time.Hour))
	require.NoError(t, lookHealed(db, true))
}

// accesses are the ways to use a cache whose file is in trouble.
var accesses = map[string]func(db *keepcache.DB, b *keepcache.Bucket) error{
	"Get": func(_ *keepcache.DB, b *keepcache.Bucket) error {
		for i := range healEntries {
			if got, found, err := b.GetBytes(numbered(i)); err != nil || found && !bytes.Equal(got, healValue(i)) {
				return fmt.Errorf("%v %v", found, err)
			}
		}
		return nil
	},
	"GetMany": func(_ *keepcache.DB, b *keepcache.Bucket) error {
		many := make([]string, healEntries)
		for i := range many {
			many[i] = numbered(i)
		}
		_, err := b.GetMany(many)
		return err
	},
	"All": func(_ *keepcache.DB, b *keepcache.Bucket) error {
		for _, err := range b.All() {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"Set": func(db *keepcache.DB, b *keepcache.Bucket) error {
		if err := b.Set("set", 1, 0); err != nil {
			return err
		}
		_, err := db.Sweep(context.Background())
		return err
	},
	"Delete": func(_ *keepcache.DB, b *keepcache.Bucket) error { _, err := b.Delete("nothing"); return err },
	"DeletePrefix": func(_ *keepcache.DB, b *keepcache.Bucket) error {
		_, err := b.DeletePrefix(context.Background(), "nothing")
		return err
	},
	"Sweep": func(db *keepcache.DB, _ *keepcache.Bucket) error {
		_, err := db.Sweep(context.Background())
		return err
	},
	"Compact": func(db *keepcache.DB, _ *keepcache.Bucket) error { return db.Compact(context.Background()) },
	"Backup": func(db *keepcache.DB, _ *keepcache.Bucket) error {
		return db.Backup(context.Background(), &bytes.Buffer{})
	},
	"Verify": func(db *keepcache.DB, _ *keepcache.Bucket) error {
		_, err := db.Verify(context.Background())
		return err
	},
	"Len": func(_ *keepcache.DB, b *keepcache.Bucket) error { _, err := b.Len(); return err },
	"Touch": func(_ *keepcache.DB, b *keepcache.Bucket) error {
		_, err := b.Touch(numbered(7), time.Hour)
		return err
	},
	"Increment": func(_ *keepcache.DB, b *keepcache.Bucket) error { _, err := b.Increment("n", 1, 0); return err },
	"Stats":     func(db *keepcache.DB, _ *keepcache.Bucket) error { db.Stats(); return nil },
	"Sync":      func(db *keepcache.DB, _ *keepcache.Bucket) error { return db.Sync(context.Background()) },
	"Close":     func(db *keepcache.DB, _ *keepcache.Bucket) error { _ = db.Close(); return nil },
}

// troubles are what others do to the file of an open cache.
var troubles = map[string]struct {
	make     func(path string) error
	harmless bool // the open file still has everything
}{
	"emptied":   {func(path string) error { return os.Truncate(path, 0) }, false},
	"cut":       {func(path string) error { return os.Truncate(path, 100_000) }, false},
	"one page":  {func(path string) error { return os.Truncate(path, 4096) }, false},
	"deleted":   {os.Remove, true},
	"all gone":  {func(path string) error { return errors.Join(os.Remove(path), os.Remove(path+"-journal")) }, true},
	"a journal": {func(path string) error { return os.Truncate(path+"-journal", 20_000) }, true},
	"replaced": {func(path string) error {
		other, err := keepcache.Open(path+".other", nil)
		if err != nil {
			return err
		}
		return errors.Join(other.Set("k", "of another", 0), other.Close(), os.Rename(path+".other", path))
	}, true},
}

// filling bounds how many caches are filled at the same time: what takes the time afterwards is the waiting.
var filling = make(chan struct{}, 4)

// tryAccess makes trouble, uses the cache, and returns what is wrong then.
func tryAccess(dir, trouble, access string) error {
	path := filepath.Join(dir, trouble+" "+access)
	o := healOptions
	db, err := keepcache.Open(path, &o)
	if err != nil {
		return err
	}
	defer db.Close()
	filling <- struct{}{}
	err = fillToHeal(db)
	<-filling
	if err != nil {
		return err
	}
	if err := troubles[trouble].make(path); err != nil {
		return err
	}
	begun := time.Now()
	err = accesses[access](db, db.Bucket("b"))
	var ours *keepcache.Error
	if err != nil && !errors.Is(err, keepcache.ErrUnavailable) && !errors.As(err, &ours) {
		return fmt.Errorf("a strange error: %w", err)
	}
	if took := time.Since(begun); took > 20*time.Second {
		return fmt.Errorf("it took %v", took)
	}
	if access == "Close" {
		// What was not in the file is in the journal for whoever opens the file next, unless that was taken as well.
		if db, err = keepcache.Open(path, &o); err != nil {
			return err
		}
		defer db.Close()
	}
	if err := awaitHealed(db); err != nil {
		return err
	}
	if access == "Close" && trouble == "all gone" {
		return db.Close()
	}
	if err := lookHealed(db, troubles[trouble].harmless); err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	if db, err = keepcache.Open(path, nil); err != nil {
		return err
	}
	return errors.Join(lookHealed(db, troubles[trouble].harmless), db.Close())
}

// Whatever is called while others cut, remove or replace the file, nothing crashes, nothing that was acknowledged and
// not in the file alone is lost, and the cache works again within seconds.
func TestHeal_Accesses(t *testing.T) {
	t.Parallel()
	skipOnWindows(t, "others cannot touch an open file")
	parent := t.TempDir()
	if _, err := os.Stat("/dev/shm"); err == nil { // where a sync costs nothing
		parent = "/dev/shm"
	}
	dir, err := os.MkdirTemp(parent, "keepcache-heal-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var wg sync.WaitGroup
	for trouble := range troubles {
		for access := range accesses {
			wg.Go(func() {
				if err := tryAccess(dir, trouble, access); err != nil {
					t.Errorf("%s, %s: %v", trouble, access, err)
				}
			})
		}
	}
	wg.Wait()
	for trouble := range troubles {
		for access := range accesses {
			path := filepath.Join(dir, trouble+" "+access)
			strays, err := filepath.Glob(path + "-journal.aside-*")
			require.NoError(t, err)
			for _, stray := range strays {
				require.NoError(t, os.Remove(stray))
			}
			checkFile(t, path)
		}
	}
}

// After a sync that failed a copy takes the place of the file before anything else is acknowledged.
func TestHeal_FailedSync(t *testing.T) {
	skipOnWindows(t, "an open file cannot be replaced")
	path := newPath(t)
	o := healOptions
	db := open(t, path, &o)
	require.NoError(t, fillToHeal(db))
	before, err := os.Stat(path)
	require.NoError(t, err)
	db.FailSync(syscall.EIO)
	require.NoError(t, awaitHealed(db))
	after, err := os.Stat(path)
	require.NoError(t, err)
	require.False(t, os.SameFile(before, after))
	require.NoError(t, lookHealed(db, true))
}

// The file is cut short, removed and replaced again and again while many use it. Nothing crashes, hangs or is wrong,
// and what was set and is still in memory or journal is there.
func TestHeal_UnderLoad(t *testing.T) {
	skipOnWindows(t, "others cannot touch an open file")
	path := newPath(t)
	o := healOptions
	o.CommitInterval, o.SweepInterval, o.CompactBytes = 20*time.Millisecond, 10*time.Millisecond, 0
	db := open(t, path, &o)
	require.NoError(t, fillToHeal(db))
	b := db.Bucket("b")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var wrong sync.Map
	for i, use := range []func(i int) error{
		func(i int) error {
			got, found, err := b.GetBytes(numbered(i % healEntries))
			if err == nil && found && !bytes.Equal(got, healValue(i%healEntries)) {
				err = errors.New("a wrong value")
			}
			return err
		},
		func(i int) error { return b.SetBytes(numbered(i%healEntries), healValue(i%healEntries), time.Hour) },
		func(int) error { return accesses["All"](db, b) },
		func(int) error { return accesses["Len"](db, b) },
		func(int) error { return accesses["Verify"](db, b) },
		func(int) error { return accesses["Compact"](db, b) },
		func(i int) error { _, err := b.Increment("n", 1, 0); return err },
		func(int) error { return accesses["Backup"](db, b) },
	} {
		for range 1 + i%2 {
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					if err := use(n); err != nil && !errors.Is(err, keepcache.ErrUnavailable) {
						wrong.Store(i, err)
					}
				}
			})
		}
	}
	rounds := 6
	if long {
		rounds = 300
	}
	kinds := []string{"emptied", "cut", "one page", "deleted", "replaced", "a journal"}
	for i := range rounds {
		if err := troubles[kinds[i%len(kinds)]].make(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			require.NoError(t, err)
		}
		require.NoError(t, awaitHealed(db), kinds[i%len(kinds)])
	}
	close(stop)
	wg.Wait()
	wrong.Range(func(i, err any) bool {
		t.Errorf("use %d: %v", i, err)
		return true
	})
	require.NoError(t, awaitHealed(db))
	sound(t, db)
}

// What memory still has of a file that was lost goes into the one that takes its place.
func TestHeal_Memory(t *testing.T) {
	skipOnWindows(t, "others cannot touch an open file")
	path := newPath(t)
	o := healOptions
	o.MemoryBytes = 16 << 20
	db := open(t, path, &o)
	require.NoError(t, fillToHeal(db))
	committed(t, db)
	require.NoError(t, os.Truncate(path, 0))
	_, err := db.Bucket("b").Len()
	require.ErrorIs(t, err, keepcache.ErrUnavailable)
	require.NoError(t, awaitHealed(db))
	require.NotEmpty(t, db.Stats().Health.Aside)
	db = reopen(t, db, path, &o)
	require.NoError(t, lookHealed(db, true))
}
