package keepcache

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/keepcache/keepcache/internal/disk"
)

// Backup writes a copy of the cache to w: a cache file of its own, as of one moment after the call, with next to no
// free pages. Reads and writes go on meanwhile. The copy is first made in a temporary file beside the cache, so that a
// slow w holds nothing back; it needs that much room on the disk. A backup has an identity of its own: the journal of
// the cache is never taken for its journal.
//
// A cache that is open for reading only is copied in the directory for temporary files, because its own directory may
// not be writable. With Options.NoLock the error is errors.ErrUnsupported: another process changes the file meanwhile.
//
// If Backup fails or ctx ends it, what w got is not a whole file. A compaction waits until the copy is made.
func (db *DB) Backup(ctx context.Context, w io.Writer) error {
	if db.options.ReadOnly && !db.engine.Closed() {
		if err := db.engine.Within(ctx, func(ctx context.Context) error { return db.backupReadOnly(ctx, w) }); err != nil {
			return db.fail("backup", "", err)
		}
		return nil
	}
	err := db.writable()
	if err == nil {
		err = db.onGround(ctx, func(context.Context) error { return db.engine.Commit() })
	}
	if err == nil {
		err = db.engine.Within(ctx, func(ctx context.Context) error { return db.backup(ctx, w) })
	}
	if err != nil {
		return db.fail("backup", "", err)
	}
	return nil
}

// backupReadOnly has a DB of its own bring file and journal together, in copies: the lock is held, and so they do not
// change.
func (db *DB) backupReadOnly(ctx context.Context, w io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "keepcache-backup-") // only its owner can look into it
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "copy")
	if err := db.engine.CopyAtRest(ctx, path); err != nil {
		return err
	}
	whole, err := Open(path, &Options{MaxBytes: -1, CompactBytes: -1, SweepInterval: -1, OnCorruption: CorruptionFail})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, whole.Close()) }() // also where w panics
	return whole.Backup(ctx, w)
}

func (db *DB) backup(ctx context.Context, w io.Writer) error {
	in, err := db.engine.OpenDir() // for as long as the copy is needed, which may be longer than the cache is open
	if err != nil {
		return err
	}
	defer in.Close()
	var f *os.File
	var name string
	err = db.onGround(ctx, func(ctx context.Context) (err error) {
		f, name, err = db.engine.CopyBeside(ctx, in)
		return err
	})
	if err != nil {
		return err
	}
	defer in.Remove(name)
	defer f.Close()
	_, err = io.Copy(w, disk.Reader(ctx, f))
	return err
}
