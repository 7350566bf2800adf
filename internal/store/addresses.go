package store

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// bbolt maps its file. A file that outgrows its map is mapped again: the writer then waits for every open reader, and
// new readers wait for the writer. So a file that may grow gets more address space than it needs at first. Address
// space is free on 64-bit systems. But where it is limited (ulimit -v, a container, 32 bits) there may be less, and
// others need some too.
const (
	// maxReserve is what a cache reserves where there is plenty. A smaller file is never mapped again.
	maxReserve = 4 << 30

	// maxReserve32 is maxReserve for 32 bits, where a process has two or three GiB for everything.
	maxReserve32 = 256 << 20

	// minReserve is the smallest reservation that is tried. Below it the map starts at the size of the file and doubles as
	// the file grows.
	minReserve = 32 << 20

	// copyReserve is for files that are made and closed again. Their size is not known beforehand.
	copyReserve = 8 << 20
)

var ErrNoAddressSpace = fmt.Errorf("no address space is left to map a larger file: %w", syscall.ENOMEM)

// reserve returns how many bytes bbolt should map at first, for a file of size bytes that may use up to most. It takes
// at most half of the available address space, because the heap, copies of the file and other caches need some too. It
// returns 0 on Windows, where bbolt would make the file as large as its map.
func reserve(size, most int64) int {
	if runtime.GOOS == "windows" {
		return 0
	}
	if math.MaxInt == math.MaxInt32 {
		most = min(most, maxReserve32)
	}
	for n := most; n >= min(most, minReserve) && n > size; n /= 2 {
		if addressable(2 * n) {
			return int(n)
		}
	}
	return 0
}

// mapSize returns how many bytes bbolt maps for a file of the given size.
func mapSize(bytes int64) int64 {
	const step = 1 << 30
	for n := int64(32 << 10); n <= step; n *= 2 {
		if bytes <= n {
			return n
		}
	}
	return (bytes + step - 1) / step * step
}

// outgrows reports whether a transaction that makes the file larger by grow bytes could outgrow bbolt's map. used is
// how many bytes the file uses. The error is ErrNoAddressSpace if there is no room for the larger map.
func (h *Handle) outgrows(used, grow int64) (bool, error) {
	mapped, needed := h.mapped.Load(), used+grow
	if needed < mapped {
		return false, nil
	}
	if more := mapSize(needed) - mapped; !addressable(more + min(more, heapReserve)) {
		return true, ErrNoAddressSpace
	}
	return true, nil
}

// heapReserve is what must stay free beside a larger map, or as much as the map grows by if that is less. The heap
// grows by such steps, and a process whose heap cannot grow dies.
const heapReserve = 64 << 20

// poisonUnmapped poisons a handle that has lost its map. The file must be reopened.
func (h *Handle) poisonUnmapped(err error) {
	h.Poison(Failure{Err: fmt.Errorf("%w: %w", ErrNoAddressSpace, err)})
}

// noteMapSize notes how large bbolt's map is at least, for a file that uses so many bytes.
func (h *Handle) noteMapSize(used int64) {
	if n := mapSize(used + int64(os.Getpagesize())); n > h.mapped.Load() {
		h.mapped.Store(n)
	}
}

// isMapFailure reports whether Commit failed because a larger map was refused. The old map is gone then.
func isMapFailure(err error) bool { return strings.HasPrefix(err.Error(), "mmap allocate error") }
