package trust

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func peerOf(fd int) (uid uint32, ok bool, err error) {
	cred, err := unix.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return 0, false, err
	}
	return cred.Uid, true, nil
}
