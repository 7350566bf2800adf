package keepcache

import (
	"context"
	"errors"

	"github.com/keepcache/keepcache/internal/disk"
)

// Compact writes the file anew without its free pages, so that it shrinks to what it holds, while reads and writes go
// on. A few free pages remain from copying. It needs room on the disk for the copy, and returns an error that says so
// if there is none. If it fails or ctx ends it, the file is as before. Compaction also runs by itself, see
// Options.CompactBytes.
//
// The copy gets the owner, group, mode and labels of the file. If it cannot get them, the file stays as it is. On
// Windows, where an open file cannot be replaced, and for a file that is itself a mount point, as in containers, the
// error is errors.ErrUnsupported.
func (db *DB) Compact(ctx context.Context) error {
	err := db.writable()
	if err == nil {
		err = db.onGround(ctx, db.engine.Compact)
	}
	if err != nil {
		e := &Error{Op: "compact", Path: db.path, Err: err}
		if errors.Is(err, disk.ErrAttributes) {
			e.Hint = "the owner of the file can compact it, and root"
		}
		return e
	}
	return nil
}
