package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
)

func newRepairCommand(f *flags) *cobra.Command {
	var to string
	var allowEmpty bool
	var buckets []string
	cmd := &cobra.Command{
		Use:   "repair --to FILE",
		Short: "Save intact entries of a damaged file to a new one",
		Long: `Repair reads a damaged file, such as a quarantined app.cache.corrupt-TIME, and
writes every entry that passes its checksum to a new cache file. It does not
change the damaged file. If it finds several versions of an entry, it saves the
latest.

If pages cannot be reached, repair searches all pages, including free ones, so
deleted entries may come back. The checksum of an entry includes the name of
its bucket. If the file no longer has the names of its buckets, give them with
--bucket, which may be repeated.

The exit code is 0 if everything was saved, and 5 if something could not be
saved or pages are missing. It is 1 if nothing was saved. Then there is no new
file, unless --allow-empty asks for an empty one.`,
		Example: `  keepcache repair --file app.cache.corrupt-20060102T150405Z --to saved.cache
  keepcache repair -f damaged.cache --to saved.cache -b default -b sessions`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := f.path()
			if err != nil {
				return err
			}
			if to == "" {
				return usagef("--to is missing: it names the new file")
			}
			for i, name := range buckets {
				if buckets[i], err = f.name(name); err != nil {
					return err
				}
			}
			if err := present(path); err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			r, err := keepcache.Repair(ctx, path, to, &keepcache.RepairOptions{Buckets: buckets})
			switch {
			case ctx.Err() != nil && errors.Is(err, context.Canceled):
				return errInterrupted
			case errors.Is(err, keepcache.ErrFormat), errors.Is(err, keepcache.ErrCorrupt):
				if allowEmpty {
					return makeEmpty(cmd, to, err)
				}
				return fmt.Errorf("%w; nothing was saved%s", err, hintBuckets(r))
			case err != nil:
				return toStop(err, "")
			}
			errOut := cmd.ErrOrStderr()
			fmt.Fprintf(errOut, "saved %s in %s to %s\n", plural(r.Entries, "entry", "entries"),
				plural(r.Buckets, "bucket", "buckets"), strconv.Quote(to))
			if !r.Whole {
				fmt.Fprintln(errOut, "pages are missing, so all pages were searched: deleted entries may have come back")
			}
			switch {
			case r.Unproved > 0:
				return &partialError{fmt.Errorf("skipped %s that failed %s checksum%s", plural(r.Unproved, "record", "records"),
					possessive(r.Unproved), hintBuckets(r))}
			case !r.Whole:
				return &partialError{errors.New("some entries may be lost")}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "the new file, which must not exist")
	cmd.Flags().StringArrayVarP(&buckets, "bucket", "b", nil,
		"name of a bucket that the file may have lost; may be repeated")
	cmd.Flags().BoolVar(&allowEmpty, "allow-empty", false, "create an empty cache if nothing can be saved")
	return cmd
}

// hintBuckets returns a hint how to save records that failed their checksum.
func hintBuckets(r keepcache.RepairReport) string {
	if r.Unproved == 0 || r.Whole {
		return ""
	}
	return "; if the file no longer names all buckets, name the others with --bucket and repair again"
}

func possessive(n int) string {
	if n == 1 {
		return "its"
	}
	return "their"
}

// makeEmpty creates an empty cache at path, which must not exist, after Repair has saved nothing because of why.
func makeEmpty(cmd *cobra.Command, path string, why error) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s already exists", strconv.Quote(path))
	}
	db, err := keepcache.Open(path, nil)
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		return err
	}
	complain(cmd, cmd.ErrOrStderr(), why)
	return &partialError{fmt.Errorf("%s is an empty cache: nothing was saved", strconv.Quote(path))}
}
