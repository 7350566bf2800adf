package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/keepcache/keepcache/internal/disk"
)

// Report is what a replay found. The zero Report is that of a file that does not exist.
type Report struct {
	Bytes       int64  // of the file
	Applied     int    // log records given to the function
	Skipped     int    // log records read that lie wholly at or below after; segments known to hold no others are not read
	RecordBytes int64  // of the log records applied, in bytes
	First       uint64 // lowest sequence applied; 0 if none
	Last        uint64 // highest sequence applied; 0 if none
	Flushed     uint64 // greatest sequence seen to be known to be on disk
	Released    uint64 // greatest sequence seen to be in the store

	// Torn says that the journal ends in a log record that is not whole, above Flushed. That is normal after a crash.
	Torn bool

	// Foreign says that the journal belongs to another store. Nothing was applied.
	Foreign bool
	// Gap says that the journal no longer holds everything above after: it starts at Released. Nothing was applied.
	Gap bool
	// Unreadable says that the file's head is damaged, or is not that of a journal. Nothing was applied.
	Unreadable bool

	// Holes counts the places where something was lost that had been on disk. What was readable behind them was applied.
	Holes int
	// HoleAt is where in the file the block is in which the first of them begins, if Holes is not 0.
	HoleAt int64
	// LostFirst and LostLast bound the sequences above after that may be missing, if Holes is not 0.
	LostFirst, LostLast uint64
	// LostBytes counts the bytes of the file at these places that could not be used.
	LostBytes int64
}

// Damaged reports whether something that had been on disk was lost, or may have been.
func (r *Report) Damaged() bool { return r.Holes > 0 || r.Unreadable }

// Replay reads the journal at path and calls fn for each log record that has a sequence above after, in the order in
// which they were appended. A log record that reaches across after is given whole. log record is valid only during the
// call. A file that does not exist is an empty journal.
//
// Replay never changes the file. It holds one block in memory, and one log record, as far as it was really found.
// Damage is no error but in the Report; an error is ErrVersion, what reading the file returned, or what fn returned,
// which ends the replay. Beside a live writer, damage and a gap may only mean that the writer was at work: try again.
func Replay(
	path string, identity [16]byte, after uint64, fn func(first, last uint64, record []byte) error,
) (Report, error) {
	return ReplayIn(nil, path, identity, after, fn)
}

// ReplayIn is Replay for a journal in a directory that is held open.
func ReplayIn(
	dir *disk.Dir, path string, identity [16]byte, after uint64, fn func(first, last uint64, record []byte) error,
) (Report, error) {
	f, err := openProved(dir, path)
	if errors.Is(err, fs.ErrNotExist) {
		return Report{}, nil
	}
	if err != nil {
		return Report{}, fmt.Errorf("journal: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Report{}, fmt.Errorf("journal: %w", err)
	}
	return ReplayFrom(disk.In(f), st.Size(), identity, after, fn)
}

// ReplayFrom is Replay for a journal of size bytes that is already open.
func ReplayFrom(
	src io.ReaderAt, size int64, identity [16]byte, after uint64, fn func(first, last uint64, record []byte) error,
) (Report, error) {
	r := replay{src: src, size: size, after: after, fn: fn}
	r.Report.Bytes = size
	h, err := readHead(src, size)
	switch {
	case errors.Is(err, errNoHead):
		r.Report.Unreadable = true
		r.Report.LostBytes = size
		return r.Report, nil
	case err != nil:
		return r.Report, fmt.Errorf("journal: replay: %w", err)
	case h.identity != identity:
		r.Report.Foreign = true
		return r.Report, nil
	}
	if err := r.begin(&h); err != nil {
		return r.Report, fmt.Errorf("journal: replay: %w", err)
	}
	r.Report.Flushed = h.start
	if err := r.index(); err != nil {
		return r.Report, fmt.Errorf("journal: replay: %w", err)
	}
	if r.Report.Released > after {
		r.Report.Gap = true
		return r.Report, nil
	}
	err = r.run()
	return r.Report, err
}

var errNoHead = errors.New("no head of a journal")

// readHead reads the head of a journal from either copy.
func readHead(src io.ReaderAt, size int64) (head, error) {
	var b [headerSize]byte
	for at := int64(0); at <= headerCopy && at+headerSize <= size; at += headerCopy {
		if _, err := readFull(src, b[:], at); err != nil {
			return head{}, err
		}
		h, ok := decodeHead(b[:])
		if ok && h.version > windowVersion {
			return h, fmt.Errorf("%w: %d, known is %d", ErrVersion, h.version, windowVersion)
		}
		if ok && h.version >= plainVersion && h.sane() {
			return h, nil
		}
	}
	return head{}, errNoHead
}

// readFull reads as much of b as the file has from at on, and zeroes the rest.
func readFull(src io.ReaderAt, b []byte, at int64) (int, error) {
	n, err := src.ReadAt(b, at)
	clear(b[n:])
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// replay is the state of one replay.
type replay struct {
	Report

	src     io.ReaderAt
	size    int64
	base    uint32
	block   int
	segment int64
	front   int64 // where the segments begin
	after   uint64
	fn      func(first, last uint64, record []byte) error

	order []place // segments by epoch
	buf   []byte  // one block

	seen     uint64 // every sequence up to it was read, or was lost and is counted
	looked   bool   // Flushed includes what all following log records say
	lost     bool   // in a bad place, looking for a block that is readable
	lostSize int64
	lostAt   int64
	stray    bool // fragments that continue a log record are to be expected, because its beginning is not in what we read

	open   bool // a log record is begun
	record recordHead
	data   []byte
}

// begin takes in what the head says.
func (r *replay) begin(h *head) error {
	r.base, r.block, r.segment, r.front = h.base(), int(h.blockBytes), int64(h.segmentBytes), h.front()
	r.Report.Released = h.start
	src, err := newOverlay(r.src, r.size, h)
	if err == nil {
		r.src = src
	}
	return err
}

// place is one segment of a file that is replayed.
type place struct {
	index     int64
	epoch     uint64
	firstPrev uint64 // previous of its first block
	hasFirst  bool   // that block is readable
}

// maxPlaces bounds what a file that pretends to be large can cost.
const maxPlaces = 1 << 20

// index looks at the header of every block, to learn the order of the segments and what was released.
func (r *replay) index() error {
	r.buf = make([]byte, r.block)
	each := r.segment / int64(r.block)
	var top uint64
	var unsure []place // segments whose first block has a bad header
	for i := int64(0); i < maxPlaces && r.front+i*r.segment < r.size; i++ {
		p := place{index: i}
		for k := int64(0); k < each; k++ {
			at := r.front + i*r.segment + k*int64(r.block)
			if at+blockHeader > r.size {
				break
			}
			b := r.buf[:blockHeader]
			if _, err := readFull(r.src, b, at); err != nil {
				return err
			}
			h, ok := decodeBlockHead(b, r.base, uint64(i*each+k))
			if !ok {
				if k == 0 && !isZero(b) {
					unsure = append(unsure, p)
				}
				continue
			}
			r.Released = max(r.Released, h.released)
			r.Flushed = max(r.Flushed, h.flushed)
			if h.epoch > p.epoch {
				p.epoch, p.hasFirst = h.epoch, false
			}
			if k == 0 {
				p.hasFirst, p.firstPrev = h.epoch == p.epoch, h.previous
			}
		}
		if p.epoch > 0 {
			r.order = append(r.order, p)
			top = max(top, p.epoch)
		}
	}
	for _, p := range unsure {
		// It may be the one that was begun last, and have no other block yet. Then a fragment proves it.
		if p.epoch = r.proven(p, 0, top+1); p.epoch != 0 {
			r.order = slices.DeleteFunc(r.order, func(o place) bool { return o.index == p.index })
			r.order = append(r.order, p)
			break
		}
	}
	slices.SortStableFunc(r.order, func(a, b place) int { return cmp.Compare(a.epoch, b.epoch) })
	return nil
}

// proven returns epoch if block k of a segment holds a fragment written in it, or else 0.
func (r *replay) proven(p place, k int64, epoch uint64) uint64 {
	p.epoch = epoch
	if _, ok, err := r.readBlock(p, k, r.buf); !ok || err != nil {
		return 0
	}
	return epoch
}

// readBlock reads block k of a segment into buf and returns its header. It reports false if the block is not readable,
// or a leftover: then the header has an epoch. If only the header is bad the block is used without it, and the header
// returned is zero.
func (r *replay) readBlock(p place, k int64, buf []byte) (blockHead, bool, error) {
	if _, err := readFull(r.src, buf, r.front+p.index*r.segment+k*int64(r.block)); err != nil {
		return blockHead{}, false, fmt.Errorf("journal: replay: %w", err)
	}
	h, ok := decodeBlockHead(buf, r.base, r.number(p, k))
	if !ok {
		_, _, ok = openFragment(buf[blockHeader:], saltOf(r.base, r.number(p, k), p.epoch))
		return blockHead{}, ok, nil
	}
	return h, h.epoch == p.epoch, nil
}

func (r *replay) number(p place, k int64) uint64 {
	return uint64(p.index*(r.segment/int64(r.block)) + k)
}
