package journal

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/keepcache/keepcache/internal/disk"
)

// Intact asks for size and links only. fstat asks for the times too, and since Linux 6.13 a file whose times were
// looked at gets new ones with its next write, which puts the inode into the file system's own journal: 50 us on each
// flush.
func (f osFile) Intact(size int64) error {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_SIZE|unix.STATX_NLINK, &st)
	switch {
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM):
		return nil // an old kernel or a sandbox
	case err != nil:
		return &os.PathError{Op: "statx", Path: f.Name(), Err: err}
	case int64(st.Size) < size:
		return errCut
	case st.Nlink == 0:
		return errRemoved
	}
	return nil
}

// Map maps on Linux only: here fdatasync writes what was stored through a map, which POSIX asks msync for.
func (f osFile) Map(off int64, n int) ([]byte, error) {
	mem, err := disk.Map(f.File, off, n, func() ([]byte, error) {
		return unix.Mmap(int(f.Fd()), off, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	})
	if err != nil {
		return nil, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	// No read-ahead: it would put many pages under one folio (see zeros).
	_ = unix.Madvise(mem, unix.MADV_RANDOM)
	return mem, nil
}

// LetGo is about a shared map of a file, of which MADV_DONTNEED loses nothing: dirty pages stay so in the page cache.
func (osFile) LetGo(mem []byte) { _ = unix.Madvise(mem, unix.MADV_DONTNEED) }

func (osFile) Unmap(mem []byte) error { return disk.Unmap(mem, unix.Munmap) }
