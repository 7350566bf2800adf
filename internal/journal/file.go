package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/trust"
)

// File is what the journal does with its file. Tests put faults between it and the real one.
type File interface {
	io.WriterAt
	// Truncate cuts the file to size bytes.
	Truncate(size int64) error
	// Datasync returns when all that was written or stored through a map is on disk, with the file's length.
	Datasync() error
	// Intact returns an error if the file is shorter than size bytes or has no name any more.
	Intact(size int64) error
	// Map maps n bytes at off, shared and for writing. errors.ErrUnsupported where the system cannot.
	Map(off int64, n int) ([]byte, error)
	// LetGo takes the pages of mem, part of a map, out of the process's page tables. What was stored to them stays in the
	// file, and the next access brings them back. It may do nothing.
	LetGo(mem []byte)
	// Unmap undoes Map.
	Unmap(mem []byte) error
	// Follow gives the file, as far as the system allows that, the attributes of the one that it stands beside.
	Follow(like disk.Attributes) error
	Close() error
}

// fileMode keeps the journal to the owner of the store.
const fileMode fs.FileMode = 0o600

var (
	errCut     = errors.New("file was cut off by another program")
	errRemoved = errors.New("file was removed by another program")
)

// osFile is the real file.
type osFile struct{ *os.File }

func (f osFile) WriteAt(b []byte, off int64) (int, error) { return disk.WriteAt(f.File, b, off) }

func (f osFile) Truncate(size int64) error { return disk.Truncate(f.File, size) }

func (f osFile) Datasync() error { return disk.Datasync(f.File) }

func (f osFile) Follow(like disk.Attributes) error { return like.LendTo(f.File) }

func (f osFile) Close() error { return disk.Close(f.File) }

// openIn returns a function that opens files in a directory.
func openIn(dir *disk.Dir) func(name string, flag int, perm fs.FileMode) (File, error) {
	return func(name string, flag int, perm fs.FileMode) (File, error) {
		f, err := dir.OpenRegular(name, flag, perm)
		if err != nil {
			return nil, err
		}
		return osFile{f}, nil
	}
}

// openProved opens a journal for reading that is a regular file, of somebody who may be believed.
func openProved(dir *disk.Dir, path string) (*os.File, error) {
	f, err := dir.OpenRegular(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	if err := trust.Opened(f, path, dir.Info); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// createFile makes a journal without segments and gives it the name path, where it replaces what was there; with staged
// it keeps the name that it was made under. The head is on disk before the file has its name, so a file of that name
// always has one.
func createFile(path string, o *Options, h *head, staged bool) (_ File, err error) {
	tmp := strayPath(path)
	if err := removeStray(o.Dir, path); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCreate, err)
	}
	defer func() {
		if err != nil {
			o.Dir.Remove(tmp)
			err = fmt.Errorf("%w: %w", ErrCreate, err)
		}
	}()
	f, err := o.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, err
	}
	if err := follow(f, o); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	var b [headerSize]byte
	h.encode(&b)
	buf := make([]byte, h.front())
	copy(buf, b[:])
	copy(buf[headerCopy:], b[:])
	_, err = f.WriteAt(buf, 0)
	if err == nil {
		err = f.Datasync()
	}
	if staged && err == nil {
		return f, nil
	}
	// Closed for the rename: Windows does not rename an open file.
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := o.Dir.Rename(tmp, path); err != nil {
		return nil, err
	}
	return o.OpenFile(path, os.O_RDWR, fileMode)
}

// removeStray removes what a crash left of the making of the journal at path. Where somebody else has taken the name
// and it cannot be removed, the error says whose it is.
func removeStray(dir *disk.Dir, path string) error {
	stray := strayPath(path)
	err := dir.Remove(stray)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) {
		if info, statErr := dir.Lstat(stray); statErr == nil {
			err = cmp.Or(trust.File(stray, info, dir.Info), err)
		}
	}
	return err
}

// strayPath is where a journal is made before it takes its path.
func strayPath(path string) string { return beside.Path(path, ".new") }
