package keepcache

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// bbolt makes a file that grows larger than it needs, so that not every commit pays for the growth. Its own
// 16 MiB would let a cache of ten entries look like one of ten thousand, so the surplus follows the size.
const (
	growLeast = 1 << 20
	growMost  = 32 << 20
	growPart  = 4 // of the file
)

// openHandle opens a file as every file of ours is opened: by the descriptor that open returns, which has looked at
// it and locked it. bbolt's statistics, which count the free pages, cost each transaction a lock; single look-ups
// share one transaction and do not notice.
func openHandle(path string, readOnly bool, lockTimeout time.Duration, open func(string, int, os.FileMode) (*os.File, error)) (h *handle, err error) {
	var file *os.File
	// A failed Open closes the descriptor, one that panics leaves it locked.
	defer func() {
		if r := recover(); r != nil {
			h, err = nil, fmt.Errorf("%w: %w", ErrCorrupt, panicked(r).err)
			if file != nil {
				_ = unlockFile(file)
				_ = file.Close()
			}
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	db, err := bolt.Open(path, fileMode, &bolt.Options{
		Timeout:         max(lockTimeout, time.Millisecond), // to bbolt, 0 is to wait for ever
		NoFreelistSync:  true,
		FreelistType:    bolt.FreelistMapType,
		NoStatistics:    readOnly,
		ReadOnly:        readOnly,
		PreLoadFreelist: !readOnly,
		InitialMmapSize: initialMmapSize(),
		OpenFile: func(path string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := open(path, flag, mode)
			file = f
			return f, err
		},
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		err = ErrLocked
	case errors.Is(err, berrors.ErrInvalid):
		err = fmt.Errorf("its meta pages cannot be read any more: %w", err) // they were whole a moment ago
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return newHandle(db, file, info), nil
}

// initialMmapSize is how many bytes of addresses bbolt reserves for its map. A file that outgrows its map
// is mapped anew, for which the writer waits for every open reader and new readers for the writer. Addresses
// cost nothing on 64-bit systems, except on Windows, where bbolt would make the file that large.
func initialMmapSize() int {
	bytes := int64(4 << 30) // no constant, which would not compile where int is too small for it
	if runtime.GOOS == "windows" || bytes > math.MaxInt {
		return 0
	}
	return int(bytes)
}
