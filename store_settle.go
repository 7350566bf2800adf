package keepcache

import (
	"os"
	"path/filepath"

	"github.com/keepcache/keepcache/internal/disk"
)

// makeDurable puts on disk what those who read the file see, its name included. Without it that may be more than the disk has:
//
//   - A process was killed after it had written a meta page, and before that was synced. The next transaction writes to pages
//     that the one on the disk still uses, and a journal of which the file seems to have everything is removed.
//   - A sync of the meta page failed. bbolt returns the error, but shows the transaction from then on; and the system may take
//     the page for clean, so that no later sync writes it.
//   - A compaction has given a new file the old one's name, and the directory was not synced.
//
// The meta pages are written anew, as they are read, because only that makes them dirty again where a sync has failed. What they
// point to is durable: bbolt syncs it before.
func makeDurable(f *os.File, path string) error {
	meta, err := newestMeta(disk.Reader(f))
	switch {
	case err != nil:
		return err
	case meta == nil:
		return ErrCorrupt
	}
	b := make([]byte, 2*pageSizeOf(meta))
	if _, err := disk.ReadAt(f, b, 0); err != nil {
		return err
	}
	if _, err := disk.WriteAt(f, b, 0); err != nil {
		return err
	}
	if err := disk.Datasync(f); err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(path))
}

// settle makes the file that is open durable as it is read, if a change of it has failed. writing is held.
func (s *store) settle() error {
	if !s.unsettled {
		return nil
	}
	if err := makeDurable(s.file, s.path); err != nil {
		return err
	}
	s.unsettled = false
	return nil
}

// unsettle is what follows a change that failed. bbolt may show its transaction all the same, and then takes what that freed for free,
// although those who began to read before still read it. So they end before there is another change. writing is held.
func (s *store) unsettle() {
	s.unsettled = true
	s.release()
	s.mu.Lock() // waits for those under way
	s.mu.Unlock()
	_ = s.renew() // without a snapshot, look-ups have a transaction each
}
