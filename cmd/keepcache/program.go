package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/keepcache/keepcache/internal/display"
	"github.com/keepcache/keepcache/internal/wire"
)

// program returns the running program for top and watch.
func (f *flags) program(ctx context.Context) (*remote, error) {
	if addr := f.address(); addr != "" {
		r, err := dial(ctx, addr)
		if err != nil {
			return nil, hinted(err, addr)
		}
		return r, nil
	}
	path, err := f.path()
	if err != nil {
		return nil, err
	}
	if err := present(path); err != nil {
		return nil, err
	}
	r, silent := f.callSocket(ctx, path)
	switch {
	case r != nil:
		return r, nil
	case silent == nil:
		return nil, fmt.Errorf("no program serves %s on %s; programs do so with inspect.Listen",
			display.Name(path), display.Name(wire.SocketPath(path)))
	case errors.Is(silent, os.ErrNotExist), isRefused(silent):
		return nil, fmt.Errorf("%s was left behind by a program that has ended: nobody serves %s now",
			display.Name(wire.SocketPath(path)), display.Name(path))
	}
	return nil, hinted(silent, "")
}
