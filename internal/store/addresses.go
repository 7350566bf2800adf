package store

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// bbolt maps its file, and a file that outgrows its map is mapped anew: for that the writer waits for every open reader, and
// new readers for the writer. So a file that is to grow gets more addresses than it needs at first. They cost nothing on 64-bit
// systems, but where they are limited (ulimit -v, a container, 32 bits) there may be fewer, and others need some too.
const (
	// reserveMost is what a cache reserves where there is plenty: with less than that in use nothing is ever mapped anew.
	reserveMost = 4 << 30

	// reserveMost32 is the same for 32 bits, where a process has two or three GiB for everything.
	reserveMost32 = 256 << 20

	// reserveLeast is below what no reservation is tried: the map then starts at what the file has, and doubles as it grows.
	reserveLeast = 32 << 20

	// copyReserve is for files that are made and closed again, whose size is not known.
	copyReserve = 8 << 20
)

var ErrNoAddresses = fmt.Errorf("no addresses are left to map a larger file: %w", syscall.ENOMEM)

// reserve returns for how many bytes bbolt is to map a file at first that has size bytes and may use up to most. It takes no more
// than half of what can be had, because the heap, copies of the file and other caches need addresses too. On Windows
// bbolt would make the file as large as its map.
func reserve(size, most int64) int {
	if runtime.GOOS == "windows" {
		return 0
	}
	if math.MaxInt == math.MaxInt32 {
		most = min(most, reserveMost32)
	}
	for n := most; n >= min(most, reserveLeast) && n > size; n /= 2 {
		if addressable(2 * n) {
			return int(n)
		}
	}
	return 0
}

// mapSize returns for how many bytes bbolt maps a file that is to have room for so many.
func mapSize(bytes int64) int64 {
	const step = 1 << 30
	for n := int64(32 << 10); n <= step; n *= 2 {
		if bytes <= n {
			return n
		}
	}
	return (bytes + step - 1) / step * step
}

// outgrows reports whether a transaction upon a file that uses so many bytes could outgrow bbolt's map if it makes the file larger by
// grow bytes, and ErrNoAddresses if there is no map for that.
func (h *Handle) outgrows(used, grow int64) (bool, error) {
	mapped, needed := h.mapped.Load(), used+grow
	if needed < mapped {
		return false, nil
	}
	if more := mapSize(needed) - mapped; !addressable(more + min(more, heapReserve)) {
		return true, ErrNoAddresses
	}
	return true, nil
}

// heapReserve is what has to be left beside a larger map, or as much as that takes if it is less: the heap grows by such parts, and
// a process whose heap cannot grow dies.
const heapReserve = 64 << 20

// unmapped poisons a handle whose map is gone, until the file is opened anew.
func (h *Handle) unmapped(err error) {
	h.Poison(Failure{Err: fmt.Errorf("%w: %w", ErrNoAddresses, err)})
}

// mapOf notes how large bbolt's map is at least, for a file that uses so many bytes.
func (h *Handle) mapOf(used int64) {
	if n := mapSize(used + int64(os.Getpagesize())); n > h.mapped.Load() {
		h.mapped.Store(n)
	}
}

// isUnmapped reports whether an error of Commit says that a larger map was not to be had. The old one is gone then.
func isUnmapped(err error) bool { return strings.HasPrefix(err.Error(), "mmap allocate error") }
