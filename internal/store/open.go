package store

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Open opens the file at path. If there is none it creates one, unless readOnly is set. See examine for trusting.
func Open(in *disk.Dir, path string, readOnly bool, lockTimeout time.Duration, trusting bool) (*Store, error) {
	exists, err := CheckPath(in, path)
	if err != nil {
		return nil, err
	}
	if !exists {
		if readOnly {
			return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
		}
		if err := createFile(in, path, initFile); err != nil {
			return nil, err
		}
	}
	h, err := openFile(in, path, readOnly, lockTimeout, trusting)
	if errors.Is(err, ErrNotInitialized) && !readOnly {
		if err = initInPlace(in, path, lockTimeout); err == nil {
			h, err = openFile(in, path, readOnly, lockTimeout, trusting)
		}
	}
	if err != nil {
		return nil, err
	}
	return New(in, path, readOnly, h)
}

// openFile opens, locks and examines the file at path. See examine for trusting.
func openFile(in *disk.Dir, path string, readOnly bool, lockTimeout time.Duration, trusting bool) (*Handle, error) {
	var found examined
	open := func(path string, flag int, _ os.FileMode) (f *os.File, err error) {
		f, found, err = openLocked(in, path, flag, lockTimeout, trusting)
		return f, err
	}
	h, err := openHandle(path, readOnly, maxReserve, lockTimeout, open)
	if err == nil {
		h.found = found
	}
	return h, err
}

// New returns a store for an open file. If the file is not a usable cache it closes the file.
func New(in *disk.Dir, path string, readOnly bool, h *Handle) (s *Store, err error) {
	s = &Store{path: path, readOnly: readOnly, failed: make(chan struct{}, 1)}
	s.dir.Store(in)
	s.use(h)
	if s.identity, err = h.recognise(); err == nil {
		s.mark, _, err = s.Revisions()
	}
	if err == nil && !readOnly {
		// A file that is refused stays as it is.
		var highest uint64
		if _, _, highest, err = s.Table(); err == nil {
			err = checkNumber(highest)
		}
		if err == nil {
			err = h.makeDurable(in, path)
		}
	}
	if err == nil {
		err = s.renew()
	}
	if err == nil {
		_, err = s.Attributes()
	}
	if err == nil && !readOnly {
		in.Remove(successorPath(path)) // left by a compaction that a crash ended: only the owner of the lock makes one
		removeStrays(in, path, backupSuffix)
	}
	if err == nil && !readOnly {
		err = h.repairCounts(s.Update)
	}
	if err != nil {
		s.release()
		return nil, errors.Join(err, h.Close())
	}
	return s, nil
}

// recognise checks that the file is a cache in a format that we read, and returns its identity.
func (h *Handle) recognise() (identity [16]byte, err error) {
	err = h.view(func(tx *bolt.Tx) error {
		meta := tx.Bucket(format.MetaBucket)
		if meta == nil {
			return errs.ErrFormat
		}
		if err := checkFormat(meta.Get(format.MetaFormat)); err != nil {
			return err
		}
		if copy(identity[:], meta.Get(format.MetaIdentity)) != len(identity) || len(meta.Get(format.MetaSequence)) != 8 {
			return fmt.Errorf("%w: bucket meta is incomplete", errs.ErrCorrupt)
		}
		for _, name := range [][]byte{format.BucketsBucket, format.EntriesBucket, format.ExpiryBucket, format.UsageBucket} {
			if tx.Bucket(name) == nil {
				return fmt.Errorf("%w: bucket %s is missing", errs.ErrCorrupt, name)
			}
		}
		return nil
	})
	if errors.Is(err, errs.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", errs.ErrCorrupt, err) // it has only just been opened
	}
	return identity, err
}

// bbolt grows a file by more than it needs, so that not every commit pays for the growth. Its default of 16 MiB would
// make a cache of ten entries as large as one of ten thousand, so the surplus follows the size.
const (
	minGrowth   = 1 << 20
	maxGrowth   = 32 << 20
	growthShare = 16 // 1/16 of the file

	// trimRoom is what Close leaves of the surplus, so that a cache opened for one write need not grow the file.
	trimRoom = 128 << 10
)

// openFunc is os.OpenFile or a replacement for it.
type openFunc func(name string, flag int, perm os.FileMode) (*os.File, error)

// openHandle opens a cache file in bbolt by the descriptor that open returns. open has examined and locked it. most
// bounds the address space that a writable file reserves, see reserve. bbolt's statistics, which count the free pages,
// cost each transaction a lock. Look-ups share one transaction, so they do not notice.
func openHandle(
	path string, readOnly bool, most int64, lockTimeout time.Duration, open openFunc,
) (h *Handle, err error) {
	var file *os.File
	// A failed bolt.Open closes the descriptor. One that panics leaves it open and locked.
	defer func() {
		if r := recover(); r != nil {
			h, err = nil, fmt.Errorf("%w: %w", errs.ErrCorrupt, panicked(r).Err)
			if file != nil {
				_ = unlockFile(file)
				_ = file.Close()
			}
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	options := &bolt.Options{
		Timeout:         max(lockTimeout, time.Millisecond), // for bbolt, 0 means no timeout
		NoFreelistSync:  true,
		FreelistType:    bolt.FreelistMapType,
		NoStatistics:    readOnly,
		ReadOnly:        readOnly,
		PreLoadFreelist: !readOnly,
	}
	var mapped int64
	options.OpenFile = func(path string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := open(path, flag, mode)
		if file = f; err != nil {
			return f, err
		}
		size, _, err := sizeOfFile(f)
		if !readOnly {
			options.InitialMmapSize = reserve(size, most) // bbolt reads it after this call
		}
		mapped = mapSize(max(size, int64(options.InitialMmapSize)))
		return f, err
	}
	db, err := bolt.Open(path, fileMode, options)
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		err = errs.ErrLocked
	case errors.Is(err, berrors.ErrInvalid):
		err = fmt.Errorf("its meta pages cannot be read any more: %w", err) // they were intact a moment ago
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	h = newHandle(db, file, info)
	h.mapped.Store(mapped)
	return h, nil
}
