package keepcache_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// lengths returns the sum of what Len says of all buckets.
func lengths(t *testing.T, db *keepcache.DB) (n int) {
	t.Helper()
	names, err := db.Buckets()
	require.NoError(t, err)
	for _, name := range names {
		each, err := db.Bucket(name).Len()
		require.NoError(t, err)
		n += each
	}
	return n
}

// halfCommitted returns the path of a cache as a crash leaves it: a part of its entries is in the file, and the journal
// has others, later versions, removals, a bucket that was cleared and one that the file does not have.
func halfCommitted(t *testing.T) string {
	t.Helper()
	path := newPath(t)
	db := open(t, path, &keepcache.Options{CommitInterval: time.Hour, SweepInterval: -1, MemoryBytes: 64 << 20,
		JournalBytes: 64 << 20})
	fill(t, db.Bucket("b"), 12, 0)
	fill(t, db.Bucket("cleared"), 7, 0)
	committed(t, db)
	fill(t, db.Bucket("b"), 1000, 0) // 12 of them anew
	for i := range 3 {
		_, err := db.Bucket("b").Delete(numbered(i))
		require.NoError(t, err)
	}
	require.NoError(t, db.Bucket("cleared").Clear(context.Background()))
	fill(t, db.Bucket("cleared"), 2, 0)
	fill(t, db.Bucket("new"), 5, time.Hour)
	return crashCopy(t, path, filepath.Join(t.TempDir(), "crashed"))
}

// Verify counts what is in the file and what only the journal has, and says which is which.
func TestVerify_Journal(t *testing.T) {
	path := halfCommitted(t)
	check := func(db *keepcache.DB) keepcache.Report {
		report, err := db.Verify(context.Background())
		require.NoError(t, err)
		require.True(t, report.OK(), report.Problems)
		require.Equal(t, 997+2+5, report.Entries)
		require.Equal(t, lengths(t, db), report.Entries)
		require.Equal(t, 3, report.Buckets)
		return report
	}
	info, err := os.Stat(path + "-journal")
	require.NoError(t, err)
	reader, err := keepcache.Open(path, &keepcache.Options{ReadOnly: true})
	require.NoError(t, err)
	for name, db := range map[string]*keepcache.DB{"locked": reader, "beside": beside(t, path)} {
		t.Run(name, func(t *testing.T) {
			report := check(db)
			require.Equal(t, 7, report.Pending)
			j := report.Journal
			require.Equal(t, info.Size(), j.FileBytes)
			require.Equal(t, 997+2+5, j.Entries)
			require.Equal(t, 3, j.Removed)
			require.Equal(t, 1000+3+1+2+5, j.Records)
			require.Positive(t, j.Bytes)
			require.False(t, j.Foreign)
		})
	}
	require.NoError(t, reader.Close())
	db := open(t, path, &keepcache.Options{SweepInterval: -1})
	report := check(db)
	require.Zero(t, report.Journal.Entries)
	require.Zero(t, report.Journal.Removed)
}

// Damage of the journal is a problem that says where it is. The journal of another cache is none.
func TestVerify_DamagedJournal(t *testing.T) {
	path := halfCommitted(t)
	journal := path + "-journal"
	whole, err := os.ReadFile(journal)
	require.NoError(t, err)
	verify := func() keepcache.Report {
		db, err := keepcache.Open(path, &keepcache.Options{ReadOnly: true})
		require.NoError(t, err)
		defer db.Close()
		report, err := db.Verify(context.Background())
		require.NoError(t, err)
		require.Equal(t, lengths(t, db), report.Entries)
		return report
	}
	b := append([]byte(nil), whole...)
	copy(b, make([]byte, 16<<10))
	require.NoError(t, os.WriteFile(journal, b, 0o600))
	report := verify()
	require.Len(t, report.Problems, 1)
	require.Contains(t, report.Problems[0].String(), "the head of the journal")
	require.Equal(t, 12+7, report.Entries)

	other := halfCommitted(t)
	b, err = os.ReadFile(other + "-journal")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(journal, b, 0o600))
	report = verify()
	require.True(t, report.OK(), report.Problems)
	require.True(t, report.Journal.Foreign)
	require.Equal(t, 12+7, report.Entries)
}

// A hole in what was flushed is a problem that says where it is, and the rest counts.
func TestVerify_JournalHole(t *testing.T) {
	path := crashed(t, func(db *keepcache.DB) {
		for i := range 400 {
			require.NoError(t, db.Bucket("b").SetBytes(numbered(i), make([]byte, 1000), 0))
			if i == 300 { // what follows says up to where the journal is known to be on disk
				require.NoError(t, db.Sync(context.Background()))
			}
		}
	})
	f, err := os.OpenFile(path+"-journal", os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, 64<<10), 128<<10)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	r, err := keepcache.Open(path, &keepcache.Options{ReadOnly: true})
	require.NoError(t, err)
	defer r.Close()
	report, err := r.Verify(context.Background())
	require.NoError(t, err)
	require.Len(t, report.Problems, 1)
	place := regexp.MustCompile(`the journal has 1 holes, .* the first begins at byte ([0-9]+) of the journal$`)
	found := place.FindStringSubmatch(report.Problems[0].String())
	require.NotNil(t, found, report.Problems)
	at, err := strconv.Atoi(found[1])
	require.NoError(t, err)
	require.True(t, at > 96<<10 && at <= 128<<10, at)
	require.Equal(t, lengths(t, r), report.Entries)
	require.Greater(t, report.Entries, 300)
	require.Less(t, report.Entries, 401)
}

// Verify beside a program that writes finds nothing wrong, whatever happens meanwhile, and finds damage.
func TestVerify_Beside(t *testing.T) {
	path := newPath(t)
	often := time.Millisecond
	if raced {
		often = 100 * time.Millisecond // or it would be outpaced
	}
	db := open(t, path, &keepcache.Options{CommitInterval: often})
	fill(t, db.Bucket("b"), 2000, time.Hour)
	require.NoError(t, db.InvalidateTags("tag"))
	r := beside(t, path)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if i%500 == 499 {
				_ = db.Bucket("c").Clear(context.Background())
			}
			_ = db.Bucket("b").Set(numbered(i%3000), i, time.Hour)
			_ = db.Bucket("c").Set(numbered(i%300), i, 0)
			time.Sleep(20 * time.Microsecond)
		}
	}()
	for range effort.Of(2, 5) {
		report, err := r.Verify(context.Background())
		require.NoError(t, err)
		require.True(t, report.OK(), report.Problems)
		require.GreaterOrEqual(t, report.Entries, 2000)
	}
	close(stop)
	<-done
	committed(t, db)
	report, err := r.Verify(context.Background())
	require.NoError(t, err)
	require.True(t, report.OK(), report.Problems)
	require.Equal(t, lengths(t, db), report.Entries)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = r.Verify(ctx)
	requireError(t, err, context.Canceled, "verify", path)
}
