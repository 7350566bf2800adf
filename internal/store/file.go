package store

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/trust"
)

// fileMode lets only the owner read a cache: it may hold secrets.
const fileMode fs.FileMode = 0o600

// strayAge is the age at which a temporary file counts as left behind by a crash.
const strayAge = 10 * time.Minute

// maxOpenTries bounds how often the file may be replaced while we wait for its lock.
const maxOpenTries = 16

var (
	errNotRegular = errors.New("not a regular file")
	ErrSymlink    = errors.New("is a symbolic link")
	errReplaced   = errors.New("the file keeps being replaced")
)

// createFile creates an empty cache at path unless there is a file. bbolt's own creation is one unsynced write, which a
// crash can tear. So the file is made under another name, synced, and linked to its own name. Linking is atomic and
// never replaces a file that another process has put there meanwhile.
func createFile(in *disk.Dir, path string, init func(*bolt.Tx) error) error {
	removeStrays(in, path, newSuffix)
	tmp, name, err := createTemp(in, path, newSuffix) // mode 0600
	if err != nil {
		return err
	}
	defer in.Remove(name)
	if err := tmp.Close(); err != nil {
		return err
	}
	h, err := openHandle(name, false, copyReserve, time.Second, in.OpenFile)
	if err != nil {
		return err
	}
	h.db.NoFreelistSync = false // so that opening it need not search for free pages
	err = h.update(init)
	if err = errors.Join(err, h.Close()); err != nil {
		return err
	}
	if err := syncPath(in, name); err != nil {
		return err
	}
	if err := in.Link(name, path); err != nil && !errors.Is(err, fs.ErrExist) {
		// The file system has no links. The rename could replace a file that has come meanwhile, so look again.
		if _, statErr := in.Lstat(path); statErr == nil {
			return nil
		}
		if err := in.Rename(name, path); err != nil {
			return err
		}
	}
	return in.Sync(path)
}

// newSuffix, and a random string, follow the file's name in the name of an unfinished file.
const newSuffix = ".new-"

// randomLen is how many bytes CreateTemp appends to a name at most.
const randomLen = 10

// createTemp creates a file of mode 0600 beside the one at path and returns it with its path.
func createTemp(in *disk.Dir, path, suffix string) (f *os.File, name string, err error) {
	return in.CreateTemp(beside.Prefix(path, suffix, randomLen))
}

// removeStrays removes temporary files that createTemp has made and a crash has left behind, if they are old and this
// user's.
func removeStrays(in *disk.Dir, path, suffix string) {
	for _, stray := range in.Beside(beside.Prefix(path, suffix, randomLen)) {
		if info, err := in.Lstat(stray); err == nil && info.Mode().IsRegular() && trust.Mine(info) &&
			time.Since(info.ModTime()) > strayAge {
			in.Remove(stray)
		}
	}
}

func syncPath(in *disk.Dir, name string) error {
	f, err := in.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(disk.Sync(f), f.Close())
}

// CheckPath reports whether there is a file at path. It refuses what cannot be a cache before anything opens it:
// opening a pipe would block, and opening a device might do anything. It refuses a link because another user may have
// made it.
func CheckPath(in *disk.Dir, path string) (exists bool, err error) {
	info, err := in.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case info.Mode()&fs.ModeSymlink != 0:
		return false, ErrSymlink
	case info.IsDir():
		return false, errors.New("is a directory")
	case !info.Mode().IsRegular():
		return false, errNotRegular
	}
	return true, trust.File(path, info, in.Info)
}

// openLocked opens the file at path for bbolt: locked, still named by path, and checked to be a cache file that bbolt
// can work with. bbolt maps the very descriptor that was checked. See examine for trusting.
func openLocked(
	in *disk.Dir, path string, flag int, wait time.Duration, trusting bool,
) (f *os.File, found examined, err error) {
	f, info, err := openOwned(in, path, flag&^os.O_CREATE, wait)
	if err != nil {
		return nil, found, err
	}
	if found, err = examine(f, info, locksFirst && flag&os.O_RDWR != 0, trusting); err != nil {
		f.Close()
		return nil, found, err
	}
	return f, found, nil
}

// openOwned opens and locks the regular file at path, in whatever state it is, and makes sure that path still names it.
// It returns errs.ErrLocked if another process has it.
func openOwned(in *disk.Dir, path string, flag int, wait time.Duration) (f *os.File, info fs.FileInfo, err error) {
	for range maxOpenTries {
		if f, err = in.OpenFile(path, flag|openFlags, 0); err != nil {
			return nil, nil, err
		}
		if err = lockFile(f, flag&os.O_RDWR != 0, wait); err != nil {
			break
		}
		if info, err = f.Stat(); err != nil {
			break
		}
		var now fs.FileInfo
		if now, err = in.Lstat(path); err != nil {
			break
		}
		if os.SameFile(info, now) {
			if !info.Mode().IsRegular() {
				err = errNotRegular
			} else if err = trust.File(path, info, in.Info); err == nil {
				return f, info, nil
			}
			break
		}
		f.Close() // another process put a new file in its place while we waited
		err = errReplaced
	}
	f.Close()
	return nil, nil, err
}

// initFile writes the tables of an empty cache.
func initFile(tx *bolt.Tx) error {
	for _, name := range [][]byte{format.BucketsBucket, format.EntriesBucket, format.ExpiryBucket, format.UsageBucket} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	meta, err := tx.CreateBucket(format.MetaBucket)
	if err != nil {
		return err
	}
	identity := newIdentity()
	return errors.Join(
		meta.Put(format.MetaFormat, binary.BigEndian.AppendUint32(nil, format.Version)),
		meta.Put(format.MetaIdentity, identity[:]),
		meta.Put(format.MetaSequence, format.Uint64(0)),
	)
}

func newIdentity() (id [16]byte) {
	rand.Read(id[:]) // never fails, see crypto/rand
	return id
}
