package trust

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
)

// Conn returns an error unless Peer accepts the process at the other end of a connection to the socket at path, which
// is named after its file. Where the system does not say who it is, the socket's owner has to do.
func Conn(conn net.Conn, path string) error {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var uid uint32
	var known bool
	var asked error
	if err := raw.Control(func(fd uintptr) { uid, known, asked = peerOf(int(fd)) }); err != nil {
		return err
	}
	if asked != nil || !known {
		return asked
	}
	return Peer(strings.TrimSuffix(path, ".sock"), uid)
}

// Socket returns an error unless what is at path is a socket, and no link to one, whose owner Peer accepts. It is asked
// before anything connects.
func Socket(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("it is no socket")
	}
	if uid, ok := owner(info); ok {
		return Peer(strings.TrimSuffix(path, ".sock"), uid)
	}
	return nil
}
