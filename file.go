package keepcache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/disk"
)

// fileMode keeps a cache to its owner: it may hold anything, tokens included.
const fileMode fs.FileMode = 0o600

// strayAge is the age from which a creator's temporary file is taken for left behind by a crash.
const strayAge = 10 * time.Minute

// openTries bounds how often a file may be replaced by another while we wait for its lock.
const openTries = 16

var (
	errNotRegular = errors.New("not a regular file")
	errSymlink    = errors.New("is a symbolic link")
	errReplaced   = errors.New("the file is replaced again and again")
)

// createFile makes an empty cache at path unless something is there. bbolt's own creation is one write
// without a sync, which a crash can tear, so the file is made under another name, synced, and linked to
// its own name in one step that never replaces what another process has put there meanwhile.
func createFile(path string, init func(*bolt.Tx) error) error {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	pattern := base + ".new-"
	removeStrays(dir, pattern)

	tmp, err := disk.CreateTemp(dir, pattern+"*") // mode 0600
	if err != nil {
		return err
	}
	name := tmp.Name()
	defer disk.Remove(name)
	if err := tmp.Close(); err != nil {
		return err
	}
	h, err := openHandle(name, false, time.Second, disk.OpenFile)
	if err != nil {
		return err
	}
	h.db.NoFreelistSync = false // it is a file at rest
	err = h.update(init)
	if err = errors.Join(err, h.close()); err != nil {
		return err
	}
	if err := syncPath(name); err != nil {
		return err
	}
	if err := disk.Link(name, path); err != nil && !errors.Is(err, fs.ErrExist) {
		// A file system without links: the rename could replace a file that came since we looked, so look again.
		if _, statErr := disk.Lstat(path); statErr == nil {
			return nil
		}
		if err := disk.Rename(name, path); err != nil {
			return err
		}
	}
	return disk.SyncDir(dir)
}

func removeStrays(dir, prefix string) {
	strays, _ := filepath.Glob(filepath.Join(escapeGlob(dir), escapeGlob(prefix)+"*"))
	for _, stray := range strays {
		if info, err := disk.Lstat(stray); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > strayAge {
			disk.Remove(stray)
		}
	}
}

// escapeGlob quotes what filepath.Match would take for a pattern.
func escapeGlob(s string) string {
	var b []byte
	for i := range len(s) {
		switch s[i] {
		case '*', '?', '[':
			b = append(b, '[', s[i], ']')
		default:
			b = append(b, s[i])
		}
	}
	return string(b)
}

func syncPath(name string) error {
	f, err := disk.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(disk.Sync(f), f.Close())
}

// lookAt reports whether there is a file at path, and refuses what can be none of ours before anything
// opens it: opening a pipe would wait, opening a device might do anything. A link is refused because the one who
// made it may be another than the one who opens it.
func lookAt(path string) (exists bool, err error) {
	info, err := disk.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case info.Mode()&fs.ModeSymlink != 0:
		return false, errSymlink
	case info.IsDir():
		return false, errors.New("is a directory")
	case !info.Mode().IsRegular():
		return false, errNotRegular
	}
	return true, nil
}

// openLocked opens the file at path for bbolt: locked, still the one that path names, and proved to be a file of
// ours that bbolt can work with. bbolt maps the very descriptor that was looked at.
// See examine for trusting.
func openLocked(path string, flag int, wait time.Duration, trusting bool) (f *os.File, found examined, err error) {
	f, info, err := openOwned(path, flag&^os.O_CREATE, wait)
	if err != nil {
		return nil, found, err
	}
	if found, err = examine(f, info, locksFirst && flag&os.O_RDWR != 0, trusting); err != nil {
		f.Close()
		return nil, found, err
	}
	return f, found, nil
}

// openOwned opens and locks the regular file at path, in whatever state it is, and sees to it that path still names it
// then. It returns ErrLocked where another process has it.
func openOwned(path string, flag int, wait time.Duration) (f *os.File, info fs.FileInfo, err error) {
	for range openTries {
		if f, err = disk.OpenFile(path, flag|openFlags, 0); err != nil {
			return nil, nil, err
		}
		if err = lockFile(f, flag&os.O_RDWR != 0, wait); err != nil {
			break
		}
		if info, err = f.Stat(); err != nil {
			break
		}
		var now fs.FileInfo
		if now, err = disk.Lstat(path); err != nil {
			break
		}
		if os.SameFile(info, now) {
			if info.Mode().IsRegular() {
				return f, info, nil
			}
			err = errNotRegular
			break
		}
		f.Close() // another process put a new file in its place while we waited
		err = errReplaced
	}
	f.Close()
	return nil, nil, err
}
