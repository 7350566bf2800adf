package keepcache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/salvage"
)

var (
	errHomeless = errors.New("its directory was removed while it was open")
	errTaken    = errors.New("at its path there is another directory, with another cache in it")
)

// refuge returns the directory in which the file is to be mended. That is its own, under whatever name: a directory that has
// taken the old path is somebody else's. Only if its own was removed it is the one that has the path, if that has nothing of
// another cache; and if the given error says that the disk takes no changes any more, if that has the same cache, as where a disk is
// mounted anew. The caller closes it if the store does not move there.
func (hl *healer) refuge(cause error) (*disk.Dir, error) {
	s := hl.db.store
	home := s.dir()
	removed := home.Removed()
	if !removed && !(takesNothing(cause) && home.Moved()) {
		return home, nil
	}
	other, real, err := disk.OpenDir(s.path)
	if err == nil {
		if err = s.mayMove(other, removed); real != s.path {
			err = errTaken // links lead somewhere else
		}
		if err == nil {
			return other, nil
		}
		other.Close()
	}
	if removed {
		return nil, errors.Join(errHomeless, err)
	}
	return home, nil
}

// takesNothing reports whether a disk has failed so that another one is likely to be mounted in its place.
func takesNothing(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EIO)
}

// mayMove returns an error if a directory has a file or a journal of another cache under our names, or no file where it may not be
// empty.
func (s *store) mayMove(in *disk.Dir, empty bool) error {
	identity, err := s.identityIn(in)
	if err == nil && identity != s.identity || err != nil && !(empty && errors.Is(err, fs.ErrNotExist)) {
		return errors.Join(errTaken, err)
	}
	path := journalPath(s.path)
	if _, err := in.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if identity, _, ok, err := journal.Peek(in, path); err != nil || !ok || identity != s.identity {
		return errors.Join(errTaken, err)
	}
	return nil
}

// identityIn returns the identity of the file that a directory has under our name, which nobody may have open.
func (s *store) identityIn(in *disk.Dir) (identity [16]byte, err error) {
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
	found := newHeritage()
	if known, err := found.readRoots(file); err != nil || !known {
		return identity, errors.Join(ErrFormat, err)
	}
	return found.identity, nil
}

// wander bars a file whose disk takes nothing any more, where another one has been mounted at its path.
func (hl *healer) wander(h *handle) {
	c := hl.db.commits
	if h == nil || h.trouble() != nil || c == nil {
		return
	}
	err := c.snapshot().Err
	if !takesNothing(err) {
		return
	}
	if other, refugeErr := hl.refuge(err); refugeErr == nil && other != hl.db.store.dir() {
		other.Close()
		h.bar(fmt.Errorf("%w: %w", errMoved, err))
	}
}

// settle is what follows an attempt to mend the file in the directory to. The one that it was in, if that was another, is left to
// the collector: a journal may have it still.
func (hl *healer) settle(was, to *disk.Dir) {
	if hl.db.store.dir() != to {
		to.Close()
		return
	}
	w := hl.db.writer
	if w == nil {
		return
	}
	// Who takes the file away mostly takes the journal too. It would be noticed by the next flush only, and not by writes until then.
	j := w.position().journal
	if j == nil {
		return
	}
	made := j.Made() // before the look: the first write may be making it
	if _, err := to.Lstat(journalPath(hl.db.store.path)); to != was || made && errors.Is(err, fs.ErrNotExist) {
		w.lost(j)
		hl.db.commits.demand() // which makes a new one, at once where nothing is to be committed
	}
}

// removeJournal removes what a journal that failed has left beside the file, which has everything. What is no journal of this
// cache stays, and so does what may not be removed, and what stands beside a file that is not ours to speak for: one that cannot be
// used, or that another has taken the place of.
func (s *store) removeJournal() error {
	s.inspect()
	if h := s.current.Load(); h == nil || h.trouble() != nil {
		return nil
	}
	path := journalPath(s.path)
	if identity, _, ok, err := journal.Peek(s.dir(), path); err != nil || !ok || identity != s.identity {
		return nil
	}
	err := s.dir().Remove(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}
