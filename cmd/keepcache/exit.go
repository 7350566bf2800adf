package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
)

// Exit codes, as the help text of the root command promises them.
const (
	exitOK     = 0
	exitError  = 1
	exitUsage  = 2
	exitAbsent = 3
	exitLocked = 4
)

// usageError says that the command line is wrong.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// absentError says that there is no such key or bucket. Without words it only sets the exit code.
type absentError struct{ words string }

func (e *absentError) Error() string { return e.words }

func absentKey(key, bucket string) error {
	return &absentError{fmt.Sprintf("no key %s in bucket %s", display.Name(key), display.Name(bucket))}
}

func absentBucket(bucket string) error {
	return &absentError{fmt.Sprintf("no bucket %s", display.Name(bucket))}
}

func exitCode(err error) int {
	var usage *usageError
	var absent *absentError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage),
		errors.Is(err, keepcache.ErrInvalidKey),
		errors.Is(err, keepcache.ErrInvalidName),
		errors.Is(err, keepcache.ErrInvalidTTL):
		return exitUsage
	case errors.As(err, &absent):
		return exitAbsent
	case errors.Is(err, keepcache.ErrLocked):
		return exitLocked
	}
	return exitError
}

// complain says on w why cmd failed, if it did.
func complain(cmd *cobra.Command, w io.Writer, err error) {
	if err == nil || err.Error() == "" {
		return
	}
	message := strings.TrimPrefix(err.Error(), "keepcache: ")
	fmt.Fprintln(w, "keepcache: "+printable(message))
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(w, "Try '%s --help'.\n", cmd.CommandPath())
	}
}
