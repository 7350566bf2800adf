package keepcache

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keepcache/keepcache/internal/format"
)

// Report is what Verify found. Counts of a cache that is written to meanwhile are of no single moment.
type Report struct {
	Buckets int // buckets that exist
	Entries int // their entries, in the file and in the journal, expired ones included
	Expired int // of those, the expired ones that the sweeper has not reached yet
	Pending int // entries in the file of cleared and dropped buckets, which the sweeper has not reached yet
	Rows    int // rows of the expiry index

	Journal JournalReport // what the journal has that the file does not have yet

	Problems []Problem // what is wrong, the first MaxProblems of it; none in a sound cache
	More     int       // how many further problems were found
}

// JournalReport is what Verify found in the journal beside the file. Pieces and what follows it are those of a cache that is open for
// reading only: what one that is open for writing has found in its journal is in memory, and Verify commits that first.
type JournalReport struct {
	FileBytes int64 // the size of the journal; 0 if there is none

	// Entries are those whose latest version the file does not have, and Removed the keys that the file has and that are removed.
	// Report.Entries counts the first and not the second: of the other entries, the file has the latest version.
	Entries, Removed int

	Pieces  int   // whose checksum is right and which the file does not have; a piece is one write, or several that belong together
	Bytes   int64 // of these pieces
	Torn    bool  // it ends in a piece that is not whole, which is what a crash leaves, and no problem
	Foreign bool  // it belongs to another cache, so nothing in it counts, which is no problem of this one
}

// MaxProblems is how many problems a Report lists.
const MaxProblems = 100

// OK reports whether the cache is sound.
func (r Report) OK() bool { return len(r.Problems) == 0 }

// Problem is one thing that is wrong with a cache.
type Problem struct {
	Bucket string // the bucket's name, empty where it has none
	Key    string // the entry's key, empty where the problem is not of one entry
	Err    error  // what is wrong
}

// String reads `entry "key" of bucket "name": what is wrong`.
func (p Problem) String() string {
	switch {
	case p.Key != "":
		return fmt.Sprintf("entry %s of bucket %s: %v", quoteShort(p.Key), quoteShort(p.Bucket), p.Err)
	case p.Bucket != "":
		return fmt.Sprintf("bucket %s: %v", quoteShort(p.Bucket), p.Err)
	}
	return p.Err.Error()
}

// Verify proves the cache entry by entry: each record against its checksum and its place, each entry that
// has a lifetime against the expiry index and each row of the index against its entry, the table of
// buckets, and the counts of entries and bytes. It reads in short transactions while the cache is in use,
// and then leaves out the counts, which would not stand still. What a crash left in the journal it proves too, where
// the cache is open for reading only.
//
// It holds a page of the file at a time, however the file looks, and beside that the keys of what the journal has and the file does not.
//
// What is wrong is in the Report. The error says why Verify could not finish: ctx ended, the cache is
// closed, or the file cannot be read.
func (db *DB) Verify(ctx context.Context) (Report, error) {
	if db.closed.Load() {
		return Report{}, db.fail("verify", "", ErrClosed)
	}
	if db.writer != nil {
		// Where that fails, as on a full disk, the file is still there to be proved; Stats has the error.
		<-db.startOnGround(func() { _ = db.commits.commit() })
	}
	v := &verifier{ctx: ctx, now: format.Millis(time.Now()), counted: make(map[uint64]usage)}
	var err error
	if db.live != nil {
		err = v.beside(db.live)
	} else {
		err = v.within(db)
	}
	if err != nil {
		return v.report, db.fail("verify", "", err)
	}
	return v.report, nil
}

// audit is what Verify reads a file by: transactions, or pages without the lock.
type audit interface {
	table() (ids map[string]uint64, retired []uint64, highest uint64, err error)
	revisions() (mark, highest uint64, err error)
	size() (file int64, used map[uint64]usage, err error)
	auditEntries(id uint64, from []byte, prove prover) (page []audited, more bool, err error)
	auditRows(from []byte) (page []auditedRow, more bool, err error)
	auditTags(from []byte) (page []auditedTag, more bool, err error)
	tagCount() (rows, floor uint64, err error)
}

// prover proves the record of a key. It keeps neither.
type prover func(key, record []byte) (format.Header, error)

// verifier is one run of Verify.
type verifier struct {
	ctx      context.Context
	file     audit
	now      int64
	sequence uint64
	counted  map[uint64]usage
	ids      map[string]uint64 // of the buckets that exist, those included that only the journal has
	late     lateEntries       // what the file does not have yet
	report   Report
}

// within verifies a cache that is open with its lock.
func (v *verifier) within(db *DB) error {
	v.file = db.store
	v.ids = db.bucketIDs()
	v.late = lateIn(db.memory)
	v.report.Journal = db.journalReport()
	for _, err := range db.journalProblems {
		v.problem("", "", err)
	}
	return v.run()
}

// beside verifies a cache that another process may have open.
func (v *verifier) beside(l *live) (err error) {
	a := &liveAudit{live: l, tail: newTail("")}
	v.file = a
	if v.ids, v.late, v.report.Journal, err = a.journal(v.ctx); err != nil {
		return err
	}
	return v.run()
}

func (v *verifier) run() error {
	before, err := v.standing()
	if err != nil {
		return err
	}
	filed, retired, highest, err := v.file.table()
	if err != nil {
		return err
	}
	v.table(filed, highest)
	v.report.Buckets = len(v.ids)
	exist := make(map[uint64]bool, len(v.ids))
	for _, name := range slices.Sorted(maps.Keys(v.ids)) {
		exist[v.ids[name]] = true
		if err := v.entries(name, v.ids[name]); err != nil {
			return err
		}
	}
	// A bucket that was cleared or dropped since its name was looked up is retired by now, and has been looked at.
	retired = slices.DeleteFunc(retired, func(id uint64) bool { return exist[id] })
	for _, id := range filed {
		if !exist[id] { // cleared or dropped, as the journal says
			exist[id] = true
			retired = append(retired, id)
		}
	}
	for _, id := range retired {
		if err := v.retired(id); err != nil {
			return err
		}
	}
	if err := v.rows(); err != nil {
		return err
	}
	tags, err := v.tags()
	if err != nil {
		return err
	}
	after, err := v.standing()
	if err != nil {
		return err
	}
	if before.sequence == after.sequence && maps.Equal(before.used, after.used) {
		v.usage(filed, after.used)
		if after.tags != tags {
			v.problem("", "", fmt.Errorf("the table of tags counts %d rows, there are %d", after.tags, tags))
		}
	}
	return nil
}

// standing is what must not have changed between two moments for a count in between to mean anything.
type standing struct {
	sequence uint64
	used     map[uint64]usage
	tags     uint64 // rows of their table
}

func (v *verifier) standing() (st standing, err error) {
	if _, st.sequence, err = v.file.revisions(); err != nil {
		return st, err
	}
	if st.tags, _, err = v.file.tagCount(); err != nil {
		return st, err
	}
	_, st.used, err = v.file.size()
	return st, err
}

func (v *verifier) problem(bucket, key string, err error) {
	if len(v.report.Problems) == MaxProblems {
		v.report.More++
		return
	}
	v.report.Problems = append(v.report.Problems, Problem{Bucket: bucket, Key: key, Err: err})
}
