package store

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/salvage"
)

var (
	ErrDirRemoved = errors.New("its directory was removed while it was open")
	ErrOtherCache = errors.New("its path now leads to another directory with another cache")
)

// IsDiskGone reports whether the disk has failed in such a way that another one is likely to be mounted in its place.
func IsDiskGone(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EIO)
}

// CheckMove returns an error if a directory has a file or a journal of another cache under our names. It also returns
// an error if the directory has no file, unless empty is set.
func (s *Store) CheckMove(in *disk.Dir, empty bool) error {
	identity, err := s.identityIn(in)
	if err == nil && identity != s.identity || err != nil && !(empty && errors.Is(err, fs.ErrNotExist)) {
		return errors.Join(ErrOtherCache, err)
	}
	path := beside.Journal(s.path)
	if _, err := in.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if identity, _, ok, err := journal.Peek(in, path); err != nil || !ok || identity != s.identity {
		return errors.Join(ErrOtherCache, err)
	}
	return nil
}

// identityIn returns the identity of the file of our name in a directory. It fails if another process has the file
// open.
func (s *Store) identityIn(in *disk.Dir) (identity [16]byte, err error) {
	f, info, err := openOwned(in, s.path, os.O_RDWR, healLockTimeout)
	if err != nil {
		return identity, err
	}
	defer f.Close()
	return identityOf(f, info)
}

// identityOf returns the identity of a cache file.
func identityOf(f *os.File, info fs.FileInfo) (identity [16]byte, err error) {
	file, err := salvage.Open(f, info.Size())
	if err != nil {
		return identity, err
	}
	found := newCatalog()
	if known, err := found.readRoots(file); err != nil || !known {
		return identity, errors.Join(errs.ErrFormat, err)
	}
	return found.Identity, nil
}

// RemoveJournal removes what a failed journal has left beside the file, which has everything. It leaves a file that is
// not this cache's journal, or that it may not remove. It removes nothing if the cache file is unusable or was
// replaced.
func (s *Store) RemoveJournal() error {
	s.Inspect()
	if h := s.current.Load(); h == nil || h.Failure() != nil {
		return nil
	}
	path := beside.Journal(s.path)
	if identity, _, ok, err := journal.Peek(s.Dir(), path); err != nil || !ok || identity != s.identity {
		return nil
	}
	err := s.Dir().Remove(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}
