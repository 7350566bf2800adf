package journal

import (
	"fmt"
	"io"
)

// The window is the one part of the file that is mapped: the block that is being written is in it, and is copied to its
// place when it is full, and before each flush. To store to a map is cheap only as long as its pages are at hand. A
// page that is stored to for the first time since the last flush is a fault, and where the kernel runs above a
// hypervisor that keeps page tables of its own that is 12 us for each 4 KiB, half of all that a set took. The pages of
// the window stay at hand, and the copy costs 1 us for 4 KiB.
//
// What a crash leaves of a block may be in the window alone, or in its place alone: whichever goes on for longer
// counts.
type window struct {
	mem    []byte // one block; nil where there is no window
	copied int    // so many bytes from its front are in their place
}

// complete copies the rest of the block that is in the window to its place, which is at the offset at of the file: the
// block ends with end, and the next one begins. mu is held.
func (j *Journal) complete(at int64, end int) error {
	if j.window.mem == nil {
		return nil
	}
	if err := j.copyOut(at, end); err != nil {
		return err
	}
	j.window.copied = 0
	return nil
}

// copyOut copies what is new in the window, up to end, to its place at the offset at of the file.
func (j *Journal) copyOut(at int64, end int) error {
	w := &j.window
	// What is written there would make the file longer again, and hide that it was cut off.
	if err := j.file.Intact(j.fileSize.Load()); err != nil {
		return j.fail(err)
	}
	_, err := j.file.WriteAt(w.mem[w.copied:end], at+int64(w.copied))
	return err
}

// settle copies what is new in the window to its place, so that a flush has it. mu is held.
func (j *Journal) settle() error {
	w, end := &j.window, j.off%j.block
	if w.mem == nil || len(j.live) == 0 || w.copied >= end {
		return nil
	}
	at := j.live[len(j.live)-1].at + int64(j.off-end)
	tail := min(end+fragHeader, j.block) // the zeros that end the journal
	if err := j.copyOut(at, tail); err != nil {
		return err
	}
	w.copied = end
	return nil
}

// overlay reads a journal as if what is in its window were in its place.
type overlay struct {
	src    io.ReaderAt
	at     int64  // the place
	window []byte // as it was when the overlay was made
	size   int    // so many bytes from its front are whole fragments
	base   uint32
	number uint64
	epoch  uint64
}

// newOverlay returns src itself where the window has nothing. It reads the window before anything else is read: what is
// copied out of it later is found in its place.
func newOverlay(src io.ReaderAt, size int64, h *head) (io.ReaderAt, error) {
	if h.window == 0 {
		return src, nil
	}
	o := &overlay{src: src, window: make([]byte, h.blockBytes), base: h.base()}
	if _, err := readFull(src, o.window, headBytes); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if le.Uint32(o.window[4:]) != blockMagic {
		return src, nil
	}
	block := int64(h.blockBytes)
	blocks := min((size-h.front())/block, maxPlaces*int64(h.segmentBytes)/block)
	for n := range max(blocks, 0) {
		b, ok := decodeBlockHead(o.window, o.base, uint64(n))
		if !ok {
			continue
		}
		o.at, o.number, o.epoch = h.front()+n*block, uint64(n), b.epoch
		o.size = o.whole(o.window)
		return o, nil
	}
	return src, nil
}

// whole returns how far whole fragments go in a block that has the number and the epoch of the window's.
func (o *overlay) whole(b []byte) int {
	h, ok := decodeBlockHead(b, o.base, o.number)
	switch {
	case !ok || h.epoch < o.epoch:
		return 0
	case h.epoch > o.epoch:
		return len(b) // used anew since
	}
	salt, off := saltOf(o.base, o.number, o.epoch), blockHeader
	for {
		_, content, ok := openFragment(b[off:], salt)
		if !ok {
			return off
		}
		off += fragHeader + len(content)
	}
}

// ReadAt is that of an io.ReaderAt.
func (o *overlay) ReadAt(p []byte, at int64) (int, error) {
	n, err := o.src.ReadAt(p, at)
	from, to := max(at, o.at), min(at+int64(len(p)), o.at+int64(len(o.window)))
	if from >= to {
		return n, err
	}
	best := make([]byte, len(o.window))
	if _, err := readFull(o.src, best, o.at); err != nil {
		return n, err
	}
	if o.whole(best) < o.size {
		best = o.window
	}
	copy(p[from-at:], best[from-o.at:to-o.at])
	if n = max(n, int(to-at)); n == len(p) && err == io.EOF {
		err = nil
	}
	return n, err
}
