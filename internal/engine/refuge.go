package engine

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/store"
)

// refuge returns the directory in which the file is to be mended. That is its own, under whatever name: a directory that has
// taken the old path is somebody else's. Only if its own was removed it is the one that has the path, if that has nothing of
// another cache; and if the given error says that the disk takes no changes any more, if that has the same cache, as where a disk is
// mounted anew. The caller closes it if the store does not move there.
func (hl *healer) refuge(cause error) (*disk.Dir, error) {
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

// wander bars a file whose disk takes nothing any more, where another one has been mounted at its path.
func (hl *healer) wander(h *store.Handle) {
	c := hl.e.commits
	if h == nil || h.Failure() != nil || c == nil {
		return
	}
	err := c.snapshot().Err
	if !store.IsDiskGone(err) {
		return
	}
	if other, refugeErr := hl.refuge(err); refugeErr == nil && other != hl.e.store.Dir() {
		other.Close()
		h.Freeze(fmt.Errorf("%w: %w", store.ErrMoved, err))
	}
}

// afterMend is what follows an attempt to mend the file in the directory to. The one that it was in, if that was another, is left to
// the collector: a journal may have it still.
func (hl *healer) afterMend(was, to *disk.Dir) {
	if hl.e.store.Dir() != to {
		to.Close()
		return
	}
	w := hl.e.writer
	if w == nil {
		return
	}
	// Who takes the file away mostly takes the journal too. It would be noticed by the next flush only, and not by writes until then.
	j := w.position().journal
	if j == nil {
		return
	}
	made := j.Made() // before the look: the first write may be making it
	if _, err := to.Lstat(beside.Journal(hl.e.store.Path())); to != was || made && errors.Is(err, fs.ErrNotExist) {
		w.lost(j)
		hl.e.commits.demand() // which makes a new one, at once where nothing is to be committed
	}
}
