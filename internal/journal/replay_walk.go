package journal

// run goes through the blocks in the order in which they were written.
func (r *replay) run() error {
	each := r.segment / int64(r.block)
	start := 0
	for i := 1; i < len(r.order); i++ {
		if p := r.order[i]; p.hasFirst && p.firstPrev <= r.after {
			start = i // all that comes before has been taken over
		}
	}
	r.stray = true
	for i := start; i < len(r.order); i++ {
		p := r.order[i]
		next := i > start && p.epoch == r.order[i-1].epoch+1
		for k := int64(0); k < each; k++ {
			stop, err := r.walkBlock(i, k, k > 0 || next)
			if err != nil {
				return err
			}
			if stop {
				return nil
			}
		}
	}
	if r.open {
		if stop, err := r.bad(len(r.order), 0, 0, false); stop || err != nil {
			return err
		}
	}
	if r.lost {
		r.found(r.Flushed)
	}
	return nil
}

// walkBlock reads block k of the segment at place i. next says that it is the successor of the block before. It reports
// true at the end of the journal.
func (r *replay) walkBlock(i int, k int64, next bool) (stop bool, err error) {
	p := r.order[i]
	h, ok, err := r.readBlock(p, k, r.buf)
	if err != nil {
		return false, err
	}
	if !ok {
		unused := h.epoch > 0 || isZero(r.buf[:blockHeader])
		return r.bad(i, k, r.block, unused)
	}
	if r.open && !next || !r.lost && h.previous > r.known() {
		// Blocks between the one before and this are missing altogether.
		if stop, err := r.bad(i, k, 0, false); stop || err != nil {
			return stop, err
		}
	}
	if r.lost && h.epoch != 0 {
		r.found(h.previous)
	}
	salt := saltOf(r.base, r.number(p, k), p.epoch)
	for off := blockHeader; r.block-off >= fragHeader; {
		if !r.open && r.block-off < minStart {
			break
		}
		typ, content, ok := openFragment(r.buf[off:], salt)
		if !ok {
			rest := 0
			if r.open {
				rest = int(r.record.length) - len(r.data)
			}
			size := skip(r.buf[off:], salt, rest)
			stop, err := r.bad(i, k, size, isZero(r.buf[off:off+fragHeader]))
			if stop || err != nil {
				return stop, err
			}
			off += size
			continue
		}
		fits, err := r.fragment(typ, content)
		if err != nil {
			return false, err
		}
		if !fits {
			return r.bad(i, k, r.block-off, false)
		}
		off += fragHeader + len(content)
	}
	return false, nil
}

// skip returns the distance in bytes from a bad fragment to the next good one in its block, or to the end of b, which
// is that of the block. The length of a fragment is mostly known twice, and mostly neither is what is bad. rest is what
// is missing of the log record that is begun, in bytes, or 0.
func skip(b []byte, salt uint32, rest int) int {
	if len(b) < minStart {
		return len(b)
	}
	again := minStart + int(decodeRecordHead(b[fragHeader:]).length&(maxBlock-1))
	if rest > 0 {
		again = fragHeader + rest
	}
	for _, n := range [2]int{fragHeader + int(le.Uint16(b[4:])), again} {
		if n >= len(b) {
			continue
		}
		if typ, _, ok := openFragment(b[n:], salt); ok && (typ == fragFull || typ == fragFirst) {
			return n
		}
	}
	return len(b)
}

// fragment takes one fragment. It reports false if it does not fit what came before.
func (r *replay) fragment(typ byte, content []byte) (bool, error) {
	if typ == fragMiddle || typ == fragLast {
		if !r.open {
			return r.stray || r.lost, nil
		}
		have := len(r.data) + len(content)
		if have > int(r.record.length) || (typ == fragLast) != (have == int(r.record.length)) {
			return false, nil
		}
		r.data = append(r.data, content...)
		if typ == fragMiddle {
			return true, nil
		}
		r.open = false
		return true, r.apply(r.record, r.data)
	}
	h := decodeRecordHead(content)
	content = content[recordHeader:]
	if r.lost && h.first > r.seen {
		r.found(h.first - 1)
	}
	whole := int64(h.length) == int64(len(content))
	if r.open || h.last < h.first || h.first <= r.seen || whole != (typ == fragFull) ||
		int64(h.length) < int64(len(content)) || int64(h.length) > r.size {
		return false, nil
	}
	r.stray = false
	if typ == fragFull {
		return true, r.apply(h, content)
	}
	r.open, r.record = true, h
	r.data = append(r.data[:0], content...)
	return true, nil
}

// isZero reports whether b holds nothing but zeros.
func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// known returns the sequence up to which all is accounted for, the log record that is begun included.
func (r *replay) known() uint64 {
	if r.open {
		return max(r.record.last, r.after)
	}
	return max(r.seen, r.after)
}

// apply hands on one log record.
func (r *replay) apply(h recordHead, data []byte) error {
	r.seen = h.last
	r.Flushed = max(r.Flushed, h.flushed)
	if h.last <= r.after {
		r.Skipped++
		return nil
	}
	if r.Applied == 0 {
		r.First = h.first
	}
	r.Last = h.last
	r.Applied++
	r.RecordBytes += int64(len(data))
	return r.fn(h.first, h.last, data)
}

// bad is called where what should follow does not, in block k of the segment at place i. size is what is given up, in
// bytes, unless it was never used. It reports true if that is the end of the journal, and otherwise begins the search
// for a block that is readable.
func (r *replay) bad(i int, k int64, size int, unused bool) (stop bool, err error) {
	torn := r.open || !unused
	r.open = false
	if err := r.lookAhead(i, k); err != nil {
		return false, err
	}
	if !r.lost && r.Flushed <= r.known() {
		r.Torn = torn
		return true, nil
	}
	if !r.lost {
		r.lostAt = r.size
		if i < len(r.order) {
			r.lostAt = r.front + r.order[i].index*r.segment + k*int64(r.block)
		}
	}
	r.lost = true
	if !unused {
		r.lostSize += int64(size)
	}
	return false, nil
}

// found ends the search, at a place before which nothing above previous was lost.
func (r *replay) found(previous uint64) {
	if known := r.known(); previous > known {
		if r.Holes == 0 {
			r.LostFirst, r.HoleAt = known+1, r.lostAt
		}
		r.Holes++
		r.LostLast = previous
		r.LostBytes += r.lostSize
		r.seen = previous
	}
	r.lost, r.stray, r.lostSize = false, true, 0
}

// lookAhead completes Flushed with what the log records from block k of the segment at place i on say. It does so once.
func (r *replay) lookAhead(i int, k int64) error {
	if r.looked {
		return nil
	}
	r.looked = true
	buf := make([]byte, r.block)
	for ; i < len(r.order); i, k = i+1, 0 {
		p := r.order[i]
		for ; k < r.segment/int64(r.block); k++ {
			_, ok, err := r.readBlock(p, k, buf)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			salt := saltOf(r.base, r.number(p, k), p.epoch)
			for off := blockHeader; off < r.block; {
				typ, content, ok := openFragment(buf[off:], salt)
				if !ok {
					off += skip(buf[off:], salt, 0)
					continue
				}
				if typ == fragFull || typ == fragFirst {
					r.Flushed = max(r.Flushed, decodeRecordHead(content).flushed)
				}
				off += fragHeader + len(content)
			}
		}
	}
	return nil
}
