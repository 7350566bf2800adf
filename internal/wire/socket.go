package wire

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/trust"
)

// SocketPath returns where the socket of the cache at path is: beside it, with .sock behind its name. Symbolic links
// are followed, so that every name of the cache leads to the one socket. It is absolute.
func SocketPath(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if real, err := disk.Resolve(path); err == nil {
		path = real
	} else if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return beside.Path(path, ".sock")
}

// sunPathMost is the longest path that every system takes in a socket's address: macOS has 104 bytes with the
// zero at the end, Linux 108.
const sunPathMost = 103

// DialSocket connects to the socket at path, whatever the length of the path. It speaks to nobody but this user, root,
// and the owner of the cache's file: anybody may have put a socket into a directory that all may write to.
func DialSocket(ctx context.Context, path string) (conn net.Conn, err error) {
	if err := trust.Socket(path); err != nil {
		return nil, err
	}
	err = WithShortPath(path, func(short string) error {
		d := net.Dialer{Timeout: dialWait}
		conn, err = d.DialContext(ctx, "unix", short)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := trust.Conn(conn, path); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// WithShortPath calls fn with a path that names the same as path and fits into a socket's address, if there is one;
// else with path itself, for the error that the system has for it.
//
// A directory that is open has a short name on Linux, /proc/self/fd/N. Elsewhere the path from the working directory
// may do.
func WithShortPath(path string, fn func(short string) error) error {
	if len(path) <= sunPathMost {
		return fn(path)
	}
	dir, base := filepath.Split(path)
	if d, err := os.Open(dir); err == nil {
		defer d.Close()
		byFD := "/proc/self/fd/" + strconv.Itoa(int(d.Fd()))
		if same(byFD, d) && len(byFD)+1+len(base) <= sunPathMost {
			return fn(byFD + "/" + base)
		}
	}
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, path); err == nil && len(rel) <= sunPathMost {
			return fn(rel)
		}
	}
	return fn(path)
}

// same reports whether a path names the open directory.
func same(path string, d *os.File) bool {
	a, err := os.Stat(path)
	if err != nil {
		return false
	}
	b, err := d.Stat()
	return err == nil && os.SameFile(a, b)
}
