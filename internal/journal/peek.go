package journal

import (
	"errors"
	"io/fs"
	"os"

	"github.com/keepcache/keepcache/internal/disk"
)

// Peek reads of whose store a journal is, and up to which sequence the store has had everything. ok is false where
// there is no journal that can be read.
func Peek(dir *disk.Dir, path string) (identity [16]byte, released uint64, ok bool, err error) {
	f, err := dir.OpenRegular(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return identity, 0, false, nil
	}
	if err != nil {
		return identity, 0, false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return identity, 0, false, err
	}
	h, err := readHead(f, st.Size())
	if errors.Is(err, errNoHead) || errors.Is(err, ErrVersion) {
		return identity, 0, false, nil
	}
	if err != nil {
		return identity, 0, false, err
	}
	r := replay{src: f, size: st.Size()}
	if err := r.begin(&h); err != nil {
		return identity, 0, false, err
	}
	if err := r.index(); err != nil {
		return identity, 0, false, err
	}
	return h.identity, r.Report.Released, true, nil
}
