//go:build unix

package mutate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/store"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
	"github.com/keepcache/keepcache/internal/torture/mutate"
)

func init() { cachetest.Children["mutated opener"] = mutatedOpener }

// mutatedOpener damages caches and uses each through the public API. It says what it does on its standard output:
//
//	begin NUMBER SHAPE HOW
//	wrong NUMBER WHAT
//	end NUMBER OUTCOME
//
// Arguments: the directory of the shapes, the seed, the first number and the one after the last, and what to do
// without.
func mutatedOpener(t cachetest.Tester, args []string) {
	seed, err := strconv.ParseUint(args[1], 10, 64)
	require.NoError(t, err)
	from, err := strconv.Atoi(args[2])
	require.NoError(t, err)
	to, err := strconv.Atoi(args[3])
	require.NoError(t, err)
	store.Without.Preflight, store.Without.Guard = args[4] == "preflight", args[4] == "guard"
	format.TrustChecksums = args[4] == "checksum"
	shallow := from/batch%4 == 0 || args[4] == "guard"
	if shallow { // the leaves of files that were closed in order are taken as they come
		store.ShallowBytes = 128 << 10
	}
	dir, err := os.MkdirTemp(args[0], "child")
	require.NoError(t, err)
	victims := make([]mutate.Victim, len(shapes))
	changed := make([]time.Time, len(shapes))
	for number := from; number < to; number++ {
		r := rand.New(rand.NewPCG(seed, uint64(number)))
		i := r.IntN(len(shapes))
		if victims[i].File == nil {
			victims[i], changed[i] = shapes[i].read(t, shapePath(args[0], i))
		}
		damaged, how := mutate.Damage(r, victims[i])
		u := &user{rand: r, number: number, shape: &shapes[i], path: filepath.Join(dir, "cache"), shallow: shallow,
			failed: shallow}
		fmt.Printf("begin %d %q %q\n", number, shapes[i].name, how)
		require.NoError(t, os.WriteFile(u.path, damaged.File, 0o600))
		if len(victims[i].Journal) > 0 {
			require.NoError(t, os.WriteFile(u.path+"-journal", damaged.Journal, 0o600))
		}
		if r.IntN(2) == 0 { // the disk forgot, nobody wrote
			require.NoError(t, os.Chtimes(u.path, time.Time{}, changed[i]))
		}
		outcome := u.use()
		var m runtime.MemStats
		if runtime.ReadMemStats(&m); m.Sys > 2<<30 {
			u.wrong("%d bytes of memory", m.Sys)
		}
		fmt.Printf("end %d %s\n", number, outcome)
		left, err := filepath.Glob(filepath.Join(dir, "*"))
		require.NoError(t, err)
		for _, path := range left {
			require.NoError(t, os.RemoveAll(path))
		}
	}
	require.NoError(t, os.RemoveAll(dir))
}

// user uses one damaged cache.
type user struct {
	rand   *rand.Rand
	number int
	shape  *shape
	path   string
	db     *keepcache.DB

	shallow bool // the leaves were not proved, so that bbolt may fail

	own    map[[2]string]int // what it has set, by bucket and key; 0 for what it has deleted
	said   bool              // something was wrong
	failed bool              // a call has failed, or a leaf may be out of order, so that an own write may not be found
}

// wrong says what is wrong, once for each cache.
func (u *user) wrong(format string, args ...any) {
	if u.said {
		return
	}
	u.said = true
	fmt.Printf("wrong %d %s\n", u.number, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " "))
}

// accept notes an error of a call on a damaged cache, and says what kind of error it is.
func (u *user) accept(what string, err error) (ok bool) {
	switch {
	case err == nil:
		return true
	case !u.acceptable(err):
		u.wrong("%s: %v", what, err)
	}
	u.failed = true
	return false
}

func (u *user) acceptable(err error) bool {
	return err == nil || errors.Is(err, keepcache.ErrCorrupt) || u.shallow && errors.Is(err, keepcache.ErrUnavailable)
}

// health says in the outcome whether bbolt failed. With a file that was proved as a whole it never does.
func (u *user) health(outcome string) string {
	h := u.db.Stats().Health
	if h.Failures > 0 {
		if outcome += ", failed"; !h.Unavailable {
			outcome += " and healed"
		}
		if !u.shallow {
			u.wrong("bbolt failed: %v", h.Err)
		}
	}
	return outcome
}

func (u *user) open(readOnly bool) (outcome string, ok bool) {
	opts := &keepcache.Options{SweepInterval: -1, ReadOnly: readOnly, MemoryBytes: 8 << 20}
	if u.number%4 == 0 {
		opts.OnCorruption = keepcache.CorruptionFail
	}
	db, err := keepcache.Open(u.path, opts)
	switch {
	case err == nil:
		if u.db = db; db.Stats().Health.Quarantined > 0 {
			return "quarantined", true
		}
		return "opened", true
	case errors.Is(err, keepcache.ErrCorrupt):
		return "corrupt", false
	case errors.Is(err, keepcache.ErrFormat):
		return "format", false
	}
	u.wrong("open: %v", err)
	return "failed", false
}

func (u *user) use() (outcome string) {
	u.own = make(map[[2]string]int)
	if u.rand.IntN(8) == 0 {
		if outcome, ok := u.open(true); ok {
			u.read()
			_, err := u.db.Verify(context.Background())
			u.accept("verify", err)
			u.accept("close", u.db.Close())
		} else if outcome == "failed" {
			return outcome
		}
	}
	outcome, ok := u.open(false)
	if !ok {
		return outcome
	}
	u.read()
	u.write()
	u.read()
	u.tend()
	u.read()
	outcome = u.health(outcome)
	u.accept("close", u.db.Close())
	again, ok := u.open(false)
	if !ok {
		return outcome + ", then " + again
	}
	u.read()
	outcome = u.health(outcome)
	u.accept("close", u.db.Close())
	return outcome
}

func (u *user) keys(i int, fn func(b *keepcache.Bucket, bucket, key string)) {
	bucket := u.shape.bucket(i)
	b := u.db.Bucket(bucket)
	for j := range u.shape.keys {
		fn(b, bucket, u.shape.key(j))
	}
}

// read reads all there is, and finds what it has written itself.
func (u *user) read() {
	for i := range u.shape.buckets {
		u.keys(i, func(b *keepcache.Bucket, bucket, key string) {
			var got string
			found, err := b.Get(key, &got)
			if !u.accept("get", err) {
				return
			}
			if found {
				u.check(bucket, key, got)
			}
			own, mine := u.own[[2]string{bucket, key}]
			switch {
			case !mine || u.failed:
			case own == 0 && found:
				u.wrong("%q in bucket %q was deleted and is there", key, bucket)
			case own != 0 && !found:
				u.wrong("%q in bucket %q was set and is absent", key, bucket)
			case own != 0 && !strings.HasPrefix(got, fmt.Sprintf("%s|%s|%d|", bucket, key, own)):
				u.wrong("%q in bucket %q was set to %d and is %.60q", key, bucket, own, got)
			}
		})
	}
	names, err := u.db.Buckets()
	u.accept("buckets", err)
	for _, name := range names {
		if name == "counters" {
			continue // no strings
		}
		b, n := u.db.Bucket(name), 0
		for e, err := range b.All() {
			if n++; n > 100*u.shape.keys+1000 {
				u.wrong("iteration without end")
				break
			}
			if err != nil {
				if !u.acceptable(err) {
					u.wrong("iterate: %v", err)
				}
				continue
			}
			var got string
			if err := e.Decode(&got); err != nil {
				u.wrong("%q in bucket %q cannot be decoded: %v", e.Key, name, err)
				continue
			}
			u.check(name, e.Key, got)
		}
		_, err := b.Len()
		u.accept("len", err)
	}
}

func (u *user) check(bucket, key, got string) {
	if err := checkShapeValue(bucket, key, got); err != nil {
		u.wrong("%v", err)
	}
}

// write changes a part of the entries.
func (u *user) write() {
	for i := range u.shape.buckets {
		u.keys(i, func(b *keepcache.Bucket, bucket, key string) {
			at := [2]string{bucket, key}
			n := 10 + u.rand.IntN(1000)
			switch u.rand.IntN(12) {
			case 0, 1:
				ttl := []time.Duration{0, time.Hour, 1000 * time.Hour, keepcache.NoExpiry}[u.rand.IntN(4)]
				if u.accept("set", b.Set(key, shapeValue(bucket, key, n, u.rand.IntN(300)), ttl)) {
					u.own[at] = n
				}
			case 2:
				if _, err := b.Delete(key); u.accept("delete", err) {
					u.own[at] = 0
				}
			case 3: // of what is damaged, these say so
				if _, err := b.Touch(key, time.Hour); !u.acceptable(err) {
					u.wrong("touch: %v", err)
				}
			case 4:
				added, err := b.Add(key, shapeValue(bucket, key, n, 10), time.Hour)
				if !u.acceptable(err) {
					u.wrong("add: %v", err)
				}
				if added {
					u.own[at] = n
				}
			case 5:
				if u.rand.IntN(8) == 0 {
					if u.accept("set many", b.SetMany(map[string]any{key: shapeValue(bucket, key, n, 5)}, time.Minute)) {
						u.own[at] = n
					}
				}
			}
		})
	}
	sum, err := u.db.Bucket("counters").Increment("own", 2, 0)
	if u.accept("increment", err) && sum != 2 {
		u.wrong("a fresh counter is %d", sum)
	}
	_, err = u.db.Bucket("counters").Take("own", nil)
	u.accept("take", err)
	if u.rand.IntN(2) == 0 {
		u.accept("invalidate", u.db.InvalidateTags("tag-9"))
	}
}

// tend does what runs in the background otherwise.
func (u *user) tend() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := u.db.Sweep(ctx)
	u.accept("sweep", err)
	_, err = u.db.Verify(ctx)
	u.accept("verify", err)
	if u.rand.IntN(2) == 0 {
		u.read() // now from the file
	}
	if i := u.rand.IntN(u.shape.buckets); u.rand.IntN(2) == 0 {
		if _, err := u.db.DropBucket(u.shape.bucket(i)); u.accept("drop", err) {
			u.keys(i, func(_ *keepcache.Bucket, bucket, key string) { u.own[[2]string{bucket, key}] = 0 })
		}
		_, err = u.db.Sweep(ctx)
		u.accept("sweep", err)
	}
	if u.rand.IntN(3) == 0 {
		u.accept("clear", u.db.Bucket(u.shape.bucket(0)).Clear(ctx))
		u.keys(0, func(_ *keepcache.Bucket, bucket, key string) { u.own[[2]string{bucket, key}] = 0 })
	}
	if u.rand.IntN(2) == 0 {
		u.accept("compact", u.db.Compact(ctx))
	}
	if u.rand.IntN(8) == 0 {
		u.accept("backup", u.db.Backup(ctx, io.Discard))
	}
	_ = u.db.Stats()
}
