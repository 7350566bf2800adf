package store

import "github.com/keepcache/keepcache/internal/disk"

// makeDurable makes sure that what readers of the file see is on disk, including its name. Otherwise readers may see
// more than the disk has:
//
//   - A process was killed after it wrote a meta page and before it synced it. The next transaction writes to pages
//     that the one on disk still uses, and a journal is removed although the file does not have all of it on disk.
//   - A sync of the meta page failed. bbolt returned the error, but whoever opens the file sees the transaction. And
//     the system may take the page for clean, so no later sync writes it.
//   - A compaction renamed a new file to the old one's name, and the directory was not synced.
//
// It writes the meta pages again as they are, because only that makes them dirty again after a failed sync. What they
// point to is durable, because bbolt syncs it first. A file that was closed cleanly is durable already.
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
