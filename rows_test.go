package keepcache_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
)

// mostEarly is how much earlier than its entry is gone a row of the expiry index is put at most, and sweptIn how long
// after its deadline an entry may stay in the file where the sweeper comes by each second.
const (
	mostEarly = 1024 * time.Millisecond
	sweptIn   = time.Second + mostEarly
)

// earlier returns how much earlier than each entry of bucket b is gone its row stands, and the times of the rows.
func earlier(t tester, path string) (early map[string]time.Duration, times map[uint64]bool) {
	early, times = make(map[string]time.Duration), make(map[uint64]bool)
	withBolt(t, path, true, func(tx *bolt.Tx) error {
		b, _ := entryBucket(tx, "b")
		return tx.Bucket([]byte("expiry")).ForEach(func(k, _ []byte) error {
			at, gone := binary.BigEndian.Uint64(k), binary.BigEndian.Uint64(b.Get(k[16:])[storedRecord+9:])
			early[string(k[16:])] = time.Duration(int64(gone-at)) * time.Millisecond
			times[at] = true
			return nil
		})
	})
	return early, times
}

// TestRows_Early proves that rows are put a little earlier than their entries are gone, in proportion to what is left
// to them, by commits and by the sweeper that moves them, and stay where they are early enough.
func TestRows_Early(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		opts := &keepcache.Options{SweepInterval: -1}
		const each = 30
		for _, ttl := range []time.Duration{
			100 * time.Millisecond, 200 * time.Millisecond, time.Second, time.Minute, time.Hour, 10000 * time.Hour,
		} {
			path := newPath(t)
			db := open(t, path, opts)
			for i := range each {
				mustSet(t, db.Bucket("b"), numbered(i), i, ttl)
				committed(t, db)
				time.Sleep(time.Millisecond)
			}
			require.NoError(t, db.Close())
			early, times := earlier(t, path)
			require.Len(t, early, each)
			apart := 0
			for _, by := range early {
				require.GreaterOrEqual(t, by, time.Duration(0))
				require.Less(t, by, min(ttl/64, mostEarly)+1)
				if by > 0 {
					apart++
				}
			}
			grain := min(max(ttl/64/time.Millisecond/2, 1), 512) // or twice that
			require.LessOrEqual(t, len(times), each/int(grain)+2, "%v: too many times", ttl)
			require.Equal(t, ttl >= 200*time.Millisecond, apart > 0)
		}

		db := open(t, path, opts)
		b := db.Bucket("b")
		time.Sleep(7 * time.Millisecond)
		for key, ttls := range map[string][2]time.Duration{
			"longer": {time.Hour, 2 * time.Hour}, "moved": {time.Minute, 3 * time.Hour},
			"shorter": {1000 * time.Hour, time.Hour},
			"equal":   {time.Hour, time.Hour}, "never": {time.Hour, keepcache.NoExpiry},
		} {
			mustSet(t, b, key, 1, ttls[0])
			committed(t, db)
			found, err := b.Touch(key, ttls[1])
			require.NoError(t, err)
			require.True(t, found)
		}
		committed(t, db)
		time.Sleep(time.Minute)
		committed(t, db)
		require.Equal(t, uint64(1), db.Stats().Sweep.Moved)
		require.NoError(t, db.Close())
		early, _ := earlier(t, path)
		require.Len(t, early, 4)
		require.InDelta(t, time.Hour+mostEarly/2, early["longer"], float64(mostEarly/2))
		for _, key := range []string{"moved", "shorter", "equal"} {
			require.Positive(t, early[key], key)
			require.Less(t, early[key], mostEarly, key)
		}
	})
}

// TestRows_Unknown proves that rows leave no orphan where an index row is damaged, whatever the lifetime: who writes
// the entry finds its row.
func TestRows_Unknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		opts := &keepcache.Options{SweepInterval: -1}
		db := open(t, path, opts)
		time.Sleep(777 * time.Millisecond)
		const n = 20
		for i := range n {
			mustSet(t, db.Bucket("b"), numbered(i), i, time.Second<<i)
		}
		require.NoError(t, db.Close())
		withBolt(t, path, false, func(tx *bolt.Tx) error {
			b, _ := entryBucket(tx, "b")
			for i := range n {
				stored := bytes.Clone(b.Get([]byte(numbered(i))))
				stored[0] ^= 1
				if err := b.Put([]byte(numbered(i)), stored); err != nil {
					return err
				}
			}
			return nil
		})
		db = open(t, path, opts)
		for i := range n / 2 {
			mustSet(t, db.Bucket("b"), numbered(i), i, 0)
			found, err := db.Bucket("b").Delete(numbered(n/2 + i))
			require.NoError(t, err)
			require.True(t, found)
		}
		require.Zero(t, sound(t, db).Rows)
	})
}

// TestSweep_EarlyRows proves that Sweep removes all that is gone now and nothing else, however many entries live whose
// rows are due with theirs; that it leaves these rows, and the file where there is nothing but them; and that it moves
// the rows of lives that were prolonged.
func TestSweep_EarlyRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lives, dies, prolonged = 3500, 70, 30
		path := newPath(t)
		db := open(t, path, &keepcache.Options{SweepInterval: -1})
		b := db.Bucket("b")
		const ttl = time.Hour
		end := time.Now().Add(ttl).UnixMilli()
		time.Sleep(time.Duration(1024-end%1024) * time.Millisecond) // what is gone in an hour has a row at that very time
		at := func(name string, n int, later time.Duration) {
			for i := range n {
				mustSet(t, b, fmt.Sprint(i%10, name, i), 1, ttl+later)
			}
		}
		at("lives", lives, 800*time.Millisecond)
		at("dies", dies, 300*time.Millisecond)
		at("prolonged", prolonged, 300*time.Millisecond)
		mustSet(t, b, "99 last", 1, ttl+300*time.Millisecond) // behind all others
		committed(t, db)
		for i := range prolonged {
			_, err := b.Touch(fmt.Sprint(i%10, "prolonged", i), 2*ttl)
			require.NoError(t, err)
		}

		time.Sleep(ttl)
		sweep := func() (removed, moved int) {
			before := db.Stats().Sweep.Moved
			removed, err := db.Sweep(t.Context())
			require.NoError(t, err)
			return removed, int(db.Stats().Sweep.Moved - before)
		}
		removed, moved := sweep()
		require.Zero(t, removed, "their rows are due and they live")
		require.Equal(t, prolonged, moved)
		time.Sleep(300*time.Millisecond - 1)
		removed, moved = sweep()
		require.Zero(t, removed+moved)
		time.Sleep(time.Nanosecond)
		require.Equal(t, dies+1, sound(t, db).Expired)
		removed, moved = sweep()
		require.Equal(t, dies+1, removed)
		require.Zero(t, moved)

		before, err := os.ReadFile(path)
		require.NoError(t, err)
		removed, moved = sweep()
		require.Zero(t, removed+moved)
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(before, after), "a sweep that found nothing wrote to the file")

		time.Sleep(500*time.Millisecond - 1)
		removed, moved = sweep()
		require.Zero(t, removed+moved)
		require.Equal(t, int64(lives+prolonged), db.Stats().Entries)
		time.Sleep(time.Nanosecond)
		removed, moved = sweep()
		require.Equal(t, lives, removed)
		require.Zero(t, moved)
		require.Equal(t, prolonged, sound(t, db).Rows)
		require.Zero(t, db.Stats().Sweep.Orphans)
	})
}

// TestSweep_InTime proves that the sweeper in the background removes what expired no later than an interval and a
// second after its deadline, whatever the lifetime, and is at no time said to be behind.
func TestSweep_InTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, &keepcache.Options{SweepInterval: time.Second})
		b := db.Bucket("b")
		lifetimes := []time.Duration{
			time.Millisecond, 70 * time.Millisecond, 130 * time.Millisecond, 999 * time.Millisecond, 1500 * time.Millisecond,
			7 * time.Second, 100 * time.Second, time.Hour + 7*time.Millisecond, 10*time.Hour + 700*time.Millisecond,
		}
		start := time.Now()
		for i, ttl := range lifetimes {
			mustSet(t, b, numbered(i), i, ttl)
		}
		committed(t, db)
		require.Equal(t, int64(len(lifetimes)), db.Stats().Entries)
		for i, ttl := range lifetimes {
			time.Sleep(time.Until(start.Add(ttl - 1)))
			requireValue(t, b, numbered(i), int64(i))
			time.Sleep(time.Nanosecond)
			requireAbsent(t, b, numbered(i))
			synctest.Wait()
			require.LessOrEqual(t, db.Stats().Sweep.Lag, time.Second)
			if i+1 == len(lifetimes) || lifetimes[i+1]-ttl > sweptIn {
				time.Sleep(sweptIn)
				synctest.Wait()
				require.Equal(t, int64(len(lifetimes)-i-1), db.Stats().Entries, "%v", ttl)
			}
		}
		require.Zero(t, db.Stats().Sweep.Moved+db.Stats().Sweep.Orphans)
	})
}

// TestRows_Dense proves that the rows of entries that are written in no order of their keys come into few pages of
// the index, which are well filled, although each commit takes several transactions for them.
func TestRows_Dense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, commits = 20_000, 4
		path := newPath(t)
		db := open(t, path, &keepcache.Options{
			CommitInterval: time.Hour, SweepInterval: -1, CompactBytes: -1, MemoryBytes: 64 << 20, JournalBytes: 64 << 20,
		})
		b := db.Bucket("b")
		for i, k := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
			mustSet(t, b, numbered(k), k, time.Hour)
			if time.Sleep(time.Millisecond); i%(n/commits) == n/commits-1 {
				committed(t, db)
			}
		}
		require.Equal(t, uint64(commits), db.Stats().Commit.Commits)
		require.NoError(t, db.Close())
		var s bolt.BucketStats
		withBolt(t, path, true, func(tx *bolt.Tx) error {
			s = tx.Bucket([]byte("expiry")).Stats()
			return nil
		})
		require.Equal(t, n, s.KeyN)
		require.Greater(t, float64(s.LeafInuse)/float64(s.LeafAlloc), 0.8, "0.56 where each row is at its own time")
	})
}
