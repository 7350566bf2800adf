package keepcache

import (
	"context"

	"github.com/keepcache/keepcache/internal/store"
)

// RepairReport is what Repair found.
type RepairReport struct {
	Entries  int // entries written to the new file
	Buckets  int // that these are of
	Expired  int // those of them whose lifetime is over: they keep an earlier version away until they are swept
	Unproved int // what looked like an entry, and failed its checksum under every name of a bucket that is known
	Older    int // versions and copies that were found besides

	// Whole says that every page of the entries could be reached: then the new file has no entry that was deleted. If not,
	// pages that nothing points at were read as well, and entries may be back that were deleted or evicted.
	Whole bool
}

// RepairOptions say how Repair goes about it. A nil *RepairOptions is the zero value.
type RepairOptions struct {
	// Buckets are names of buckets to try beside those that the file names: an entry can be proved only under the name
	// of its bucket. DefaultBucket is always tried.
	Buckets []string
}

// Repair takes out of a cache file in whatever state, a quarantined one say, every entry that its checksum proves, and
// writes them to a new cache file at path to, where nothing may be. The file at path from is only read. o
// may be nil.
//
// The new file has an identity of its own, as a backup has. Of several versions of a key the one with the highest
// revision counts.
//
// When Repair fails or ctx ends it, there is no new file. ErrLocked says that a process has the file open, ErrFormat
// that it shows no trace of a cache, and ErrCorrupt that it does, and no entry can be proved. Where the report has
// Unproved, the names of their buckets, in RepairOptions.Buckets, may prove them.
func Repair(ctx context.Context, from, to string, o *RepairOptions) (RepairReport, error) {
	names := []string{DefaultBucket}
	if o != nil {
		names = append(names, o.Buckets...)
	}
	report, err := store.Repair(ctx, from, to, names)
	if err != nil {
		return RepairReport(report), &Error{Op: "repair", Path: from, Err: err}
	}
	return RepairReport(report), nil
}
