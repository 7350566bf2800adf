package store

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// sizeOfFile returns the size of an open file in bytes, and whether its name is gone. It does not ask for anything
// else: see internal/journal for what asking for the times costs the next flush.
func sizeOfFile(f *os.File) (size int64, removed bool, err error) {
	var st unix.Statx_t
	err = unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_SIZE|unix.STATX_NLINK, &st)
	switch {
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM): // an old kernel or a sandbox
		info, err := f.Stat()
		if err != nil {
			return 0, false, err
		}
		return info.Size(), false, nil
	case err != nil:
		return 0, false, &os.PathError{Op: "statx", Path: f.Name(), Err: err}
	}
	return int64(st.Size), st.Nlink == 0, nil
}
