package engine

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/jsonpack"
	"github.com/keepcache/keepcache/internal/store"
)

// A commit was interrupted, so the file has the later version of a key, and the journal has lost that one but has an
// earlier one: the later version stays.
func TestReplay_Newer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.cache")
	db := open(t, path, Config{})
	require.NoError(t, db.Bucket("b").Set("a", 1, 0))
	require.NoError(t, db.Close())

	s, err := store.Open(nil, path, false, time.Second, true)
	require.NoError(t, err)
	mark, _, err := s.Revisions()
	require.NoError(t, err)
	seal := func(key string, value any, revision uint64) []byte {
		rec := format.AppendHeader(nil, format.Header{ExpiresAt: format.Never, StaleUntil: format.Never})
		rec, _ = jsonpack.Append(rec, value, 100)
		rec = format.AppendTrailer(rec)
		format.Seal(rec, format.BucketSum("b"), key, revision)
		return rec
	}
	require.NoError(t, s.Apply([]store.NameOp{{Name: "n", ID: 9}}, 0, []*store.Change{
		{ID: 1, Key: []byte("put"), Record: seal("put", "later", mark+9), StaleUntil: format.Never, Revision: mark + 9},
		{
			ID: 1, Key: []byte("removed"), Record: seal("removed", "later", mark+8),
			StaleUntil: format.Never, Revision: mark + 8,
		},
	}, mark, nil))
	j, err := journal.New(path+"-journal", journal.Options{Identity: s.Identity(), After: mark})
	require.NoError(t, err)
	put := func(key string, revision uint64) []byte {
		o := format.Op{Kind: format.OpPut, ID: 1, Key: key, Record: seal(key, "earlier", revision)}
		return append(format.AppendOp(nil, &o), o.Record...)
	}
	require.NoError(t, j.Append(mark+1, mark+1, put("put", mark+1)))
	deletion := format.AppendOp(nil, &format.Op{Kind: format.OpDelete, ID: 1, Key: "removed"})
	require.NoError(t, j.Append(mark+2, mark+2, deletion))
	require.NoError(t, j.Append(mark+3, mark+3, put("other", mark+3)))
	require.NoError(t, j.Append(mark+4, mark+4, format.AppendOp(nil, &format.Op{Kind: format.OpBucket, ID: 5, Key: "n"})))
	require.NoError(t, j.Close(false))
	require.NoError(t, s.Close())

	db = open(t, path, Config{})
	for key, want := range map[string]string{"put": "later", "removed": "later", "other": "earlier"} {
		var got string
		_, err := db.Bucket("b").Get(key, &got)
		require.NoError(t, err)
		require.Equal(t, want, got, key)
	}
	require.Equal(t, uint64(9), db.namespace("n").id.Load())
	report, err := db.Verify(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	require.NoError(t, db.Close())
}

// A replay that takes several transactions and is interrupted between any two of them restores everything when it runs
// again: the last version of each key, deletions, and a cleared bucket. So does one that takes the journal in parts.
func TestReplay_Cut(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "test.cache")
	db := open(t, path, Config{
		CommitInterval: time.Hour, CommitBytes: 1 << 30, SweepInterval: -1, CompactBytes: Unlimited,
	})
	r := rand.New(rand.NewPCG(1, 2))
	want := make(map[string]int)
	key := func() string { return fmt.Sprintf("key%05d", r.IntN(20_000)) }
	fill := func(n int, b *bucket) {
		for i := range n {
			batch := make(map[string]any)
			for range 100 {
				k := key()
				batch[k], want[k] = i, i
			}
			require.NoError(t, b.SetMany(batch, time.Duration(r.IntN(2))*time.Hour))
		}
	}
	b, cleared := db.Bucket("b"), db.Bucket("cleared")
	fill(200, b)
	require.NoError(t, cleared.Set("before", 1, 0))
	require.NoError(t, db.Sweep(t.Context())) // commits too
	fill(250, b)
	_, err := db.Replace("cleared", false)
	require.NoError(t, err)
	require.NoError(t, cleared.Set("after", 1, 0))
	for range 2000 {
		k := key()
		_, err := b.Delete(k)
		require.NoError(t, err)
		delete(want, k)
	}
	fill(50, b)
	killed := filepath.Join(dir, "killed.cache")
	copyCache(t, path, killed)
	require.NoError(t, db.Close())

	// try replays with most bytes at a time until fn fails, and then opens the cache.
	try := func(name string, most int, fn func(r *replayer) (done bool)) (done bool) {
		at := filepath.Join(dir, name)
		copyCache(t, killed, at)
		s, err := store.Open(nil, at, false, time.Second, true)
		require.NoError(t, err)
		mark, last, err := s.Revisions()
		require.NoError(t, err)
		r := newReplayer(s, beside.Journal(at), mark, last)
		r.maxBytes = most
		_, err = journal.Replay(beside.Journal(at), s.Identity(), mark, r.addRecord)
		require.NoError(t, err)
		done = fn(r)
		require.NoError(t, s.Close())
		require.Equal(t, done, r.mark == r.reached, "the mark rises with the last transaction")

		db := open(t, at, Config{})
		got := make(map[string]int)
		all, err := db.Bucket("b").All()
		require.NoError(t, err)
		for _, e := range all {
			var v int
			require.NoError(t, jsonpack.Unmarshal(e.Value, &v))
			got[e.Key] = v
		}
		require.Equal(t, want, got)
		for key, want := range map[string]bool{"before": false, "after": true} {
			found, err := db.Bucket("cleared").Exists(key)
			require.NoError(t, err)
			require.Equal(t, want, found)
		}
		report, err := db.Verify(t.Context())
		require.NoError(t, err)
		require.Empty(t, report.Problems)
		require.NoError(t, db.Close())
		return done
	}
	for cut, done := 0, false; !done; cut++ {
		require.Less(t, cut, 10)
		done = try(fmt.Sprint("cut", cut), replayBytes, func(r *replayer) (done bool) {
			r.sort()
			for range cut {
				done, err = r.transact()
				require.NoError(t, err)
			}
			return done
		})
	}
	// The journal is synced before the first of several transactions.
	var failing bool
	var calls []disk.Kind
	disk.Between = func(op *disk.Op, do func() error) error {
		if op.Kind == disk.KindSync && op.File.Name() == beside.Journal(filepath.Join(dir, "durable")) ||
			op.Kind == disk.KindSyncDir {
			calls = append(calls, op.Kind)
			if failing {
				return syscall.EIO
			}
		}
		return do()
	}
	defer func() { disk.Between = nil }()
	require.True(t, try("durable", replayBytes, func(r *replayer) (done bool) {
		r.sort()
		calls = nil
		for range 2 {
			done, err = r.transact()
			require.NoError(t, err)
			require.Equal(t, []disk.Kind{disk.KindSync, disk.KindSyncDir}, calls, "once")
		}
		require.True(t, r.makeDurable())
		require.Len(t, calls, 2, "and never again")
		return done
	}))
	// If it cannot be synced, there is only one transaction.
	require.True(t, try("not durable", replayBytes, func(r *replayer) bool {
		r.sort()
		failing = true
		done, err := r.transact()
		failing = false
		require.NoError(t, err)
		require.False(t, r.makeDurable(), "a sync that failed may seem to succeed the next time")
		return done
	}))
	disk.Between = nil
	try("parts", 400<<10, func(r *replayer) bool {
		require.Greater(t, r.mark, uint64(20_000), "some parts are in the file")
		require.NoError(t, r.commit())
		return true
	})
}

// The file's highest revision is above its mark, because the process was killed between two transactions of a commit,
// or a commit caught a batch that is not in the journal. No journal goes that far. The next session's journal begins
// above the highest revision, and the mark must not stay behind: after the next kill there would be a gap before the
// journal.
func TestReplay_HighestBeyondMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.cache")
	conf := Config{CommitInterval: time.Hour, SweepInterval: -1}
	db := open(t, path, conf)
	require.NoError(t, db.Bucket("b").Set("a", 1, 0))
	require.NoError(t, db.Close())
	s, err := store.Open(nil, path, false, time.Second, true)
	require.NoError(t, err)
	mark, _, err := s.Revisions()
	require.NoError(t, err)
	rec := format.AppendHeader(nil, format.Header{ExpiresAt: format.Never, StaleUntil: format.Never})
	rec, _ = jsonpack.Append(rec, 5, 100)
	rec = format.AppendTrailer(rec)
	format.Seal(rec, format.BucketSum("b"), "x", mark+1)
	// This is a transaction that is not the last of its commit, or that caught more than its mark.
	require.NoError(t, s.Apply(nil, 0, []*store.Change{
		{ID: 1, Key: []byte("x"), Record: rec, StaleUntil: format.Never, Revision: mark + 1},
	}, mark, nil))
	require.NoError(t, s.Close())
	// The process is killed, and the journal did not have revision mark+1.
	db = open(t, path, conf)
	require.NoError(t, db.Bucket("b").Set("acknowledged", 1, 0))
	killed := filepath.Join(t.TempDir(), "killed.cache")
	copyCache(t, path, killed) // killed again
	require.NoError(t, db.Close())
	db = open(t, killed, Config{})
	found, err := db.Bucket("b").Exists("acknowledged")
	require.NoError(t, err)
	left, _ := filepath.Glob(killed + "*")
	require.True(t, found, "an acknowledged write is lost: %v", left)
}
