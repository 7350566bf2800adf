package journal_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"

	"github.com/stretchr/testify/require"

	files "github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/journal"
)

const sector = 512

// disk is a file in memory with a page cache above it: what is written is in the cache, and reaches the disk with a
// sync, or sector by sector whenever it pleases. Its hooks, if they are set, run before the operation and can make it
// fail.
type disk struct {
	mu      sync.Mutex
	cache   []byte // its capacity never changes, so that it can be mapped
	durable []byte
	noMap   bool
	syncs   int

	onWrite func(b []byte, off int64) (int, error) // may write a part
	onSync  func() error                           // runs after the durable state was taken
}

// newDisk makes one. Where appends and flushes overlap it must not be mapped: its sync reads what a store may write.
func newDisk(size int64, noMap bool) *disk {
	return &disk{cache: make([]byte, 0, size), noMap: noMap}
}

// open is for Options.OpenFile. A file is made at name, for it to be renamed, and stays empty.
func (d *disk) open(name string, flag int, perm fs.FileMode) (journal.File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if flag&os.O_CREATE != 0 {
		d.cache, d.durable = d.cache[:0], nil
	}
	return d, f.Close()
}

// hookWrites sets onWrite beside a journal that makes its next segment already.
func (d *disk) hookWrites(hook func(b []byte, off int64) (int, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onWrite = hook
}

func (d *disk) Follow(files.Attributes) error { return nil }

func (d *disk) WriteAt(b []byte, off int64) (int, error) {
	d.mu.Lock()
	onWrite := d.onWrite
	d.mu.Unlock()
	n, err := len(b), error(nil)
	if onWrite != nil {
		n, err = onWrite(b, off)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if end := int(off) + n; end > cap(d.cache) {
		return 0, errors.New("beyond the bound on the file")
	} else if end > len(d.cache) {
		d.cache = d.cache[:end]
	}
	copy(d.cache[off:], b[:n])
	return n, err
}

func (d *disk) Truncate(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.cache[min(int64(len(d.cache)), size):])
	d.cache = d.cache[:size]
	d.durable = d.durable[:min(int64(len(d.durable)), size)]
	return nil
}

func (d *disk) Datasync() error {
	d.mu.Lock()
	d.syncs++
	d.durable = append(d.durable[:0], d.cache...)
	d.mu.Unlock()
	if d.onSync != nil {
		return d.onSync()
	}
	return nil
}

// afterPowerLoss returns what the disk has.
func (d *disk) afterPowerLoss() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.durable)
}

func (d *disk) Map(off int64, n int) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.noMap {
		return nil, errors.ErrUnsupported
	}
	return d.cache[off : off+int64(n) : off+int64(n)], nil
}

func (d *disk) Intact(int64) error { return nil }
func (d *disk) LetGo([]byte)       {}
func (d *disk) Unmap([]byte) error { return nil }
func (d *disk) Close() error       { return nil }

// writeBack lets each sector reach the disk with probability p, on its own.
func (d *disk) writeBack(r *rand.Rand, p float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for off := 0; off < len(d.cache); off += sector {
		if r.Float64() >= p {
			continue
		}
		end := min(off+sector, len(d.cache))
		if end > len(d.durable) {
			d.durable = append(d.durable, make([]byte, end-len(d.durable))...)
		}
		copy(d.durable[off:end], d.cache[off:end])
	}
}

// replay replays what is in the cache, which is what a process finds that comes after one that was killed.
func (d *disk) replay(t require.TestingT, after uint64) []record {
	d.mu.Lock()
	defer d.mu.Unlock()
	var got []record
	r, err := journal.ReplayFrom(bytes.NewReader(d.cache), int64(len(d.cache)), identity, after,
		func(first, last uint64, data []byte) error {
			got = append(got, record{first, last, bytes.Clone(data)})
			return nil
		})
	require.NoError(t, err)
	require.False(t, r.Damaged() || r.Gap || r.Foreign, "%+v", r)
	return got
}
