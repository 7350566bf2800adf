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
	ErrHomeless = errors.New("its directory was removed while it was open")
	ErrTaken    = errors.New("at its path there is another directory, with another cache in it")
)

// TakesNothing reports whether a disk has failed so that another one is likely to be mounted in its place.
func TakesNothing(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EIO)
}

// MayMove returns an error if a directory has a file or a journal of another cache under our names, or no file where it may not be
// empty.
func (s *Store) MayMove(in *disk.Dir, empty bool) error {
	identity, err := s.identityIn(in)
	if err == nil && identity != s.identity || err != nil && !(empty && errors.Is(err, fs.ErrNotExist)) {
		return errors.Join(ErrTaken, err)
	}
	path := beside.Journal(s.path)
	if _, err := in.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if identity, _, ok, err := journal.Peek(in, path); err != nil || !ok || identity != s.identity {
		return errors.Join(ErrTaken, err)
	}
	return nil
}

// identityIn returns the identity of the file that a directory has under our name, which nobody may have open.
func (s *Store) identityIn(in *disk.Dir) (identity [16]byte, err error) {
	f, info, err := openOwned(in, s.path, os.O_RDWR, healLock)
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

// RemoveJournal removes what a journal that failed has left beside the file, which has everything. What is no journal of this
// cache stays, and so does what may not be removed, and what stands beside a file that is not ours to speak for: one that cannot be
// used, or that another has taken the place of.
func (s *Store) RemoveJournal() error {
	s.Inspect()
	if h := s.current.Load(); h == nil || h.Trouble() != nil {
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
