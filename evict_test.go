package keepcache_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// budgeted are options under which a test decides when the cache commits.
func budgeted(bytes int64) *keepcache.Options {
	return &keepcache.Options{MaxBytes: bytes, CommitInterval: time.Hour, SweepInterval: -1, MemoryBytes: 16 << 20}
}

// After each commit the file is within its budget, what was written last is there, and what was used stays.
func TestEvict_MaxBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1 << 20
		db := newDB(t, budgeted(limit))
		b := db.Bucket("b")
		value := strings.Repeat("v", 400)
		for i := range 20_000 {
			mustSet(t, b, numbered(i), value, time.Hour)
			if i%100 == 0 {
				for k := range 100 { // a hot set
					b.Exists(numbered(k))
				}
			}
			if i%500 == 499 {
				committed(t, db)
				require.LessOrEqual(t, db.Stats().Cost, int64(limit))
				requireValue(t, b, numbered(i), value)
			}
		}
		hot := 0
		for k := range 100 {
			if found, err := b.Exists(numbered(k)); err == nil && found {
				hot++
			}
		}
		require.Greater(t, hot, 80, "hot keys were evicted")
		s := db.Stats()
		require.Greater(t, s.Cost, int64(limit*9/10), "more was evicted than needed")
		require.Equal(t, uint64(20_000)-uint64(s.Entries), s.Evictions.Size)
		require.Zero(t, s.Evictions.Entries)
		require.Positive(t, s.Evictions.Bytes)
		sound(t, db)
	})
}

// A bucket keeps to its number of entries and its bytes, its neighbours are left alone, and what was just
// written stays even if a single batch is larger than the budget.
func TestEvict_Buckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := budgeted(0)
		o.Buckets = map[string]keepcache.BucketOptions{"ten": {MaxEntries: 10}, "small": {MaxBytes: 10_000}}
		db := newDB(t, o)
		for _, name := range []string{"ten", "small", "free"} {
			for i := range 1000 {
				mustSet(t, db.Bucket(name), numbered(i), i, 0)
			}
		}
		committed(t, db)
		s := db.Stats()
		require.Equal(t, int64(10), s.Buckets["ten"].Entries)
		small := s.Buckets["small"]
		require.LessOrEqual(t, small.Cost, int64(10_000))
		require.Greater(t, small.Cost, int64(9_000))
		require.Equal(t, int64(1000), s.Buckets["free"].Entries)
		require.Equal(t, uint64(990), s.Evictions.Entries)
		requireValue(t, db.Bucket("ten"), numbered(999), int64(999))
		requireValue(t, db.Bucket("small"), numbered(999), int64(999))
		n, err := db.Bucket("ten").Len()
		require.NoError(t, err)
		require.Equal(t, 10, n)
		for i := range 100 {
			mustSet(t, db.Bucket("ten"), numbered(i), "again", 0)
			committed(t, db)
			requireValue(t, db.Bucket("ten"), numbered(i), "again")
			require.Equal(t, int64(10), db.Stats().Buckets["ten"].Entries)
		}
	})
}

// An entry larger than a budget is refused, and what was there stays.
func TestEvict_TooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := budgeted(10_000)
		o.Buckets = map[string]keepcache.BucketOptions{"small": {MaxBytes: 2000}}
		db := newDB(t, o)
		for name, size := range map[string]int{"b": 10_000, "small": 2000} {
			b := db.Bucket(name)
			mustSet(t, b, "k", "old", 0)
			mustSet(t, b, "other", 1, 0)
			committed(t, db)
			large := strings.Repeat("x", size)
			require.ErrorIs(t, b.Set("k", large, 0), keepcache.ErrTooLarge)
			require.ErrorIs(t, b.SetBytes("k", []byte(large), 0), keepcache.ErrTooLarge)
			require.ErrorIs(t, b.SetMany(map[string]any{"fits": 1, "k": large}, 0), keepcache.ErrTooLarge)
			committed(t, db)
			requireValue(t, b, "k", "old")
			requireValue(t, b, "other", int64(1))
			requireAbsent(t, b, "fits")
			mustSet(t, b, "k", large[:size/2], 0)
			committed(t, db)
			requireValue(t, b, "k", large[:size/2])
		}
	})
}

// What expired a second ago, and what was cleared, goes before anything that lives.
func TestEvict_ExpiredFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, budgeted(145_000))
		b := db.Bucket("b")
		value := strings.Repeat("v", 100)
		for i := range 250 {
			mustSet(t, b, fmt.Sprint("lives", i), value, 0)
			mustSet(t, b, fmt.Sprint("dies", i), value, time.Minute)
		}
		committed(t, db)
		time.Sleep(time.Minute + mostEarly)
		for i := range 250 {
			mustSet(t, b, fmt.Sprint("comes", i), value, 0)
		}
		committed(t, db)
		require.Zero(t, db.Stats().Evictions.Size)
		require.Equal(t, uint64(250), db.Stats().Evictions.Expired)
		require.Equal(t, int64(500), db.Stats().Entries)

		require.NoError(t, b.Clear(t.Context()))
		for i := range 600 {
			mustSet(t, b, fmt.Sprint("new", i), value, 0)
		}
		committed(t, db)
		require.Zero(t, db.Stats().Evictions.Size)
		require.Equal(t, int64(600), db.Stats().Entries)
		require.Equal(t, uint64(500), db.Stats().Evictions.Explicit)
	})
}

// So it is where many entries that reads keep alive fell due before those that expired.
func TestEvict_ExpiredBehindSliding(t *testing.T) {
	for _, late := range []bool{false, true} { // is the budget passed by the commit, or before?
		synctest.Test(t, func(t *testing.T) {
			o := budgeted(1_050_000)
			o.Buckets = map[string]keepcache.BucketOptions{"slides": {Sliding: true}}
			db := newDB(t, o)
			slides, b := db.Bucket("slides"), db.Bucket("b")
			const lasting, brief = 2500, 500
			fill(t, slides, lasting, time.Minute)
			committed(t, db)
			value := strings.Repeat("v", 400)
			for i := range brief {
				mustSet(t, b, fmt.Sprint("dies", i), value, time.Minute+time.Second)
			}
			for i := range 700 {
				mustSet(t, b, fmt.Sprint("lives", i), value, 0)
			}
			committed(t, db)
			time.Sleep(7 * time.Second) // less than an eighth: memory alone knows of the reads
			for i := range lasting {
				requireValue(t, slides, numbered(i), int64(i))
			}
			time.Sleep(time.Minute - 6*time.Second + mostEarly)
			for i := range 500 {
				mustSet(t, b, fmt.Sprint("comes", i), value, 0)
				if late && i%100 == 0 {
					committed(t, db)
				}
			}
			committed(t, db)
			require.Zero(t, db.Stats().Evictions.Size)
			require.Equal(t, uint64(brief), db.Stats().Evictions.Expired)
			require.Equal(t, int64(lasting+700+500), db.Stats().Entries)
			requireValue(t, slides, numbered(0), int64(0))
		})
	}
}

// A budget that is lower than the last time is reached without writes, also where one entry is larger than it.
func TestEvict_Lowered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		db := open(t, path, nil)
		fill(t, db.Bucket("b"), 20_000, 0)
		mustSet(t, db.Bucket("b"), "a large one", strings.Repeat("x", 200_000), 0)
		var told int
		db = reopen(t, db, path, &keepcache.Options{MaxBytes: 100_000, CommitInterval: time.Second, Events: keepcache.Events{
			Kinds: keepcache.EventEvict, Handle: func(e keepcache.Event) {
				told++
				if e.Kind != keepcache.EventEvict || e.Kind.String() != "evict" || e.Bucket != "b" || e.Key == "" {
					t.Errorf("%+v", e)
				}
			},
		}})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.LessOrEqual(t, db.Stats().Cost, int64(100_000))
		require.Greater(t, db.Stats().Cost, int64(90_000))
		require.Equal(t, int(20_001-db.Stats().Entries), told)
		requireAbsent(t, db.Bucket("b"), "a large one")
		n, err := db.Bucket("b").Len()
		require.NoError(t, err)
		require.Equal(t, db.Stats().Entries, int64(n), "memory has what the file lost")
	})
}

// What is evicted from the file is gone for every operation, and can be added again.
func TestEvict_Consistent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, &keepcache.Options{Buckets: map[string]keepcache.BucketOptions{"b": {MaxEntries: 1}},
			CommitInterval: time.Hour})
		b := db.Bucket("b")
		mustSet(t, b, "first", 1, time.Hour)
		committed(t, db)
		mustSet(t, b, "second", 2, time.Hour)
		committed(t, db)
		requireAbsent(t, b, "first")
		requireValue(t, b, "second", int64(2))
		added, err := b.Add("first", 3, 0)
		require.NoError(t, err)
		require.True(t, added)
		mustSet(t, b, "second", 4, 0) // memory is newer than what the file holds
		committed(t, db)
		requireValue(t, b, "second", int64(4))
		found, err := b.Delete("first")
		require.NoError(t, err)
		require.False(t, found)
	})
}

// Options that make no sense are refused.
func TestEvict_Options(t *testing.T) {
	for _, o := range []keepcache.Options{
		{MaxBytes: -2},
		{MaxBytes: 5},
		{Buckets: map[string]keepcache.BucketOptions{"b": {MaxBytes: -2}}},
		{Buckets: map[string]keepcache.BucketOptions{"b": {MaxEntries: -2}}},
	} {
		_, err := keepcache.Open(newPath(t), &o)
		require.Error(t, err)
	}
	db := newDB(t, &keepcache.Options{MaxBytes: -1,
		Buckets: map[string]keepcache.BucketOptions{"b": {MaxBytes: -1, MaxEntries: -1}}})
	fill(t, db.Bucket("b"), 100, 0)
	require.Zero(t, db.Stats().Evictions.Size)
}

// BenchmarkSet_Budget compares writes of new keys with a budget that evicts steadily to writes without one.
func BenchmarkSet_Budget(b *testing.B) {
	for name, bytes := range map[string]int64{"unlimited": -1, "evicting": 64 << 20} {
		b.Run(name, func(b *testing.B) {
			db := openDamaged(b, newPath(b), &keepcache.Options{MaxBytes: bytes})
			bucket := db.Bucket("b")
			for i := range 300_000 {
				if err := bucket.SetBytes(fmt.Sprintf("%08x", uint32(i)*2654435761), benchValue, time.Hour); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			for i := range b.N {
				if err := bucket.SetBytes(fmt.Sprintf("%08x", uint32(i+300_000)*2654435761), benchValue, time.Hour); err != nil {
					b.Fatal(err)
				}
			}
			s := db.Stats()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sets/s")
			b.ReportMetric(float64(s.Compact.Compactions), "compactions")
			b.ReportMetric(float64(s.FileBytes>>20), "file-MiB")
			b.ReportMetric(float64(s.FreeBytes>>20), "free-MiB")
			b.ReportMetric(float64(s.Bytes>>20), "MiB")
			b.ReportMetric(float64(s.Commit.Time.Milliseconds()), "commit-ms")
		})
	}
}
