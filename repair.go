package keepcache

import (
	"context"
	"slices"

	"github.com/keepcache/keepcache/internal/store"
)

// RepairReport is what Repair found.
type RepairReport struct {
	Entries  int64 // entries written to the new file
	Buckets  int   // that these are of
	Expired  int64 // those of them whose lifetime is over: they keep an earlier version away until they are swept
	Unproved int64 // what looked like an entry, and failed its checksum under every name of a bucket that is known
	Older    int64 // versions and copies that were found besides

	// Whole says that every page of the entries could be reached: then the new file has no entry that was deleted. If not,
	// pages that nothing points at were read as well, and entries may be back that were deleted or evicted.
	Whole bool
}

// Repair takes out of a cache file in whatever state, a quarantined one say, every entry that its checksum proves, and
// writes them to a new cache file at path to, where nothing may be. The file at path from is only read. names are
// buckets that are tried beside those that the file names: an entry can be proved only under the name of its bucket.
//
// The new file has an identity of its own, as a backup has. Of several versions of a key the one with the highest revision
// counts.
//
// When Repair fails or ctx ends it, there is no new file. ErrLocked says that a process has the file open, ErrFormat that
// it shows no trace of a cache, and ErrCorrupt that it does, and no entry can be proved. Where the report has Unproved, the
// names of their buckets may prove them.
func Repair(ctx context.Context, from, to string, names []string) (RepairReport, error) {
	report, err := store.Repair(ctx, from, to, append(slices.Clone(names), DefaultBucket))
	if err != nil {
		return RepairReport(report), &Error{Op: "repair", Path: from, Err: err}
	}
	return RepairReport(report), nil
}
