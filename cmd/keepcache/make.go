package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
)

// makeFile has fn fill a new cache file, which gets its name when that has succeeded: a command that fails leaves no
// file. made reports whether it did so. It does not where there is a file, also one that has come meanwhile.
func (f *flags) makeFile(w io.Writer, path string, how access, options keepcache.Options,
	fn func(*local) error) (made bool, err error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if _, err := os.Lstat(journalOf(path)); err == nil {
		return false, nil // the library has an opinion on one without its cache
	}
	in, real, err := disk.OpenDir(path)
	if err != nil {
		return false, nil // the library says it better
	}
	defer in.Close()
	const random = 10 // bytes that CreateTemp puts behind a name at the most
	tmp, name, err := in.CreateTemp(beside.Prefix(real, ".new-", random))
	if err != nil {
		return false, nil // as before
	}
	// The name is what is wanted: the library makes an empty file a cache in another way than one that is not there.
	if err := errors.Join(tmp.Close(), in.Remove(name)); err != nil {
		return false, err
	}
	defer in.Remove(name)
	fill := func(l *local) error {
		l.fresh = true
		return fn(l)
	}
	if err := f.openFile(w, name, how, options, nil, fill); err != nil {
		_ = in.Remove(journalOf(name))
		return false, withPath(err, path)
	}
	switch err := in.Link(name, real); {
	case err == nil:
		return true, in.Sync(real)
	case how == creating:
		return false, nil // a file has come, or the file system knows no links: once more, with the file itself
	case errors.Is(err, fs.ErrExist):
		return false, fmt.Errorf("%s was created by another process in the meantime; nothing was changed",
			strconv.Quote(path))
	}
	// A file system without links. The renaming could replace a file that has come since, so look again.
	if _, err := in.Lstat(real); !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("%s was created by another process in the meantime; nothing was changed",
			strconv.Quote(path))
	}
	if err := in.Rename(name, real); err != nil {
		return false, err
	}
	return true, in.Sync(real)
}

// withPath returns err with the path that the file was to get.
func withPath(err error, path string) error {
	var e *keepcache.Error
	if errors.As(err, &e) {
		e.Path = path
	}
	return err
}
