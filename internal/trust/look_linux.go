package trust

import (
	"os"

	"golang.org/x/sys/unix"
)

// look asks for type and owner alone: who asks for a file's times has its next flush write new ones.
func look(f *os.File) (uid uint32, known, regular bool, err error) {
	var st unix.Statx_t
	err = unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_TYPE|unix.STATX_UID, &st)
	if err != nil { // an old kernel or a sandbox
		return lookAtAll(f)
	}
	return st.Uid, true, st.Mode&unix.S_IFMT == unix.S_IFREG, nil
}
