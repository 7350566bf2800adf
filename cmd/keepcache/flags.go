package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
)

// fileVariable is the environment variable that names the cache file where --file does not.
const fileVariable = "KEEPCACHE_FILE"

// lockWait is how long a command waits for a file that another process holds. It is long enough for
// another command to finish, and short enough for the answer to come within a second.
const lockWait = 600 * time.Millisecond

// flags are the flags that all commands share.
type flags struct {
	file   string
	bucket string
	quoted bool
}

// access is what a command means to do to the file.
type access int

const (
	reading  access = iota // never creates or changes anything
	changing               // changes a file that exists
	creating               // makes the file if there is none
)

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
		return "", usagef("--quoted: %s is not well quoted", display(arg))
	}
	return name, nil
}

// open opens the cache and its bucket for fn and closes it again.
func (f *flags) open(how access, fn func(db *keepcache.DB, b *keepcache.Bucket) error) error {
	return f.openWith(how, keepcache.Options{}, fn)
}

func (f *flags) openWith(how access, options keepcache.Options, fn func(db *keepcache.DB, b *keepcache.Bucket) error) error {
	path, err := f.path()
	if err != nil {
		return err
	}
	bucket, err := f.name(f.bucket)
	if err != nil {
		return err
	}
	if err := present(path); err != nil && how != creating {
		return err
	}
	options.LockTimeout = lockWait
	// A command changes what it says and nothing else: budgets and upkeep are for the program whose cache it is.
	options.SweepInterval, options.MaxBytes, options.CompactBytes = -1, -1, -1
	options.ReadOnly = how == reading
	options.OnCorruption = keepcache.Fail
	return guard(func() error {
		db, err := keepcache.Open(path, &options)
		if err != nil {
			return err
		}
		err = fn(db, db.Bucket(bucket))
		return errors.Join(err, db.Close())
	})
}

// openKey is open for commands that have one key as their first argument.
func (f *flags) openKey(how access, arg string, fn func(b *keepcache.Bucket, key string) error) error {
	key, err := f.name(arg)
	if err != nil {
		return err
	}
	return f.open(how, func(_ *keepcache.DB, b *keepcache.Bucket) error { return fn(b, key) })
}

// present refuses a path where nothing is: only set, add and import make a file.
func present(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
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

// find returns the entry of key, or why there is none. A damaged entry is an error of its own here.
func find(db *keepcache.DB, b *keepcache.Bucket, key string) (keepcache.Entry, error) {
	entry, found, err := b.Stat(key)
	switch {
	case err != nil:
		return entry, err
	case found:
		return entry, nil
	case db.Stats().Damaged > 0:
		return entry, fmt.Errorf("the entry of %s in bucket %s is damaged (keepcache verify tells more): %w",
			display(key), display(b.Name()), keepcache.ErrCorrupt)
	}
	return entry, absentKey(key, b.Name())
}

// known refuses a bucket that the cache does not have, except for the default one, which every cache may
// be said to have.
func known(db *keepcache.DB, b *keepcache.Bucket) error {
	if b.Name() == keepcache.DefaultBucket {
		return nil
	}
	names, err := db.Buckets()
	if err == nil && !slices.Contains(names, b.Name()) {
		err = absentBucket(b.Name())
	}
	return err
}

// addJSON adds the flag --json to a reading command.
func addJSON(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON, one object a line")
}
