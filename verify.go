package keepcache

import (
	"context"
	"fmt"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/verify"
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

// JournalReport is what Verify found in the journal beside the file. Records and what follows it are 0 where
// the cache is open for writing: there, Verify commits what the journal has before it begins.
type JournalReport struct {
	FileBytes int64 // the size of the journal; 0 if there is none

	// Entries are those whose latest version the file does not have, and Removed the keys that the file has and that are
	// removed. Report.Entries counts the first and not the second: of the other entries, the file has the latest version.
	Entries, Removed int

	Records int   // log records that pass their checksum and that the file does not have; each is one write or one batch
	Bytes   int64 // of these records
	Torn    bool  // the last record is incomplete, as a crash leaves it; that is no problem
	Foreign bool  // it belongs to another cache and does not count; that is no problem of this one
}

// MaxProblems is how many problems a Report lists.
const MaxProblems = verify.MaxProblems

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
		return fmt.Sprintf("entry %s of bucket %s: %v", errs.Quote(p.Key), errs.Quote(p.Bucket), p.Err)
	case p.Bucket != "":
		return fmt.Sprintf("bucket %s: %v", errs.Quote(p.Bucket), p.Err)
	}
	return p.Err.Error()
}

// Verify proves the cache entry by entry: each record against its checksum and its place, each entry that
// has a lifetime against the expiry index and each row of the index against its entry, the table of
// buckets, and the counts of entries and bytes. It reads in short transactions while the cache is in use,
// and then leaves out the counts, which would not stand still. What a crash left in the journal it proves too, where
// the cache is open for reading only.
//
// It holds a page of the file at a time, however the file looks, and beside that the keys of what the journal has and
// the file does not.
//
// What is wrong is in the Report. The error says why Verify could not finish: ctx ended, the cache is
// closed, or the file cannot be read.
func (db *DB) Verify(ctx context.Context) (Report, error) {
	if db.engine.Closed() {
		return Report{}, db.fail("verify", "", ErrClosed)
	}
	if !db.options.ReadOnly {
		// Where that fails, as on a full disk, the file is still there to be proved; Stats has the error.
		<-db.startOnGround(func() { _ = db.engine.Commit() })
	}
	found, err := db.engine.Verify(ctx)
	report := Report{
		Buckets: found.Buckets, Entries: found.Entries, Expired: found.Expired, Pending: found.Pending, Rows: found.Rows,
		Journal: JournalReport(found.Journal), More: found.More,
	}
	for _, p := range found.Problems {
		report.Problems = append(report.Problems, Problem(p))
	}
	if err != nil {
		return report, db.fail("verify", "", err)
	}
	return report, nil
}
