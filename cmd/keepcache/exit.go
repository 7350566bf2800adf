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

// Exit codes, as the help text of the root command and docs/command.md promise them.
const (
	exitOK      = 0
	exitError   = 1
	exitUsage   = 2
	exitNo      = 3
	exitLocked  = 4
	exitPartial = 5
)

const exitCodes = `  0  done
  1  failed
  2  wrong usage
  3  no: there is no such key or bucket, or add found the key there
  4  another process has the file locked, or allows no changes
  5  done in part: some of the data is damaged and was left out`

// usageError says that the command line is wrong.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// noError is the answer no: there is no such key or bucket, or add found the key. Without words it only sets the exit
// code.
type noError struct{ words string }

func (e *noError) Error() string { return e.words }

// partialError says that a command has done its work except for damaged data.
type partialError struct{ err error }

func (e *partialError) Error() string { return e.err.Error() }
func (e *partialError) Unwrap() error { return e.err }

func absentKey(key, bucket string) error {
	return &noError{fmt.Sprintf("no key %s in bucket %s", display.Name(key), display.Name(bucket))}
}

func presentKey(key, bucket string) error {
	return &noError{fmt.Sprintf("key %s is already in bucket %s", display.Name(key), display.Name(bucket))}
}

func absentBucket(bucket string) error {
	return &noError{fmt.Sprintf("no bucket %s", display.Name(bucket))}
}

func exitCode(err error) int {
	var usage *usageError
	var no *noError
	var partial *partialError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage),
		errors.Is(err, keepcache.ErrInvalidKey),
		errors.Is(err, keepcache.ErrInvalidName),
		errors.Is(err, keepcache.ErrInvalidTag),
		errors.Is(err, keepcache.ErrInvalidTTL):
		return exitUsage
	case errors.As(err, &no):
		return exitNo
	case errors.As(err, &partial):
		return exitPartial
	case errors.Is(err, keepcache.ErrLocked):
		return exitLocked
	}
	return exitError
}

// limits returns the limits of a key, name or tag, if err says that one is invalid.
func limits(err error) string {
	switch {
	case errors.Is(err, keepcache.ErrInvalidKey):
		return fmt.Sprintf(" (it has to have 1 to %d bytes)", keepcache.MaxKeyBytes)
	case errors.Is(err, keepcache.ErrInvalidName):
		return fmt.Sprintf(" (it has to have 1 to %d bytes)", keepcache.MaxNameBytes)
	case errors.Is(err, keepcache.ErrInvalidTag):
		return fmt.Sprintf(" (a tag has 1 to %d bytes, and an entry %d of them at most)", keepcache.MaxTagBytes,
			keepcache.MaxTags)
	}
	return ""
}

// complain prints on w why cmd failed, if it did.
func complain(cmd *cobra.Command, w io.Writer, err error) {
	if err == nil || err.Error() == "" {
		return
	}
	message := strings.TrimPrefix(err.Error(), "keepcache: ") + limits(err)
	fmt.Fprintln(w, "keepcache: "+printable(message))
	var usage *usageError
	if errors.As(err, &usage) {
		if cmd.Name() == "help" {
			cmd = cmd.Root() // which lists the commands that there are
		}
		fmt.Fprintf(w, "Try '%s --help'.\n", cmd.CommandPath())
	}
}
