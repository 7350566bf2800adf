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

// fileVariable is the environment variable that names the cache file where --file does not.
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
		return "", usagef("--quoted: %s is not well quoted", display.Name(arg))
	}
	return name, nil
}

// openKey is open for commands that have one key as their first argument.
func (f *flags) openKey(cmd *cobra.Command, how access, arg string, fn func(c cache, bucket, key string) error) error {
	key, err := f.name(arg)
	if err != nil {
		return err
	}
	return f.open(cmd, how, func(c cache, bucket string) error { return fn(c, bucket, key) })
}

// present refuses a path where nothing is: only set, add and import make a file.
func present(path string) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		return fmt.Errorf("%s is empty (only set, add, import and restore make a cache of it)", strconv.Quote(path))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no file %s (only set, add, import and restore make one)", strconv.Quote(path))
	}
	return nil
}

// guard turns a panic or a fault, which a damaged file can cause, into an error. The cache is not closed
// then: its state is unknown, and the process is about to end anyway.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the file cannot be read, it may be damaged: %v (keepcache verify tells more)", p)
		}
	}()
	return fn()
}

// addJSON adds the flag --json to a reading command.
func addJSON(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON, one object a line")
}
