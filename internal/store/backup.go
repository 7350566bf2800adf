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

// copyTo copies the file as of one point in time into the empty file at path, and gives the copy an identity of its
// own. It works like a compaction. A read transaction for the whole copy would block a commit that has to grow bbolt's
// map, and all readers behind that commit. It would also keep all pages that commits replace meanwhile.
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
		err = s.trackDirtyKeys(newDirtyKeys(maxDirtyKeys))
	}
	if err == nil {
		err = n.copyAll(ctx, progress)
		_ = s.trackDirtyKeys(nil) // fails only if the handle was replaced, and then nothing is tracked any more
	}
	if err == nil {
		h.db.NoFreelistSync = false // so that opening it need not search for free pages
		identity := newIdentity()
		err = h.update(func(tx *bolt.Tx) error { return tx.Bucket(format.MetaBucket).Put(format.MetaIdentity, identity[:]) })
	}
	return errors.Join(err, h.Close())
}

// copyAll copies the whole file as of one point in time.
func (n *successor) copyAll(ctx context.Context, progress func(int64)) error {
	s := n.store
	s.compacting.Store(true)
	defer s.compacting.Store(false)
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

// backupSuffix, and a random string, follow the file's name in the name of an unfinished backup.
const backupSuffix = ".backup-"

// CopyBeside makes a copy of the file in a directory and returns it, open for reading. The caller removes it. See
// Compact for progress.
func (s *Store) CopyBeside(
	ctx context.Context, in *disk.Dir, progress func(int64),
) (f *os.File, name string, err error) {
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

// CopyAtRest copies file and journal as they are. It is for a cache that is open for reading only: the lock keeps both
// from changing.
func (s *Store) CopyAtRest(ctx context.Context, to string) error {
	if err := s.copyFile(ctx, to, s.path, s.current.Load()); err != nil {
		return err
	}
	err := s.copyFile(ctx, beside.Journal(to), beside.Journal(s.path), nil)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// copyFile copies the regular file at from, in the cache's directory, to a new one. It must be the file of h, unless h
// is nil.
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
