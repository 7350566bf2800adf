// Package disk is the way on which the cache reaches the file system: each call that changes a file, makes a change
// last, or reads a file that a crash may have left goes through it. Nothing stands on that way but [Between], which
// a test may set to record the calls or to let them fail. The calls that bbolt makes itself do not come here; the
// tests build it with a few lines changed so that they do.
package disk

import (
	"errors"
	"io/fs"
	"os"
	"runtime"

	"github.com/keepcache/keepcache/internal/trust"
)

// Kind says what a call does.
type Kind string

// The kinds of calls. What an Op of each has beside its Kind stands behind it.
const (
	KindOpen Kind = "open" // Path, Flag; File once it is done
	// the same, of a file that is made or may be made; of a temporary one Path is the directory and To the pattern until
	// it is done
	KindCreate   Kind = "create"
	KindClose    Kind = "close"    // File
	KindRead     Kind = "read"     // File, Data, Off
	KindWrite    Kind = "write"    // File, Data, Off
	KindTruncate Kind = "truncate" // File, Off: the new size in bytes
	KindSync     Kind = "sync"     // File
	KindSyncDir  Kind = "syncdir"  // Path
	KindRename   Kind = "rename"   // Path, To
	KindLink     Kind = "link"     // Path, To
	KindRemove   Kind = "remove"   // Path
	KindStat     Kind = "stat"     // Path
	// File, Off, N: how many bytes; Flag is os.O_RDWR for one to store to; Data once it is done
	KindMap   Kind = "map"
	KindUnmap Kind = "unmap" // Data

	KindAttributes Kind = "attributes" // File
)

// Op is one call.
type Op struct {
	Kind Kind
	Path string
	To   string
	File *os.File
	Flag int
	Data []byte
	Off  int64
	N    int // result of a read or a write: how many bytes were done
}

// Between stands in the place of each call unless it is nil, and makes it with do, which fills in what the Op has
// to tell once it is done. What it returns is the error of the call. It is for tests, which set it before a cache is
// opened; it is called from several goroutines at once. Default: nil.
var Between func(op *Op, do func() error) error

// OpenFile is os.OpenFile.
func OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	return openBy(name, flag, func() (*os.File, error) { return os.OpenFile(name, flag, perm) })
}

func openBy(name string, flag int, open func() (*os.File, error)) (*os.File, error) {
	if Between == nil {
		return open()
	}
	op := &Op{Kind: KindOpen, Path: name, Flag: flag}
	if flag&os.O_CREATE != 0 {
		op.Kind = KindCreate
	}
	return opened(op, open)
}

// ErrNotRegular says that there is something else than a regular file, a link included.
var ErrNotRegular = errors.New("not a regular file")

// OpenRegular is OpenFile for what has to be a regular file by that very name: it follows no link at its end, and does
// not wait at a pipe, which somebody else may have put there.
func OpenRegular(name string, flag int, perm fs.FileMode) (*os.File, error) {
	return regular(name, func() (*os.File, error) { return OpenFile(name, flag|openFlags, perm) })
}

func regular(name string, open func() (*os.File, error)) (*os.File, error) {
	f, err := open()
	if err != nil {
		if isLink(err) {
			err = &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
		}
		return nil, err
	}
	ok, err := trust.Regular(f)
	if err == nil && !ok {
		err = &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// CreateTemp is os.CreateTemp.
func CreateTemp(dir, pattern string) (*os.File, error) {
	if Between == nil {
		return os.CreateTemp(dir, pattern)
	}
	op := &Op{Kind: KindCreate, Path: dir, To: pattern, Flag: os.O_RDWR | os.O_CREATE | os.O_EXCL}
	return opened(op, func() (*os.File, error) { return os.CreateTemp(dir, pattern) })
}

func opened(op *Op, open func() (*os.File, error)) (*os.File, error) {
	err := Between(op, func() (err error) {
		if op.File, err = open(); err == nil && op.To != "" {
			op.Path = op.File.Name()
		}
		return err
	})
	if err != nil && op.File != nil {
		op.File.Close() // reported as failed though it was done
		return nil, err
	}
	return op.File, err
}

// Close is f.Close.
func Close(f *os.File) error {
	if Between == nil {
		return f.Close()
	}
	return Between(&Op{Kind: KindClose, File: f}, f.Close)
}

// ReadAt is f.ReadAt.
func ReadAt(f *os.File, b []byte, off int64) (int, error) {
	if Between == nil {
		return f.ReadAt(b, off)
	}
	op := &Op{Kind: KindRead, File: f, Data: b, Off: off}
	err := Between(op, func() (err error) {
		op.N, err = f.ReadAt(b, off)
		return err
	})
	return op.N, err
}

// Storage is a file that is used by ReadAt, WriteAt and Sync, for those who want it as an interface.
type Storage struct{ f *os.File }

// In returns f as a Storage.
func In(f *os.File) Storage { return Storage{f} }

// ReadAt is ReadAt of the file.
func (s Storage) ReadAt(b []byte, off int64) (int, error) { return ReadAt(s.f, b, off) }

// WriteAt is WriteAt of the file.
func (s Storage) WriteAt(b []byte, off int64) (int, error) { return WriteAt(s.f, b, off) }

// Sync is Sync of the file.
func (s Storage) Sync() error { return Sync(s.f) }

// WriteAt is f.WriteAt.
func WriteAt(f *os.File, b []byte, off int64) (int, error) {
	if Between == nil {
		return f.WriteAt(b, off)
	}
	op := &Op{Kind: KindWrite, File: f, Data: b, Off: off}
	err := Between(op, func() (err error) {
		op.N, err = f.WriteAt(b, off)
		return err
	})
	return op.N, err
}

// Truncate is f.Truncate.
func Truncate(f *os.File, size int64) error {
	if Between == nil {
		return f.Truncate(size)
	}
	return Between(&Op{Kind: KindTruncate, File: f, Off: size}, func() error { return f.Truncate(size) })
}

// Sync is f.Sync.
func Sync(f *os.File) error {
	if Between == nil {
		return f.Sync()
	}
	return Between(&Op{Kind: KindSync, File: f}, f.Sync)
}

// Datasync returns when what was written to f, or stored through a map of it, is on disk, with its length.
func Datasync(f *os.File) error {
	if Between == nil {
		return datasync(f)
	}
	return Between(&Op{Kind: KindSync, File: f}, func() error { return datasync(f) })
}

// SyncDir makes the names in dir durable. Windows cannot sync a directory, and journals its names; some file systems
// elsewhere cannot either.
func SyncDir(dir string) error {
	if Between == nil {
		return syncDir(dir)
	}
	return Between(&Op{Kind: KindSyncDir, Path: dir}, func() error { return syncDir(dir) })
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return syncAndClose(d)
}

func syncAndClose(dir *os.File) error {
	err := dir.Sync()
	if cannotSync(err) {
		err = nil
	}
	return errors.Join(err, dir.Close())
}

// do makes one call.
func do(op *Op, call func() error) error {
	if Between == nil {
		return call()
	}
	return Between(op, call)
}

// Rename is os.Rename.
func Rename(from, to string) error {
	if Between == nil {
		return os.Rename(from, to)
	}
	return Between(&Op{Kind: KindRename, Path: from, To: to}, func() error { return os.Rename(from, to) })
}

// Link is os.Link.
func Link(from, to string) error {
	if Between == nil {
		return os.Link(from, to)
	}
	return Between(&Op{Kind: KindLink, Path: from, To: to}, func() error { return os.Link(from, to) })
}

// Remove is os.Remove.
func Remove(name string) error {
	if Between == nil {
		return os.Remove(name)
	}
	return Between(&Op{Kind: KindRemove, Path: name}, func() error { return os.Remove(name) })
}

// Stat is os.Stat.
func Stat(name string) (info fs.FileInfo, err error) {
	if Between == nil {
		return os.Stat(name)
	}
	err = Between(&Op{Kind: KindStat, Path: name}, func() (err error) {
		info, err = os.Stat(name)
		return err
	})
	return info, err
}

// Map lets mmap map n bytes of f at off, to store to them.
func Map(f *os.File, off int64, n int, mmap func() ([]byte, error)) ([]byte, error) {
	if Between == nil {
		return mmap()
	}
	op := &Op{Kind: KindMap, File: f, Flag: os.O_RDWR, Off: off, N: n}
	err := Between(op, func() (err error) {
		op.Data, err = mmap()
		return err
	})
	return op.Data, err
}

// Unmap lets munmap end a map.
func Unmap(mem []byte, munmap func([]byte) error) error {
	if Between == nil {
		return munmap(mem)
	}
	return Between(&Op{Kind: KindUnmap, Data: mem}, func() error { return munmap(mem) })
}
