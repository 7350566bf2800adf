package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/wire"
)

// Listen serves db on a socket beside its file, <path>.sock, where the keepcache command finds it. Who may connect is
// who may open the file: the socket has mode 0600. So nil options show values, which are in the file too; options that
// are given hold as they are. Writes are for Options.AllowWrites in either case.
//
// A socket that a killed process left behind is replaced, one that somebody serves is not: that is an error, as any
// other failure to listen. Options.Hosts means nothing on a socket.
//
// The socket is beside the file that was opened, whatever the working directory and links lead to since; it is an error
// if the directory has been renamed. It ends when db is closed, or with the function that it returns, and takes the
// socket away.
func Listen(db *keepcache.DB, options *Options) (stop func() error, err error) {
	if options == nil {
		options = &Options{ShowValues: true}
	}
	path := beside.Path(db.Path(), ".sock") // what its directory was named when the cache was opened
	var l *socket
	if db.Stats().Health.Moved {
		// It would stand beside somebody else's file.
		err = errors.New("the directory of the cache was renamed or removed since it was opened")
	} else {
		l, err = listen(path)
	}
	if err != nil {
		return nil, fmt.Errorf("keepcache: listen %s: %w", strconv.Quote(path), err)
	}
	s := newServer(db, options)
	s.anyHost = true
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    256 << 10, // the path of a request has a key of 32,000 bytes, three characters each
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // until it is closed
	}()
	var once sync.Once
	var closeErr error
	end := func() {
		once.Do(func() {
			closeErr = errors.Join(l.remove(), server.Close())
			<-done
		})
	}
	forget := db.OnClose(end)
	return func() error {
		forget()
		end()
		return closeErr
	}, nil
}

// socket is a listener whose name goes before it does, and only if it still is its own.
type socket struct {
	net.Listener
	path string
	own  fs.FileInfo
}

// remove takes the name away. That another process has put its socket there meanwhile is not to be expected, as the
// file is locked; where it did, its socket stays.
func (s *socket) remove() error {
	now, err := os.Lstat(s.path)
	if err != nil || !os.SameFile(now, s.own) {
		return nil
	}
	return os.Remove(s.path)
}

// listen makes a socket at path with mode 0600. It comes into being under another name, so that nobody can connect
// before it has its mode, and a name that leads to a socket always leads to one that is served.
func listen(path string) (*socket, error) {
	if err := stale(path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".keepcache-*") // mode 0700
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var l net.Listener
	tmp := filepath.Join(dir, "s")
	err = wire.WithShortPath(tmp, func(short string) error {
		l, err = net.Listen("unix", short)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // its first name is gone by then
	var own fs.FileInfo
	if err = os.Chmod(tmp, 0o600); err == nil {
		if own, err = os.Lstat(tmp); err == nil {
			err = os.Rename(tmp, path)
		}
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &socket{Listener: l, path: path, own: own}, nil
}

// stale returns nil if there is nothing at path that is in the way: nothing at all, or a socket that nobody serves.
func stale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is something else by that name")
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	conn, err := wire.DialSocket(ctx, path)
	if err == nil {
		conn.Close()
		return errors.New("another process serves there")
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil // the rename that follows replaces it
	}
	return err
}
