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

// makeFile creates a new cache file and calls fn to fill it. The file gets its name only if fn succeeds, so a command
// that fails leaves no file. made is false if there is a file already, or one appeared meanwhile.
func (f *flags) makeFile(
	w io.Writer, path string, how access, options keepcache.Options, fn func(*local) error,
) (made bool, err error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if _, err := os.Lstat(journalOf(path)); err == nil {
		return false, nil // the library decides about a journal without its cache
	}
	in, real, err := disk.OpenDir(path)
	if err != nil {
		return false, nil // the library has the better error
	}
	defer in.Close()
	const random = 10 // the most bytes that CreateTemp appends to a name
	tmp, name, err := in.CreateTemp(beside.Prefix(real, ".new-", random))
	if err != nil {
		return false, nil // as before
	}
	// Only the name is needed: the library treats an empty file differently from an absent one.
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
		return false, nil // a file appeared, or the file system has no hard links: use the file itself
	case errors.Is(err, fs.ErrExist):
		return false, fmt.Errorf("%s was created by another process in the meantime; nothing was changed",
			strconv.Quote(path))
	}
	// A file system without hard links. The rename could replace a file that appeared meanwhile, so check again.
	if _, err := in.Lstat(real); !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("%s was created by another process in the meantime; nothing was changed",
			strconv.Quote(path))
	}
	if err := in.Rename(name, real); err != nil {
		return false, err
	}
	return true, in.Sync(real)
}

// withPath returns err with the path that the file should get.
func withPath(err error, path string) error {
	var e *keepcache.Error
	if errors.As(err, &e) {
		e.Path = path
	}
	return err
}
