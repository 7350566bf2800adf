package journal

import (
	"errors"
	"fmt"
	"os"
)

// segment is one unit of the file.
type segment struct {
	index int
	at    int64  // offset in the file
	mem   []byte // nil where the file is not mapped
	last  uint64 // highest sequence of any log record with a fragment in it
	epoch uint64

	stored int // bytes from its front that were stored to since it was begun
	letGo  int // bytes from its front that were let go of since then, whole pages
}

// zeros is what segments are filled with, a block at a time, and where they are mapped a page at a time: a larger write
// puts several pages under one folio of the page cache (ext4, Linux 6.16 and later), and then a store of one byte
// through the map makes fdatasync write all of them. Measured on a segment of 1 MiB: 300 us a flush instead of 120.
var zeros = make([]byte, maxBlock)

// need returns how many segments beyond the current one a log record of n bytes takes. mu is held.
func (j *Journal) need(n int) int {
	total := recordHeader + n
	off := j.off
	if in := off % j.block; in != 0 {
		room := j.block - in
		if room >= minStart {
			if total <= room-fragHeader {
				return 0
			}
			total -= room - fragHeader
		}
		off += room
	}
	each := j.block - blockHeader - fragHeader
	blocks := (total + each - 1) / each
	blocks -= (j.opt.SegmentBytes - off) / j.block
	if blocks <= 0 {
		return 0
	}
	perSegment := j.opt.SegmentBytes / j.block
	return (blocks + perSegment - 1) / perSegment
}

// reserve sees to it that n segments are free. It may let go of mu, and then returns again = true: what
// the caller knew may have changed.
func (j *Journal) reserve(n int) (again bool, err error) {
	for len(j.free) < n {
		if len(j.free)+j.capacity-len(j.segments) < n {
			return false, ErrFull
		}
		if j.making {
			j.ready.Wait()
			return true, nil
		}
		s, err := j.makeSegment(len(j.segments))
		if err != nil {
			return false, err
		}
		j.addSegment(s)
	}
	return false, nil
}

// addSegment takes in a segment that was made. mu is held.
func (j *Journal) addSegment(s *segment) {
	j.segments = append(j.segments, s)
	j.free = append(j.free, s)
	j.fileSize.Store(s.at + int64(j.opt.SegmentBytes))
}

// makeSegment extends the file by the segment with the given index. Its blocks are really written: those that are only
// allocated cost the file system a change of its metadata when they are first flushed. Only one call runs at a time:
// making is set, or mu held while it is not.
func (j *Journal) makeSegment(index int) (*segment, error) {
	size := j.opt.SegmentBytes
	s := &segment{index: index, at: j.front + int64(index)*int64(size)}
	if err := j.file.Intact(s.at); err != nil {
		return nil, j.fail(err) // extending it would hide that it was cut off
	}
	mapped := !j.opt.NoMap && j.window.mem == nil
	step := len(zeros)
	if mapped {
		step = min(os.Getpagesize(), segmentStep)
	}
	for off := 0; off < size; off += step {
		if _, err := j.file.WriteAt(zeros[:min(step, size-off)], s.at+int64(off)); err != nil {
			return nil, errors.Join(fmt.Errorf("journal: extend: %w", err), j.file.Truncate(s.at))
		}
	}
	if mapped {
		if mem, err := j.file.Map(s.at, size); err == nil {
			s.mem = mem
		}
	}
	return s, nil
}

// askAhead has the next segment made in the background if none is free. mu is held.
func (j *Journal) askAhead() {
	if len(j.free) > 0 || j.making || j.closed || len(j.segments) >= j.capacity {
		return
	}
	j.making = true
	j.makeNext <- struct{}{} // has room: only one is asked for at a time
}

// makeAhead is the background goroutine. If it cannot make a segment, the Append that needs one tries
// again and gets the error.
func (j *Journal) makeAhead() {
	defer close(j.makerDone)
	for range j.makeNext {
		j.mu.Lock()
		index := len(j.segments)
		stop := j.closed
		j.mu.Unlock()
		var s *segment
		if !stop {
			s, _ = j.makeSegment(index)
		}
		j.mu.Lock()
		j.making = false
		if s != nil {
			j.addSegment(s)
		}
		j.ready.Broadcast()
		j.mu.Unlock()
	}
}
