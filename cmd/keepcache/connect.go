package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/wire"
)

// addressVariable is the environment variable that names a running program if --addr is not given.
const addressVariable = "KEEPCACHE_ADDR"

// access says what a command does with the cache.
type access int

const (
	reading  access = iota // never creates or changes anything
	showing                // the same, and needs the values
	copying                // changes nothing and yet needs the lock
	changing               // changes a cache that exists
	creating               // makes the file if there is none
	filling                // the same, once: what is put into it can be read only once
)

func (a access) writes() bool { return a == changing || a.creates() }

func (a access) creates() bool { return a == creating || a == filling }

// locks reports whether the file must be open for writing.
func (a access) locks() bool { return a.writes() || a == copying }

// open finds the cache and calls fn with it. The cache is the program at --addr, or the program that serves the socket
// of the file, or the file itself. If another program has the file open without a socket, commands that only read use
// the file without the lock.
func (f *flags) open(cmd *cobra.Command, how access, fn func(c cache, bucket string) error) error {
	return f.openWith(cmd, how, keepcache.Options{}, fn)
}

func (f *flags) openWith(
	cmd *cobra.Command, how access, options keepcache.Options, fn func(c cache, bucket string) error,
) error {
	bucket, err := f.name(f.bucket)
	if err != nil {
		return err
	}
	if addr := f.address(); addr != "" {
		r, err := dial(contextOf(cmd), addr)
		if err != nil {
			return hinted(err, addr)
		}
		defer r.close()
		if how == showing && !r.hello.Values {
			return fmt.Errorf("%w (%s; inspect.Options.ShowValues shows them)", wire.ErrNoValues, r.who())
		}
		return r.run(how, bucket, fn)
	}
	path, err := f.path()
	if err != nil {
		return err
	}
	if err := present(path); err != nil && !how.creates() {
		return err
	}
	r, silent := f.callSocket(contextOf(cmd), path)
	if r != nil {
		defer r.close()
		if how != showing || r.hello.Values {
			return r.run(how, bucket, fn)
		}
		silent = fmt.Errorf("%s shows no values on its socket", r.who())
	}
	if how.creates() {
		made, err := f.makeFile(cmd.ErrOrStderr(), path, how, options, func(l *local) error { return fn(l, bucket) })
		if made || err != nil {
			return err
		}
	}
	return f.openFile(cmd.ErrOrStderr(), path, how, options, silent, func(l *local) error { return fn(l, bucket) })
}

// address returns the address of a running program, if one is given. A file on the command line takes precedence over
// an address in the environment.
func (f *flags) address() string {
	if f.addr == "" && f.file == "" {
		return os.Getenv(addressVariable)
	}
	return f.addr
}

// callSocket connects to the program that serves the socket of the cache at path. If nobody serves it, silent says why;
// it is nil if there is no socket.
func (f *flags) callSocket(ctx context.Context, path string) (r *remote, silent error) {
	socket := wire.SocketPath(path)
	if _, err := os.Lstat(socket); err != nil {
		return nil, nil
	}
	r, err := dial(ctx, "unix:"+socket)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// run calls fn with the program's cache, and explains a refusal.
func (r *remote) run(how access, bucket string, fn func(c cache, bucket string) error) error {
	if how.writes() && !r.hello.Writes {
		return r.refused()
	}
	err := fn(r, bucket)
	if errors.Is(err, wire.ErrNoWrites) {
		return r.refused()
	}
	return err
}

// refused is the error of a write to a program that allows none. For a writer, the file is as good as locked.
func (r *remote) refused() error {
	return fmt.Errorf("%w: %s has it open and allows no changes (inspect.Options.AllowWrites allows them)",
		keepcache.ErrLocked, r.who())
}

// hinted adds a hint to an error of --addr.
func hinted(err error, addr string) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w (only root and the user of the program can use its socket)", err)
	case errors.Is(err, wire.ErrNoServer):
		return fmt.Errorf("%w (to serve a cache, a program uses inspect.Listen or inspect.Handler)", err)
	case errors.Is(err, wire.ErrVersion):
		return fmt.Errorf("%w (use the keepcache command of the version that the program was built with)", err)
	}
	return err
}

// openFile opens the file. silent says why a program that may have it open did not answer.
func (f *flags) openFile(
	w io.Writer, path string, how access, options keepcache.Options, silent error, fn func(*local) error,
) error {
	// A command changes only what it is told to: budgets and maintenance are up to the program that owns the cache.
	options.SweepInterval, options.MaxBytes, options.CompactBytes = -1, -1, -1
	options.OnCorruption = keepcache.CorruptionFail
	options.LockTimeout = lockWait
	if !how.locks() {
		options.ReadOnly, options.LockTimeout = true, -1
	}
	return guard(func() error {
		db, err := keepcache.Open(path, &options)
		if errors.Is(err, keepcache.ErrLocked) {
			if how.locks() {
				return locked(err, silent)
			}
			options.NoLock = true
			if db, err = keepcache.Open(path, &options); err == nil {
				mark(w, silent)
			}
		}
		if err != nil {
			return unmade(err, path)
		}
		err = fn(&local{db: db, unlocked: options.NoLock})
		return errors.Join(err, db.Close())
	})
}

// mark reports on w that the data was read without the lock, and why.
func mark(w io.Writer, silent error) {
	why := ""
	if silent != nil {
		why = " (" + silent.Error() + ")"
	}
	fmt.Fprintln(w, "keepcache: "+printable("read without the lock, while another program has the file open"+why))
}

// locked adds to the error of a locked file a hint how to change it all the same.
func locked(err, silent error) error {
	hint := "it serves no socket for this; inspect.Listen serves one"
	switch {
	case errors.Is(silent, wire.ErrVersion):
		hint = silent.Error() + "; use the keepcache command of the version that the program was built with"
	case silent != nil:
		hint = silent.Error()
	}
	var known *keepcache.Error
	if errors.As(err, &known) && known.Hint != "" {
		both := *known
		both.Hint += "; " + hint
		return &both
	}
	return fmt.Errorf("%w (%s)", err, hint)
}

// unmade removes from the error of a file that could not be created the hint for an existing file.
func unmade(err error, path string) error {
	var known *keepcache.Error
	if !errors.Is(err, fs.ErrPermission) || !errors.As(err, &known) {
		return err
	}
	if _, statErr := os.Lstat(path); !errors.Is(statErr, fs.ErrNotExist) {
		return err
	}
	told := *known
	told.Hint = "the directory must be writable"
	return &told
}

// toStop adds to the error of a locked file that the program must be stopped first. It removes the library's hint about
// reading beside the program, which does not help a command that needs the lock.
func toStop(err error, why string) error {
	var known *keepcache.Error
	if !errors.Is(err, keepcache.ErrLocked) || !errors.As(err, &known) {
		return err
	}
	holder, _, _ := strings.Cut(known.Hint, ";")
	if holder == "" {
		holder = "a program has it open"
	}
	told := *known
	told.Hint = holder + ": stop it first" + why
	return &told
}

// shownPath returns the path of the cache's file, as it was given or as the program reports it.
func (f *flags) shownPath(c cache) string {
	if r, ok := c.(*remote); ok && f.address() != "" {
		return string(r.hello.Path)
	}
	path, _ := f.path()
	return path
}

func contextOf(cmd *cobra.Command) context.Context {
	if ctx := cmd.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}
