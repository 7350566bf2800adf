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

// Listen serves db on a socket beside its file, <path>.sock, where the keepcache command finds it. The socket has mode
// 0600, so whoever can connect to it can read the file as well. Therefore nil options show values. Other options apply
// as they are. Writes always require Options.AllowWrites.
//
// Listen replaces a socket that a killed process left behind. If another process serves the socket, Listen returns an
// error. Options.Hosts has no effect on a socket.
//
// The socket is beside the file that was opened, even if the working directory or a link on the path has changed since.
// If the directory of the file was renamed or removed, Listen returns an error. Serving ends, and the socket is
// removed, when db is closed or stop is called.
func Listen(db *keepcache.DB, options *Options) (stop func() error, err error) {
	if options == nil {
		options = &Options{ShowValues: true}
	}
	path := beside.Path(db.Path(), ".sock") // with the name that the directory had when the cache was opened
	var l *socket
	if db.Stats().Health.Moved {
		// At that path the socket would be in another directory.
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

// socket is a listener whose name is removed before it is closed, if the name still belongs to it.
type socket struct {
	net.Listener
	path string
	own  fs.FileInfo
}

// remove removes the name, unless another process has put its own socket there. That is unlikely, because the file is
// locked.
func (s *socket) remove() error {
	now, err := os.Lstat(s.path)
	if err != nil || !os.SameFile(now, s.own) {
		return nil
	}
	return os.Remove(s.path)
}

// listen creates a socket at path with mode 0600. It creates the socket under another name and renames it. So nobody
// can connect before the mode is set, and there is never a socket at path that is not served yet.
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
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the first name no longer exists then
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

// stale returns nil if path is free: there is nothing, or only a socket that nobody serves.
func stale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("something else has that name")
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
