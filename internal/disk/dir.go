package disk

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Dir is a directory that is held open: what is done in it is done there, whatever its path leads to by then. Its
// methods take the paths that files in it had when it was opened, and these are what errors and an Op name. They may be
// called from any goroutine.
//
// A nil Dir stands for no directory in particular: paths mean what they mean to the system. Where a directory cannot be
// held open, because the system has no such thing or because it may be searched but not read, each call proves first
// that the path still leads to it.
type Dir struct {
	path string
	root *os.Root // nil where it cannot be held open
	info fs.FileInfo
}

// ErrElsewhere says that the path of a Dir that cannot be held open leads to another directory now. Nothing was done.
var ErrElsewhere = errors.New("its directory was renamed or replaced")

// Resolve returns path as an absolute one without links among its directories. The last element stays as it is: what it
// names need not exist, and may be a link.
func Resolve(path string) (string, error) {
	dir, base := filepath.Split(path)
	if base == "" || base == "." || base == ".." {
		return "", &fs.PathError{Op: "open", Path: path, Err: syscall.EISDIR}
	}
	if dir == "" {
		dir = "."
	}
	// What is behind a link and a .. is not what it is without both, so nothing is cleaned before the links are gone.
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(dir) {
		wd, err := os.Getwd() // which may have links
		if err != nil {
			return "", err
		}
		if real, err := filepath.EvalSymlinks(wd); err == nil { // or else it lies in directories that cannot be searched
			wd = real
		}
		if runtime.GOOS == "windows" {
			if dir, err = filepath.Abs(dir); err != nil { // which knows the working directory of each drive
				return "", err
			}
		} else {
			dir = filepath.Join(wd, dir)
		}
	}
	return filepath.Join(dir, base), nil
}

// OpenDir returns the directory of the file at path, and the file's path as Resolve has it. The directory must exist.
func OpenDir(path string) (d *Dir, real string, err error) {
	if real, err = Resolve(path); err != nil {
		return nil, "", err
	}
	d = &Dir{path: filepath.Dir(real)}
	if canHold {
		d.root, err = os.OpenRoot(d.path)
		if given, _ := filepath.Split(path); errors.Is(err, fs.ErrPermission) && !filepath.IsAbs(given) {
			d.root, err = os.OpenRoot("./" + given) // the way to the working directory cannot be searched
		}
		if err == nil {
			if d.info, err = d.root.Stat("."); err != nil {
				d.root.Close()
			}
			return d, real, err
		}
		if !errors.Is(err, fs.ErrPermission) {
			return nil, "", err
		}
	}
	if d.info, err = os.Stat(d.path); err == nil && !d.info.IsDir() {
		err = &fs.PathError{Op: "open", Path: d.path, Err: syscall.ENOTDIR}
	}
	return d, real, err
}

// Close lets go of the directory. Calls that follow fail.
func (d *Dir) Close() error {
	if d == nil || d.root == nil {
		return nil
	}
	return d.root.Close()
}

// Again returns the same directory, to be closed on its own.
func (d *Dir) Again() (*Dir, error) {
	if d == nil || d.root == nil {
		return d, nil
	}
	root, err := d.root.OpenRoot(".")
	if err != nil {
		return nil, err
	}
	return &Dir{path: d.path, root: root, info: d.info}, nil
}

// Moved reports whether the path is known not to lead to the directory any more.
func (d *Dir) Moved() bool {
	if d == nil {
		return false
	}
	now, err := os.Lstat(d.path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
	}
	return !os.SameFile(now, d.info)
}

// Removed reports whether the directory is known not to exist any more under any name.
func (d *Dir) Removed() bool {
	if d == nil || d.root == nil || !d.Moved() {
		return false
	}
	f, err := d.root.Open(".")
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	// Linux says so to whoever reads it. The number of links is not known of every file system.
	if _, err = f.Readdirnames(1); err != nil && err != io.EOF {
		return errors.Is(err, fs.ErrNotExist)
	}
	info, err := f.Stat()
	return err == nil && unlinked(info)
}

// base returns the name of a file by its path, when the directory may be used. Where root is nil it is to be used by
// the path.
func (d *Dir) base(name string) (string, error) {
	if filepath.Dir(name) != d.path {
		return "", &fs.PathError{Op: "find", Path: name, Err: errors.New("it is not in " + d.path)}
	}
	if d.root == nil && d.Moved() {
		return "", &fs.PathError{Op: "find", Path: name, Err: ErrElsewhere}
	}
	return filepath.Base(name), nil
}

// in calls held with the name of a file in the directory, or plain where the directory is not held open. Errors get the
// whole path.
func (d *Dir) in(name string, held func(root *os.Root, base string) error, plain func() error) error {
	if d == nil {
		return plain()
	}
	base, err := d.base(name)
	if err != nil {
		return err
	}
	if d.root == nil {
		return plain()
	}
	err = held(d.root, base)
	var e *fs.PathError
	if errors.As(err, &e) {
		return &fs.PathError{Op: strings.TrimSuffix(e.Op, "at"), Path: name, Err: e.Err}
	}
	return err
}

// OpenFile is os.OpenFile.
func (d *Dir) OpenFile(name string, flag int, perm fs.FileMode) (f *os.File, err error) {
	return openBy(name, flag, func() (*os.File, error) {
		err := d.in(name, func(root *os.Root, base string) (err error) {
			f, err = root.OpenFile(base, flag, perm)
			return err
		}, func() (err error) {
			f, err = os.OpenFile(name, flag, perm)
			return err
		})
		return f, err
	})
}

// OpenRegular is the function OpenRegular for a file in the directory.
func (d *Dir) OpenRegular(name string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := regular(name, func() (*os.File, error) { return d.OpenFile(name, flag|openFlags, perm) })
	if (err == nil || !errors.Is(err, fs.ErrNotExist)) && d.isLink(name) {
		if err == nil {
			f.Close()
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	return f, err
}

// isLink reports whether there is a link in a directory that is held open: that follows links, whatever the flags, to
// what else is in it. It asks for no times, as Lstat would, which the next flush of the file would have to write.
func (d *Dir) isLink(name string) bool {
	if d == nil || d.root == nil {
		return false // openFlags see to it
	}
	base, err := d.base(name)
	if err == nil {
		_, err = d.root.Readlink(base)
	}
	return err == nil
}

// tempTries bounds how many names CreateTemp tries.
const tempTries = 1000

// CreateTemp makes a file for reading and writing, with mode 0600, whose path begins with prefix and ends at random. It
// returns that.
func (d *Dir) CreateTemp(prefix string) (f *os.File, name string, err error) {
	if d == nil {
		dir, base := filepath.Split(prefix)
		if f, err = CreateTemp(dir, base+"*"); err == nil {
			name = f.Name()
		}
		return f, name, err
	}
	for range tempTries {
		name = prefix + strconv.FormatUint(uint64(rand.Uint32()), 10)
		f, err = d.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return f, name, err
}

// Lstat is os.Lstat.
func (d *Dir) Lstat(name string) (info fs.FileInfo, err error) {
	err = do(&Op{Kind: KindStat, Path: name}, func() error {
		return d.in(name, func(root *os.Root, base string) (err error) {
			info, err = root.Lstat(base)
			return err
		}, func() (err error) {
			info, err = os.Lstat(name)
			return err
		})
	})
	return info, err
}

// Info describes the directory itself, as it is now. For a nil Dir that is the one of the file at path.
func (d *Dir) Info(path string) (fs.FileInfo, error) {
	switch {
	case d == nil:
		return os.Stat(filepath.Dir(path))
	case d.root != nil:
		return d.root.Stat(".")
	case d.Moved():
		return nil, &fs.PathError{Op: "stat", Path: d.path, Err: ErrElsewhere}
	}
	return os.Stat(d.path)
}

// Rename is os.Rename.
func (d *Dir) Rename(from, to string) error {
	return do(&Op{Kind: KindRename, Path: from, To: to}, func() error {
		return d.both("rename", from, to, (*os.Root).Rename, os.Rename)
	})
}

// Link is os.Link.
func (d *Dir) Link(from, to string) error {
	return do(&Op{Kind: KindLink, Path: from, To: to}, func() error {
		return d.both("link", from, to, (*os.Root).Link, os.Link)
	})
}

// both is in for two names.
func (d *Dir) both(
	op, from, to string, held func(root *os.Root, from, to string) error, plain func(from, to string) error,
) error {
	err := d.in(from, func(root *os.Root, base string) error {
		target, err := d.base(to)
		if err != nil {
			return err
		}
		return held(root, base, target)
	}, func() error { return plain(from, to) })
	var e *os.LinkError
	if errors.As(err, &e) {
		return &os.LinkError{Op: op, Old: from, New: to, Err: e.Err}
	}
	return err
}

// Remove is os.Remove.
func (d *Dir) Remove(name string) error {
	return do(&Op{Kind: KindRemove, Path: name}, func() error {
		return d.in(name, (*os.Root).Remove, func() error { return os.Remove(name) })
	})
}

// Chtimes is os.Chtimes.
func (d *Dir) Chtimes(name string, accessed, changed time.Time) error {
	return d.in(name, func(root *os.Root, base string) error {
		return root.Chtimes(base, accessed, changed)
	}, func() error { return os.Chtimes(name, accessed, changed) })
}

// Sync is SyncDir of the directory, or for a nil one of that of the file at path.
func (d *Dir) Sync(path string) error {
	dir := filepath.Dir(path)
	return do(&Op{Kind: KindSyncDir, Path: dir}, func() error {
		if d == nil || d.root == nil {
			if d != nil && d.Moved() {
				return &fs.PathError{Op: "sync", Path: dir, Err: ErrElsewhere}
			}
			return syncDir(dir)
		}
		f, err := d.root.Open(".")
		if err != nil {
			return err
		}
		return syncAndClose(f)
	})
}

// Beside returns the paths of all files in the directory whose paths begin with prefix, sorted.
func (d *Dir) Beside(prefix string) (paths []string) {
	dir, base := filepath.Split(prefix)
	var f *os.File
	var err error
	switch {
	case d == nil || d.root == nil && !d.Moved():
		if dir == "" {
			f, err = os.Open(".")
		} else {
			f, err = os.Open(dir)
		}
	case d.root != nil:
		f, err = d.root.Open(".")
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(1024)
		for _, name := range names {
			if strings.HasPrefix(name, base) {
				paths = append(paths, dir+name)
			}
		}
		if err != nil || len(names) == 0 {
			slices.Sort(paths)
			return paths
		}
	}
}
