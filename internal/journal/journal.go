package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/ground"
)

// Errors of Append, Flush and New. Match them with errors.Is.
var (
	// ErrFull means that no segment is free. Release some and try again.
	ErrFull = errors.New("journal is full")
	// ErrTooLarge means that the log record is longer than MaxRecord.
	ErrTooLarge = errors.New("log record is too large for the journal")
	// ErrOrder means that a first sequence was not above the last one appended, or above its own last.
	ErrOrder = errors.New("sequence out of order")
	// ErrFailed means that the journal is of no more use: a flush or a write failed, or its file was cut off
	// or removed under it. What had been flushed before is still there to be replayed.
	ErrFailed = errors.New("journal has failed")
	// ErrClosed means that the journal was closed.
	ErrClosed = errors.New("journal is closed")
	// ErrCreate means that the journal's file cannot be made. The cause is in the error too.
	ErrCreate = errors.New("journal: create")
	// ErrVersion means that the file has a newer format than this program knows. It is left untouched.
	ErrVersion = errors.New("journal has a newer format version")
)

const (
	defaultMaxBytes     = 64 << 20
	defaultSegmentBytes = 1 << 20
	segmentStep         = 4 << 10 // segment sizes are multiples of the usual page, so that they can be mapped
	maxRecordBytes      = 1<<31 - 1 - recordHeader
)

// Options tell New what to make. The zero value is usable, but for Identity.
type Options struct {
	// Identity of the store. Replay refuses the journal of another. It is also part of every checksum.
	Identity [16]byte
	// MaxBytes bounds the file, in bytes. At least two small segments are always allowed. Default: 64 MiB.
	MaxBytes int64
	// SegmentBytes is the unit in which the file grows and is used again, in bytes. It is rounded up to a multiple
	// of 4 KiB, and reduced where MaxBytes has no room for two. Default: 1 MiB.
	SegmentBytes int
	// NoMap makes Append write with pwrite although the file could be mapped. Default: false.
	NoMap bool
	// Window has log records stored to one small map and copied to their places a block at a time, which makes Append
	// several times as fast and a flush of one log record slower: it is for a journal that is flushed only now and then.
	// Where nothing can be mapped the file has room for it, and that is all. Default: false, log records are stored to a
	// map of their places.
	Window bool
	// Staged has the journal made beside the file at its path, which stays as it is until Replace puts the journal in its
	// place: for one that takes over what is there. Default: false.
	Staged bool
	// Like returns whose file the journal is beside: its own file follows that one's owner, group, mode and labels. It is
	// called when the file is made, and by Follow. Default: nil, the file is of mode 0600 of whoever makes it.
	Like func() (disk.Attributes, error)
	// Dir is the directory in which the journal lives. Default: nil, whatever its path leads to.
	Dir *disk.Dir
	// Ground is where what outlives a call is started. Default: nil, by whichever call comes to it.
	Ground *ground.Ground
	// After is the sequence after which the journal starts: what the store has when the journal is made. Default: 0.
	After uint64
	// OpenFile opens the journal's file, for fault injection in tests. It is called as os.OpenFile would be. Default: nil,
	// the file itself.
	OpenFile func(name string, flag int, perm fs.FileMode) (File, error)
}

// withDefaults returns a filled and valid copy, and the block size that belongs to it.
func (o Options) withDefaults() (Options, int) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	if o.OpenFile == nil {
		o.OpenFile = openIn(o.Dir)
	}
	o.Window = o.Window && !o.NoMap
	block := maxBlock
	o.MaxBytes = max(o.MaxBytes, o.front(minBlock)+2*segmentStep)
	for ; ; block /= 2 {
		most := min((o.MaxBytes-o.front(block))/2, maxSegment) / segmentStep * segmentStep
		size := int(min(int64(o.SegmentBytes+segmentStep-1)/segmentStep*segmentStep, most))
		if block <= size/4 && size%block == 0 {
			o.SegmentBytes = size
			return o, block
		}
	}
}

// front returns where the segments begin in a file with blocks of so many bytes.
func (o *Options) front(block int) int64 {
	if o.Window {
		return headBytes + int64(windowBytes(block))
	}
	return headBytes
}

// Journal is an open journal. All methods may be called concurrently, with one condition: concurrent
// calls of Append must bring their sequences in increasing order, so its callers need an order of their own.
type Journal struct {
	path      string
	opt       Options
	block     int   // bytes of a block
	front     int64 // where the segments begin
	capacity  int   // segments at most
	maxRecord int   // bytes

	mu        sync.Mutex  // protects what follows, up to the blank line
	ready     ground.Cond // on mu: the background goroutine has made a segment, or could not
	file      File        // nil before the first Append
	base      uint32      // of every salt
	live      []*segment  // from the oldest not released to the one that is written; at least one once there is a file
	free      []*segment  // the one freed last is used next: its pages are most likely still in memory
	segments  []*segment  // all, by place in the file
	off       int         // where the next fragment goes in the last live segment
	salt      uint32      // of the block at off
	epoch     uint64      // of the last live segment
	released  uint64
	staged    bool // the file has its own name still
	making    bool // the background goroutine is at work
	closed    bool
	appends   uint64
	bytes     uint64
	window    window
	scratch   []byte        // one block, where there is no map
	makeNext  chan struct{} // asks the background goroutine for a segment
	makerDone chan struct{}

	last     atomic.Uint64 // last sequence appended; written under mu
	flushed  atomic.Uint64 // everything up to it is on disk; written under flush.mu
	fileSize atomic.Int64  // bytes that the file must have
	used     atomic.Int64  // bytes of live segments; written under mu
	failure  atomic.Pointer[failure]
	flush    flusher
}

// failure is why a journal is of no more use.
type failure struct{ err error }

// New returns a journal that will live at path. Nothing is created on disk before the first Append, which
// replaces a file that is there: the caller says that it is replayed. What a crash left of the making of a
// journal is removed. The error is ErrVersion if that file has a newer
// format, or what the system says if it cannot be looked at.
func New(path string, o Options) (*Journal, error) {
	opt, block := o.withDefaults()
	if err := checkReplaceable(o.Dir, path); err != nil {
		return nil, err
	}
	if err := removeStray(o.Dir, path); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{path: path, opt: opt, block: block, front: opt.front(block), released: opt.After, staged: opt.Staged}
	j.capacity = int((opt.MaxBytes - j.front) / int64(opt.SegmentBytes))
	// A log record that fits beside the segment that is written fits whenever all is released.
	room := int64(j.capacity-1) * int64(opt.SegmentBytes/block) * int64(block-blockHeader-fragHeader)
	j.maxRecord = int(min(room-recordHeader, maxRecordBytes))
	j.ready = ground.Cond{L: &j.mu, Ground: opt.Ground}
	j.flush.init(opt.Ground)
	j.last.Store(opt.After)
	j.flushed.Store(opt.After)
	return j, nil
}

// checkReplaceable returns an error if what is at path must not be replaced by a journal.
func checkReplaceable(dir *disk.Dir, path string) error {
	st, err := dir.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("journal: open %q: not a regular file", path)
	}
	f, err := openProved(dir, path)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer f.Close()
	if _, err := readHead(disk.In(f), st.Size()); errors.Is(err, ErrVersion) {
		return fmt.Errorf("journal: open %q: %w", path, err)
	}
	return nil
}

// MaxRecord returns the length in bytes of the longest log record that Append can take.
func (j *Journal) MaxRecord() int { return j.maxRecord }

// Made reports whether the journal has a file, which the first Append makes.
func (j *Journal) Made() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.file != nil
}

// Err returns nil while the journal works, and otherwise an error that matches ErrFailed and its cause.
func (j *Journal) Err() error {
	if f := j.failure.Load(); f != nil {
		return f.err
	}
	return nil
}

// fail makes the journal useless for good. The first cause stays. It takes no lock.
func (j *Journal) fail(cause error) error {
	j.failure.CompareAndSwap(nil, &failure{fmt.Errorf("%w: %w", ErrFailed, cause)})
	return j.Err()
}

// Release says that the store has everything up to mark, durably. Segments with nothing above it are used
// again. A mark below an earlier one does nothing.
func (j *Journal) Release(mark uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if mark <= j.released {
		return
	}
	j.released = mark
	n := 0
	for n < len(j.live)-1 && j.live[n].last <= mark {
		n++
	}
	j.free = append(j.free, j.live[:n]...)
	j.live = j.live[:copy(j.live, j.live[n:])]
	j.used.Store(int64(len(j.live)) * int64(j.opt.SegmentBytes))
}

// Replace flushes a journal that is Staged, and has it take the place of the file at its path. After an error that one
// is still there, or already the journal. Until the next Flush a power cut may bring back the one that was replaced,
// with what was on disk of it.
func (j *Journal) Replace() error {
	if err := j.Flush(j.last.Load()); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	if j.file != nil {
		if err := j.opt.Dir.Rename(strayPath(j.path), j.path); err != nil {
			return fmt.Errorf("journal: replace: %w", err)
		}
	}
	j.staged = false
	j.appends, j.bytes = 0, 0 // nobody has asked for those yet
	j.renamed()
	return nil
}

// Close ends the background work and closes the file. It does not flush. With remove the file is deleted too, also one
// that New found unless the journal is Staged and has not replaced it: for a caller whose store has everything, and
// before another journal of this path takes its first Append. Waiting calls of Flush return ErrClosed. A second Close
// does nothing.
func (j *Journal) Close(remove bool) error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	file := j.file
	if file != nil {
		close(j.makeNext)
	}
	j.ready.Broadcast()
	j.mu.Unlock()

	j.flush.close()
	var err error
	if file != nil {
		<-j.makerDone
		j.mu.Lock()
		for _, s := range j.segments {
			if s.mem != nil {
				err = errors.Join(err, file.Unmap(s.mem))
				s.mem = nil
			}
		}
		if j.window.mem != nil {
			err = errors.Join(err, file.Unmap(j.window.mem))
			j.window.mem = nil
		}
		j.mu.Unlock()
		err = errors.Join(err, file.Close())
	}
	if remove {
		path := j.path
		if j.staged { // nothing changes it any more
			path = strayPath(path)
		}
		e := j.opt.Dir.Remove(path)
		if file == nil && errors.Is(e, fs.ErrPermission) { // one that could not be made in this directory, so none was
			e = nil
		}
		if !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fmt.Errorf("journal: close: %w", err)
	}
	return nil
}

// Follow has the journal's file follow the one that it is beside once more: that has changed hands.
func (j *Journal) Follow() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil || j.closed || j.opt.Like == nil {
		return nil
	}
	return follow(j.file, &j.opt)
}

func follow(f File, o *Options) error {
	if o.Like == nil {
		return nil
	}
	like, err := o.Like()
	if err != nil {
		return err
	}
	return f.Follow(like)
}

// create makes the file and starts the background goroutine. mu is held.
func (j *Journal) create() error {
	h := head{
		version: plainVersion, blockBytes: uint32(j.block), identity: j.opt.Identity,
		segmentBytes: uint32(j.opt.SegmentBytes), start: j.opt.After,
	}
	if j.opt.Window {
		h.version, h.window = windowVersion, windowBytes(j.block)
	}
	var nonce [8]byte
	rand.Read(nonce[:]) // never fails
	h.nonce = le.Uint64(nonce[:])
	f, err := createFile(j.path, &j.opt, &h, j.staged)
	if err != nil {
		return err
	}
	j.file = f
	if j.opt.Window {
		if mem, err := f.Map(headBytes, j.block); err == nil {
			j.window.mem = mem
		}
	}
	j.base = h.base()
	j.off = j.opt.SegmentBytes // the first log record begins a segment
	j.scratch = make([]byte, j.block)
	j.fileSize.Store(j.front)
	j.opt.Ground.Do(func() { // it outlives the call that happens to be the first
		j.makeNext = make(chan struct{}, 1)
		j.makerDone = make(chan struct{})
		go j.makeAhead()
	})
	return nil
}
