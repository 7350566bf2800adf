package keepcache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
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
	db, err := bolt.Open(name, fileMode, &bolt.Options{
		Timeout: time.Second, FreelistType: bolt.FreelistMapType, NoStatistics: true,
		OpenFile: disk.OpenFile,
	})
	if err != nil {
		return err
	}
	err = db.Update(init)
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := syncPath(name); err != nil {
		return err
	}
	if err := disk.Link(name, path); err != nil && !errors.Is(err, fs.ErrExist) {
		// A file system without links: the rename could replace a file that came since we looked, so look again.
		if _, statErr := os.Lstat(path); statErr == nil {
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
		if info, err := os.Lstat(stray); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > strayAge {
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
// opens it: opening a pipe would wait, opening a device might do anything.
func lookAt(path string) (exists bool, err error) {
	info, err := disk.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, lerr := os.Lstat(path); lerr == nil {
			return false, fmt.Errorf("dangling symbolic link: %w", err)
		}
		return false, nil
	case err != nil:
		return false, err
	case info.IsDir():
		return false, errors.New("is a directory")
	case !info.Mode().IsRegular():
		return false, errNotRegular
	}
	return true, nil
}

// openLocked opens the file at path for bbolt: locked, still the one that path names, and recognised as a
// whole bbolt file. bbolt maps the very descriptor that was looked at.
func openLocked(path string, flag int, wait time.Duration) (f *os.File, err error) {
	for range openTries {
		if f, err = disk.OpenFile(path, flag&^os.O_CREATE, 0); err != nil {
			return nil, err
		}
		if err = lockFile(f, flag&os.O_RDWR != 0, wait); err != nil {
			break
		}
		var ours, now fs.FileInfo
		if ours, err = f.Stat(); err != nil {
			break
		}
		if now, err = disk.Stat(path); err != nil {
			break
		}
		if os.SameFile(ours, now) {
			if err = checkHeader(disk.Reader(f), ours.Size()); err != nil {
				break
			}
			return f, nil
		}
		f.Close() // another process put a new file in its place while we waited
		err = errReplaced
	}
	f.Close()
	return nil, err
}

// The layout of a bbolt meta page, from bbolt's internal/common: a page header of 16 bytes, then magic,
// version, page size, flags (4 bytes each), root page and sequence, freelist page, page count, transaction
// id and a checksum (8 bytes each), in the byte order of the machine.
const (
	boltMagic     = 0xED0CDAED
	boltVersion   = 2
	pageHeader    = 16
	metaSize      = 64
	minPageSize   = 1 << 10
	maxPageSize   = 1 << 16
	metaChecksum  = 56
	metaFreelist  = 32
	metaPageCount = 40
	metaTxid      = 48
)

// checkHeader says whether f, of the given size, begins like a bbolt file and has all the pages that it
// speaks of. bbolt itself would turn an empty file into a database and fault on a truncated one.
func checkHeader(f io.ReaderAt, size int64) error {
	if size == 0 {
		return fmt.Errorf("%w: it is empty", ErrFormat)
	}
	best, err := newestMeta(f)
	switch {
	case err != nil:
		return err
	case best == nil:
		return ErrFormat
	}
	pages, pageSize := binary.NativeEndian.Uint64(best[metaPageCount:]), pageSizeOf(best)
	if pages > uint64(size/pageSize) {
		return fmt.Errorf("%w: the file is cut short, it has %d of %d pages", ErrCorrupt, size/pageSize, pages)
	}
	return nil
}

// pageSizeOf returns the size of a page in bytes.
func pageSizeOf(meta []byte) int64 { return int64(binary.NativeEndian.Uint32(meta[8:])) }

// listedFree returns how many free pages the file at path lists, or 0 if it has no list that can be read. The list
// is a page with its length in the page header, or in its first word where that has too few bits.
func listedFree(path string) int {
	f, err := disk.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	meta, err := newestMeta(disk.Reader(f))
	if meta == nil || err != nil {
		return 0
	}
	var page [pageHeader + 8]byte
	at := binary.NativeEndian.Uint64(meta[metaFreelist:])
	if at >= binary.NativeEndian.Uint64(meta[metaPageCount:]) {
		return 0
	}
	if _, err := f.ReadAt(page[:], int64(at)*pageSizeOf(meta)); err != nil {
		return 0
	}
	if n := binary.NativeEndian.Uint16(page[10:]); n < 0xFFFF {
		return int(n)
	}
	return int(binary.NativeEndian.Uint64(page[pageHeader:]))
}

// newestMeta returns the meta page that bbolt will use, or nil if none is whole. The error is that of reading: what cannot
// be read is not damaged.
func newestMeta(f io.ReaderAt) (best []byte, err error) {
	var buf [pageHeader + metaSize]byte
	consider := func(offset int64) (pageSize int64) {
		if _, e := f.ReadAt(buf[:], offset); e != nil {
			if e != io.EOF {
				err = e
			}
			return 0
		}
		meta := buf[pageHeader:]
		pageSize = int64(binary.NativeEndian.Uint32(meta[8:]))
		sum := fnv.New64a()
		sum.Write(meta[:metaChecksum])
		if binary.NativeEndian.Uint32(meta) != boltMagic || binary.NativeEndian.Uint32(meta[4:]) != boltVersion ||
			sum.Sum64() != binary.NativeEndian.Uint64(meta[metaChecksum:]) ||
			pageSize < minPageSize || pageSize > maxPageSize || pageSize&(pageSize-1) != 0 {
			return 0
		}
		if best == nil || binary.NativeEndian.Uint64(meta[metaTxid:]) > binary.NativeEndian.Uint64(best[metaTxid:]) {
			best = append(best[:0], meta...)
		}
		return pageSize
	}
	if first := consider(0); first != 0 {
		consider(first)
	} else {
		// The first meta page is damaged. The second lies one page further, of whatever size pages are.
		for guess := int64(minPageSize); guess <= maxPageSize && best == nil; guess <<= 1 {
			consider(guess)
		}
	}
	return best, err
}
