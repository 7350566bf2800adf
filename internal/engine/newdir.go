package engine

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/store"
)

// targetDir returns the directory in which to heal the file. It is the file's own directory, whatever that is called
// now: a directory that has taken the old path belongs to somebody else. There are two exceptions. If the own directory
// was removed, it is the one at the path, unless that has a file of another cache. If cause says that the disk accepts
// no more changes, it is the one at the path if that has the same cache: a disk was mounted there again. The caller
// closes it if the store does not move there.
func (hl *healer) targetDir(cause error) (*disk.Dir, error) {
	s := hl.e.store
	home := s.Dir()
	removed := home.Removed()
	if !removed && !(store.IsDiskGone(cause) && home.Moved()) {
		return home, nil
	}
	other, real, err := disk.OpenDir(s.Path())
	if err == nil {
		if err = s.CheckMove(other, removed); real != s.Path() {
			err = store.ErrOtherCache // links lead somewhere else
		}
		if err == nil {
			return other, nil
		}
		other.Close()
	}
	if removed {
		return nil, errors.Join(store.ErrDirRemoved, err)
	}
	return home, nil
}

// checkRemounted freezes a file whose disk accepts no more changes, if another disk was mounted at its path.
func (hl *healer) checkRemounted(h *store.Handle) {
	c := hl.e.commits
	if h == nil || h.Failure() != nil || c == nil {
		return
	}
	err := c.snapshot().Err
	if !store.IsDiskGone(err) {
		return
	}
	if other, refugeErr := hl.targetDir(err); refugeErr == nil && other != hl.e.store.Dir() {
		other.Close()
		h.Freeze(fmt.Errorf("%w: %w", store.ErrMoved, err))
	}
}

// afterHeal cleans up after an attempt to heal the file in directory to. If the file has moved, the garbage collector
// closes the old directory: a journal may still use it.
func (hl *healer) afterHeal(was, to *disk.Dir) {
	if hl.e.store.Dir() != to {
		to.Close()
		return
	}
	w := hl.e.writer
	if w == nil {
		return
	}
	// The journal was probably removed together with the file. Only the next flush would notice that, and writes would
	// not.
	j := w.position().journal
	if j == nil {
		return
	}
	made := j.Made() // before the file is looked for: the first write may be creating it
	if _, err := to.Lstat(beside.Journal(hl.e.store.Path())); to != was || made && errors.Is(err, fs.ErrNotExist) {
		w.journalFailed(j)
		hl.e.commits.request() // it replaces the journal, even if there is nothing to commit
	}
}
