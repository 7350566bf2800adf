package journal

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Append adds one log record, the parts one after the other, with the sequences first to last. When it returns nil the
// log record survives the death of the process, and Flush(last) makes it survive the loss of power. first must be
// greater than every sequence appended before. The parts may be used again at once.
//
// After an error nothing of the log record is in the journal. ErrFull asks for a Release, ErrTooLarge is final,
// ErrFailed means that the journal can take nothing more. Any other error, of a full disk above all, may have passed at
// the next call.
func (j *Journal) Append(first, last uint64, parts ...[]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	if n > j.maxRecord || n < 0 {
		return ErrTooLarge
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	var more int
	for {
		if j.closed {
			return ErrClosed
		}
		if f := j.failure.Load(); f != nil {
			return f.err
		}
		if first <= j.last.Load() || last < first {
			return ErrOrder
		}
		if j.file == nil {
			if err := j.create(); err != nil {
				return err
			}
		}
		if more = j.need(n); more == 0 {
			break
		}
		again, err := j.reserve(more)
		if err != nil {
			return err
		}
		if !again {
			break
		}
	}
	if err := j.write(first, last, n, parts); err != nil {
		return err
	}
	j.last.Store(last)
	j.appends++
	j.bytes += uint64(n)
	if more > 0 {
		j.askAhead()
	}
	return nil
}

// write puts a log record at the end of the journal. The segments that it needs are free. The journal changes
// only if all of it succeeds. mu is held.
func (j *Journal) write(first, last uint64, n int, parts [][]byte) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = j.fail(faultError(r))
		}
	}()

	src := gather{parts: parts}
	flushed := j.flushed.Load()
	total := recordHeader + n
	done, taken := 0, 0
	off, salt, epoch := j.off, j.salt, j.epoch
	var seg, begun *segment
	if off < j.opt.SegmentBytes {
		seg = j.live[len(j.live)-1]
	}
	if in := off % j.block; j.block-in < minStart {
		if err := j.complete(seg.at+int64(off-in), in); err != nil {
			return fmt.Errorf("journal: append: %w", err)
		}
		off += j.block - in
		j.off = off // whatever comes of the rest, the window is free for the next block
	}
	if off < j.opt.SegmentBytes {
		begun = seg
	}
	for done < total {
		if off == j.opt.SegmentBytes {
			taken++
			seg = j.free[len(j.free)-taken]
			seg.stored, seg.letGo = 0, 0
			epoch++
			off = 0
		}
		room, front := j.block-off%j.block, 0
		if room == j.block {
			front = blockHeader
		}
		body := min(room-front-fragHeader, total-done)
		end := front + fragHeader + body
		size := end
		if done+body == total && room-end >= minStart {
			size += fragHeader // the zeros that end the journal
		}
		dst := j.scratch
		switch {
		case j.window.mem != nil:
			dst = j.window.mem[j.block-room:]
		case seg.mem != nil:
			dst = seg.mem[off:]
		}
		dst = dst[:size]
		if front > 0 {
			h := blockHead{epoch: epoch, flushed: flushed, released: j.released, previous: j.last.Load()}
			if done > 0 {
				h.previous = last
			}
			block := uint64(seg.index)*uint64(j.opt.SegmentBytes/j.block) + uint64(off/j.block)
			h.encode(dst, j.base, block)
			salt = saltOf(j.base, block, epoch)
		}
		frag := dst[front:end]
		typ := byte(fragMiddle)
		switch {
		case body == total:
			typ = fragFull
		case done == 0:
			typ = fragFirst
		case done+body == total:
			typ = fragLast
		}
		content := frag[fragHeader:]
		if done == 0 {
			h := recordHead{first: first, last: last, flushed: flushed, length: uint32(n)}
			h.encode(content)
			content = content[recordHeader:]
		}
		src.read(content)
		clear(dst[end:])
		sealFragment(frag, typ, salt) // last: a store that faults leaves no whole fragment
		switch {
		case j.window.mem != nil && end == room:
			err = j.complete(seg.at+int64(off-(j.block-room)), j.block)
		case j.window.mem == nil && seg.mem == nil:
			_, err = j.file.WriteAt(dst, seg.at+int64(off))
		}
		if err != nil {
			clear(dst[:front+fragHeader]) // it may be in the window
			return j.undo(seg.at+int64(off), front+fragHeader, done == 0, err)
		}
		done += body
		off += end
		seg.stored = off
	}
	for range taken {
		s := j.free[len(j.free)-1]
		j.free = j.free[:len(j.free)-1]
		j.epoch++
		s.epoch = j.epoch
		s.last = last
		j.live = append(j.live, s)
		j.used.Store(int64(len(j.live)) * int64(j.opt.SegmentBytes))
	}
	if begun != nil {
		begun.last = last
	}
	j.off, j.salt = off, salt
	return nil
}

// undo wipes the headers of a write that failed, the n bytes at off: all of it may be in the file. If it was the first
// of its log record, the next log record can take its place. Otherwise fragments of a log record that does not exist
// are in the file, and no other may be written among them.
func (j *Journal) undo(off int64, n int, first bool, cause error) error {
	if err := j.Err(); err != nil {
		return err
	}
	if _, err := j.file.WriteAt(zeros[:n], off); err == nil && first {
		return fmt.Errorf("journal: append: %w", cause)
	}
	return j.fail(cause)
}

// gather reads from several slices as if they were one.
type gather struct {
	parts [][]byte
	i     int // part
	off   int // in it
}

// read fills dst, for which there must be enough left.
func (g *gather) read(dst []byte) {
	for len(dst) > 0 {
		n := copy(dst, g.parts[g.i][g.off:])
		dst = dst[n:]
		if g.off += n; g.off == len(g.parts[g.i]) {
			g.i, g.off = g.i+1, 0
		}
	}
}

// faultError turns the panic of a store to a page that is no longer there into an error, and
// lets every other panic go on.
func faultError(r any) error {
	if e, ok := r.(runtime.Error); ok {
		if _, ok := r.(interface{ Addr() uintptr }); ok {
			return fmt.Errorf("file was cut off under its map: %w", e)
		}
	}
	panic(r)
}
