package keepcache

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/format"
)

// Backup writes a copy of the cache, as of one moment after it was called, to w: a cache file of its own, with next to
// no free pages, that Open opens. Reads and writes go on meanwhile. The copy is made in a temporary file beside the
// cache first, so that a slow w holds nothing back; it needs that much room on the disk. A backup has an identity
// of its own: the journal of the cache is never taken for its.
//
// A cache that is open for reading only is copied in the directory for temporary files, as it may be that nothing can
// be written beside it. With Options.NoLock the error is errors.ErrUnsupported: what another process changes
// meanwhile is not of one moment.
//
// When it fails or ctx ends it, what w got is no whole file. A compaction waits until the copy is made.
func (db *DB) Backup(ctx context.Context, w io.Writer) error {
	if db.options.ReadOnly && !db.closed.Load() {
		if err := db.within(ctx, func(ctx context.Context) error { return db.backupReadOnly(ctx, w) }); err != nil {
			return db.fail("backup", "", err)
		}
		return nil
	}
	err := db.writable()
	if err == nil {
		err = db.onGround(ctx, func(context.Context) error { return db.commits.commit() })
	}
	if err == nil {
		err = db.within(ctx, func(ctx context.Context) error { return db.backup(ctx, w) })
	}
	if err != nil {
		return db.fail("backup", "", err)
	}
	return nil
}

// backupReadOnly has a DB of its own bring file and journal together, in copies: the lock is held, and so they do not
// change.
func (db *DB) backupReadOnly(ctx context.Context, w io.Writer) (err error) {
	if db.live != nil {
		return errNeedsLock
	}
	dir, err := os.MkdirTemp("", "keepcache-backup-") // only its owner can look into it
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "copy")
	if err := db.copyFile(ctx, path, db.store.path, db.store.current.Load()); err != nil {
		return err
	}
	err = db.copyFile(ctx, journalPath(path), journalPath(db.store.path), nil)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	whole, err := Open(path, &Options{MaxBytes: -1, CompactBytes: -1, SweepInterval: -1, OnCorruption: Fail})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, whole.Close()) }() // also where w panics
	return whole.Backup(ctx, w)
}

// copyFile copies the regular file at from, in the cache's directory, into a new one. It must be the file of h, unless h is
// nil.
func (db *DB) copyFile(ctx context.Context, to, from string, h *handle) error {
	r, err := db.store.dir().OpenFile(from, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	switch info, err := r.Stat(); {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errNotRegular
	case h != nil && !os.SameFile(info, h.info):
		return errMoved
	}
	w, err := disk.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, &endingReader{ctx, r})
	return errors.Join(err, w.Close())
}

func (db *DB) backup(ctx context.Context, w io.Writer) error {
	in, err := db.store.dir().Again() // for as long as the copy is needed, which may be longer than the cache is open
	if err != nil {
		return err
	}
	defer in.Close()
	var f *os.File
	var name string
	err = db.onGround(ctx, func(ctx context.Context) (err error) {
		f, name, err = db.compactor.copy(ctx, in)
		return err
	})
	if err != nil {
		return err
	}
	defer in.Remove(name)
	defer f.Close()
	_, err = io.Copy(w, &endingReader{ctx, f})
	return err
}

// copy makes a copy of the file beside it and returns it, open for reading.
func (c *compactor) copy(ctx context.Context, in *disk.Dir) (f *os.File, name string, err error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
	if err := c.store.room(); err != nil {
		return nil, "", err
	}
	if f, name, err = createTemp(in, c.store.path, backupSuffix); err != nil {
		return nil, "", err
	}
	if err = f.Close(); err == nil {
		err = c.store.copyTo(ctx, in, name, c.copied("backup"))
	}
	if err == nil {
		f, err = in.OpenFile(name, os.O_RDONLY, 0)
	}
	if err != nil {
		in.Remove(name)
		return nil, "", err
	}
	return f, name, nil
}

// backupSuffix, and something random, follows the file's name in the name of a backup that is being made.
const backupSuffix = ".backup-"

// endingReader ends with a context.
type endingReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *endingReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// copyTo copies what the file holds, as of one moment, into the empty file at path, with an identity of its own. It goes about it as
// a compaction does: a read transaction for the whole copy would keep a commit waiting that makes bbolt's map larger, and all
// readers behind it, and what commits replace meanwhile would stay in the file.
func (s *store) copyTo(ctx context.Context, in *disk.Dir, path string, progress func(int64)) error {
	size, _, err := s.size()
	if err != nil {
		return err
	}
	h, err := openHandle(path, false, max(size, copyReserve), time.Second, in.OpenFile)
	if err != nil {
		return err
	}
	h.from = s.current.Load()
	h.db.NoSync, h.db.NoGrowSync = true, true
	n := &successor{store: s, dir: in, path: path, handle: h}
	err = n.prepare()
	if err == nil {
		err = s.setNotes(newNotes(notesMost))
	}
	if err == nil {
		err = n.copyAll(ctx, progress)
		_ = s.setNotes(nil) // who takes the place of a handle that is of no more use has forgotten them
	}
	if err == nil {
		h.db.NoFreelistSync = false // it is a file at rest
		identity := newIdentity()
		err = h.update(func(tx *bolt.Tx) error { return tx.Bucket(format.MetaBucket).Put(format.MetaIdentity, identity[:]) })
	}
	return errors.Join(err, h.close())
}

// copyAll copies the whole file, as of one moment.
func (n *successor) copyAll(ctx context.Context, progress func(int64)) error {
	s := n.store
	s.copied.Store(true)
	defer s.copied.Store(false)
	if err := n.fill(ctx, func() error { return nil }, progress); err != nil {
		return err
	}
	h, err := s.lock()
	if err != nil {
		return err
	}
	defer h.unlock()
	return n.complete(h)
}
