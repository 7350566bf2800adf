package keepcache

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/store"
)

// The file's highest revision is beyond its mark (killed between two transactions of a commit, or a SetMany in no
// journal caught by a commit) and no journal goes that far. The next session journals from highest on, while the
// file's mark must not stay behind: after the next kill the journal would begin beyond what the cache has.
func TestReplay_HighestBeyondMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	o := &Options{CommitInterval: time.Hour, SweepInterval: -1}
	db, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	_ = db.Bucket("b").Set("a", 1, 0)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(nil, path, false, time.Second, true)
	if err != nil {
		t.Fatal(err)
	}
	mark, _, _ := s.Revisions()
	rec := format.AppendHeader(nil, format.Header{FreshUntil: format.Never, GoneAt: format.Never})
	rec, _ = appendValue(rec, 5, 100)
	rec = format.AppendTrailer(rec)
	format.Seal(rec, format.BucketSum("b"), "x", mark+1)
	// What the committer does in a transaction that is not the last of its commit, or that caught more than its mark.
	if err := s.Apply(nil, 0, []*store.Change{{ID: 1, Key: []byte("x"), Record: rec, GoneAt: format.Never, Revision: mark + 1}}, mark, nil); err != nil {
		t.Fatal(err)
	}
	s.Close()
	// kill; the journal did not have revision mark+1
	db, err = Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Bucket("b").Set("acknowledged", 1, 0); err != nil {
		t.Fatal(err)
	}
	// kill -9
	to := filepath.Join(t.TempDir(), "g")
	for _, suffix := range []string{"", "-journal"} {
		c, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		_ = os.WriteFile(to+suffix, c, 0o600)
	}
	db.Close()
	db, err = Open(to, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	found, err := db.Bucket("b").Exists("acknowledged")
	left, _ := filepath.Glob(to + "*")
	if !found {
		t.Fatalf("acknowledged write lost: %v %v", err, left)
	}
}
