package store

import "github.com/keepcache/keepcache/internal/disk"

// makeDurable puts on disk what those who read the file see, its name included. Without it that may be more than the disk
// has:
//
//   - A process was killed after it had written a meta page, and before that was synced. The next transaction writes to
//     pages that the one on the disk still uses, and a journal of which the file seems to have everything is removed.
//   - A sync of the meta page failed. bbolt returns the error, but whoever opens the file sees the transaction; and the
//     system may take the page for clean, so that no later sync writes it.
//   - A compaction has given a new file the old one's name, and the directory was not synced.
//
// The meta pages are written anew, as they are read, because only that makes them dirty again where a sync has failed.
// What they point to is durable: bbolt syncs it before. A file that was closed in order is durable as it is.
func (h *Handle) makeDurable(in *disk.Dir, path string) error {
	if h.found.clean {
		return nil
	}
	b := make([]byte, 2*h.db.Info().PageSize)
	if _, err := disk.ReadAt(h.file, b, 0); err != nil {
		return err
	}
	if _, err := disk.WriteAt(h.file, b, 0); err != nil {
		return err
	}
	if err := disk.Datasync(h.file); err != nil {
		return err
	}
	return in.Sync(path)
}
