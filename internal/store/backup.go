package store

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/format"
	bolt "go.etcd.io/bbolt"
)

// copyTo copies what the file holds, as of one moment, into the empty file at path, with an identity of its own. It goes about it as
// a compaction does: a read transaction for the whole copy would keep a commit waiting that makes bbolt's map larger, and all
// readers behind it, and what commits replace meanwhile would stay in the file.
func (s *Store) copyTo(ctx context.Context, in *disk.Dir, path string, progress func(int64)) error {
	size, _, err := s.Size()
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
	return errors.Join(err, h.Close())
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

// backupSuffix, and something random, follows the file's name in the name of a backup that is being made.
const backupSuffix = ".backup-"

// CopyBeside makes a copy of the file in a directory and returns it, open for reading. The caller removes it. See
// Compact for progress.
func (s *Store) CopyBeside(ctx context.Context, in *disk.Dir, progress func(int64)) (f *os.File, name string, err error) {
	if err := s.CheckRoom(); err != nil {
		return nil, "", err
	}
	if f, name, err = createTemp(in, s.path, backupSuffix); err != nil {
		return nil, "", err
	}
	if err = f.Close(); err == nil {
		err = s.copyTo(ctx, in, name, progress)
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

// CopyAtRest copies file and journal as they are to a path and beside it. The lock is held, and nobody changes them: it is for a file that
// is open for reading only.
func (s *Store) CopyAtRest(ctx context.Context, to string) error {
	if err := s.copyFile(ctx, to, s.path, s.current.Load()); err != nil {
		return err
	}
	if err := s.copyFile(ctx, beside.Journal(to), beside.Journal(s.path), nil); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// copyFile copies the regular file at from, in the cache's directory, into a new one. It must be the file of h, unless h is
// nil.
func (s *Store) copyFile(ctx context.Context, to, from string, h *Handle) error {
	r, err := s.Dir().OpenFile(from, os.O_RDONLY|openFlags, 0)
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
		return ErrMoved
	}
	w, err := disk.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, disk.Reader(ctx, r))
	return errors.Join(err, w.Close())
}
