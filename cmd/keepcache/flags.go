package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache/internal/display"
)

// fileVariable is the environment variable that names the cache file if --file is not given.
const fileVariable = "KEEPCACHE_FILE"

// lockWait is how long a command waits for a file that another process holds. It is long enough for
// another command to finish, and short enough for the answer to come within a second.
const lockWait = 600 * time.Millisecond

// flags are the flags that all commands share.
type flags struct {
	file   string
	addr   string
	bucket string
	quoted bool
}

func (f *flags) path() (string, error) {
	path := f.file
	if path == "" {
		path = os.Getenv(fileVariable)
	}
	if path == "" {
		return "", usagef("no cache file: name it with --file or in %s", fileVariable)
	}
	return path, nil
}

// name reads an argument that is a key, a bucket or the beginning of a key.
func (f *flags) name(arg string) (string, error) {
	if !f.quoted {
		return arg, nil
	}
	name, err := parseDisplay(arg)
	if err != nil {
		return "", usagef("--quoted: %s is not correctly quoted", display.Name(arg))
	}
	return name, nil
}

// names reads arguments as name does.
func (f *flags) names(args []string) ([]string, error) {
	names := make([]string, len(args))
	for i, arg := range args {
		var err error
		if names[i], err = f.name(arg); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// openKeys opens the cache for a command whose arguments are keys, and calls fn with each of them. After the answer no
// for a key it continues with the others. After a failure it stops.
func (f *flags) openKeys(
	cmd *cobra.Command, how access, args []string, fn func(c cache, bucket, key string) error,
) error {
	keys, err := f.names(args)
	if err != nil {
		return err
	}
	return f.open(cmd, how, func(c cache, bucket string) (answer error) {
		for _, key := range keys {
			err := fn(c, bucket, key)
			var no *noError
			if err != nil && !errors.As(err, &no) {
				return err
			}
			if err != nil {
				complain(cmd, cmd.ErrOrStderr(), err)
				answer = &noError{} // already reported
			}
		}
		return answer
	})
}

// present refuses a path without a cache: only set, add, incr, import and restore create one.
func present(path string) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		return fmt.Errorf("%s is empty (set, add, incr, import and restore turn it into a cache)", strconv.Quote(path))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no file %s (set, add, incr, import and restore create one)", strconv.Quote(path))
	}
	return nil
}

// guard turns a panic or a memory fault, which a damaged file can cause, into an error. Then the cache is not closed:
// its state is unknown, and the process is about to end anyway.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the file cannot be read and may be damaged: %v (keepcache verify has the details)", p)
		}
	}()
	return fn()
}

// addJSON adds the flag --json to a command that reads.
func addJSON(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON, one object per line")
}
