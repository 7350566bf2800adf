package main

import (
	"errors"
	"syscall"
)

// isRefused reports whether nobody listens at a socket.
func isRefused(err error) bool {
	const connectionRefused = syscall.Errno(10061)
	return errors.Is(err, connectionRefused)
}
