package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
)

func newBackupCommand(f *flags) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "backup [FILE]",
		Short: "Write a copy of the cache",
		Long: `Backup writes a copy of the cache to FILE, or to standard output without FILE.
The copy is a cache file that every command can read; restore puts it in place.
FILE appears only when it is complete. Backup replaces an existing FILE only
with --force.`,
		Example: `  keepcache backup app.backup
  keepcache backup | gzip > app.backup.gz`,
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			if len(args) == 0 && isTerminal(cmd.OutOrStdout()) {
				return usagef("a backup is binary: give a FILE, or redirect the output")
			}
			return f.openWith(cmd, copying, tellingProgress(cmd, "copying"), func(c cache, _ string) error {
				write := func(w io.Writer) error {
					err := c.backup(ctx, w)
					if ctx.Err() != nil && errors.Is(err, context.Canceled) {
						err = errInterrupted
					}
					return err
				}
				if len(args) == 0 {
					return write(cmd.OutOrStdout())
				}
				if err := place(args[0], force, write, os.Rename); err != nil {
					return err
				}
				s, err := c.stats()
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "backed up %s\n", plural(s.Entries, "entry", "entries"))
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE if it exists")
	return cmd
}

func newRestoreCommand(f *flags) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "restore BACKUP",
		Short: "Restore the cache from a backup",
		Long: `Restore checks every entry of a backup and puts a copy of the backup in place
of the cache file. If BACKUP is -, it reads standard input. It replaces an
existing cache only with --force, and never one that a program has open: stop
that program first.`,
		Example: `  keepcache restore app.backup --file new.cache
  gunzip < app.backup.gz | keepcache restore -`,
		Args: keyArgs("BACKUP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := f.path()
			if err != nil {
				return err
			}
			if target, err := filepath.EvalSymlinks(path); err == nil {
				path = target
			}
			in := cmd.InOrStdin()
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer file.Close()
				in = file
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			var entries int
			write := func(w io.Writer) error { return copyUntil(ctx, w, in) }
			err = place(path, force, write, func(tmp, path string) error {
				if entries, err = prove(ctx, tmp); err != nil {
					return unrestorable(args[0], err)
				}
				return replaceCache(tmp, path)
			})
			if err == nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "restored %s\n", plural(entries, "entry", "entries"))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace the cache if it exists")
	return cmd
}

// unrestorable is the error of a backup that prove has rejected. It leaves out the path of the temporary copy, and the
// hint about a cache at that path.
func unrestorable(backup string, err error) error {
	name := "standard input"
	if backup != "-" {
		name = strconv.Quote(backup)
	}
	var known *keepcache.Error
	if errors.As(err, &known) {
		err = known.Err
	}
	if errors.Is(err, keepcache.ErrCorrupt) {
		return fmt.Errorf("%s cannot be restored: %w (keepcache repair saves its intact entries)", name, err)
	}
	return fmt.Errorf("%s cannot be restored: %w", name, err)
}

// copyUntil copies all of r to w, unless ctx ends first. Then it abandons a read that still waits.
func copyUntil(ctx context.Context, w io.Writer, r io.Reader) error {
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(w, r)
		copied <- err
	}()
	select {
	case err := <-copied:
		return err
	case <-ctx.Done():
		return errInterrupted
	}
}

// prove verifies a backup and returns how many entries it has.
func prove(ctx context.Context, path string) (entries int, err error) {
	err = guard(func() error {
		db, err := keepcache.Open(path, &keepcache.Options{ReadOnly: true, LockTimeout: lockWait})
		if err != nil {
			return err
		}
		report, err := db.Verify(ctx)
		if err == nil && !report.OK() {
			err = report.Problems[0].Err
		}
		entries = report.Entries
		return errors.Join(err, db.Close())
	})
	return entries, err
}

// replaceCache replaces the cache at path by the file tmp. It closes that cache first, which removes its journal: the
// journal must not stay beside another file. Meanwhile a read-only DB holds the lock. A DB that writes would take the
// path back from the new file.
func replaceCache(tmp, path string) error {
	if _, err := os.Lstat(path); err != nil {
		if _, err := os.Lstat(journalOf(path)); err == nil {
			return fmt.Errorf("%s belongs to a cache that no longer exists; move it away first", strconv.Quote(journalOf(path)))
		}
		return os.Link(tmp, path)
	}
	db, err := keepcache.Open(path,
		&keepcache.Options{LockTimeout: lockWait, SweepInterval: -1, MaxBytes: -1, CompactBytes: -1})
	if err != nil {
		return toStop(err, "; no cache is replaced that a program has open")
	}
	if err := db.Close(); err != nil {
		return err
	}
	if db, err = keepcache.Open(path, &keepcache.Options{LockTimeout: lockWait, ReadOnly: true}); err != nil {
		return toStop(err, "; no cache is replaced that a program has open")
	}
	if _, err = os.Lstat(journalOf(path)); err == nil {
		err = fmt.Errorf("%s has changed in the meantime", strconv.Quote(path))
	} else {
		err = os.Rename(tmp, path)
	}
	return errors.Join(err, db.Close())
}

// journalOf returns the path of the journal of the cache at path.
func journalOf(path string) string { return beside.Path(path, "-journal") }

// follow gives f the owner, group, mode and labels of the file at path that it replaces, if there is one.
func follow(f *os.File, path string) error {
	old, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer old.Close()
	like, err := disk.AttributesOf(old)
	if err != nil {
		return err
	}
	return like.GiveTo(f)
}

// place creates a file beside path, calls write to fill it, flushes it, and calls finish to put it at path. If anything
// fails, path is unchanged.
func place(path string, force bool, write func(io.Writer) error, finish func(tmp, path string) error) (err error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory; give a file in it", strconv.Quote(path))
	} else if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file, and is not replaced", strconv.Quote(path))
	}
	if _, err := os.Lstat(path); err == nil && !force {
		return fmt.Errorf("%s already exists (--force replaces it)", strconv.Quote(path))
	}
	// Resolve the directory now: a link on the path may change while the copy is written.
	if path, err = disk.Resolve(path); err != nil {
		return err
	}
	const random = 10 // the most bytes that os.CreateTemp appends to a name
	dir, prefix := filepath.Split(beside.Prefix(path, ".part-", random))
	f, err := os.CreateTemp(dir, prefix+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = write(f)
	if err == nil {
		err = follow(f, path)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return finish(f.Name(), path)
}
