package journal

import (
	"bytes"
	"runtime"
	"slices"
	"testing"
)

// FuzzReplay feeds a replay with anything: with a file as it is, with segments behind a good head, and with segments of
// which the checksums are made right, so that what lies behind these is reached.
func FuzzReplay(f *testing.F) {
	h := head{version: plainVersion, blockBytes: 512, segmentBytes: 1024}
	front := make([]byte, headBytes)
	h.encode((*[headerSize]byte)(front))
	block := make([]byte, 512)
	(&blockHead{epoch: 1, flushed: 9}).encode(block, h.base(), 0)
	(&recordHead{first: 1, last: 1, length: 1 << 31}).encode(block[48:])
	sealFragment(block[40:], fragFirst, saltOf(h.base(), 0, 1))
	whole := bytes.Clone(block)
	le.PutUint32(whole[72:], 10)
	sealFragment(whole[40:40+minStart+10], fragFull, saltOf(h.base(), 0, 1))
	for mode := range byte(4) {
		f.Add([]byte{}, mode, uint64(0))
		f.Add(front[:headerSize], mode, uint64(0))
		f.Add(block, mode, uint64(0))
		f.Add(whole[:100], mode, uint64(0))
		f.Add(slices.Concat(block, block, whole, whole), mode, uint64(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, mode byte, after uint64) {
		switch mode % 4 {
		case 1:
			data = slices.Concat(front, data)
		case 2:
			data = slices.Concat(front, data)
			repair(data, &h)
		case 3: // the same in the window
			w := h
			w.version, w.window = windowVersion, windowBytes(512)
			framed := make([]byte, headBytes)
			w.encode((*[headerSize]byte)(framed))
			data = slices.Concat(front, data)
			repair(data, &h)
			blocks := data[headBytes:]
			window := make([]byte, w.window)
			if n := len(blocks) / 512; n > 0 {
				at := int(after%uint64(n)) * 512
				copy(window, blocks[at:at+512])
				clear(blocks[at+int(after%512) : at+512]) // so that the window has more of the block than its place
			}
			data = slices.Concat(framed, window, blocks)
		}
		var before, behind runtime.MemStats
		runtime.ReadMemStats(&before)
		last := uint64(0)
		r, err := ReplayFrom(bytes.NewReader(data), int64(len(data)), [16]byte{}, after,
			func(first, l uint64, record []byte) error {
				if first <= last || l < first || l <= after || len(record) > len(data) {
					t.Errorf("log record %d to %d of %d bytes after %d", first, l, len(record), last)
				}
				last = l
				return nil
			})
		runtime.ReadMemStats(&behind)
		if used := behind.TotalAlloc - before.TotalAlloc; used > uint64(8*len(data)+256<<10) {
			t.Errorf("%d bytes allocated for %d", used, len(data))
		}
		if err == nil && r.Holes > 0 && r.LostFirst > r.LostLast {
			t.Errorf("%+v", r)
		}
	})
}

// repair makes the checksums right of all that looks like a block or a fragment, and keeps the numbers small.
func repair(data []byte, h *head) {
	base := h.base()
	for n := 0; headBytes+n*512+blockHeader <= len(data); n++ {
		b := data[headBytes+n*512:]
		b = b[:min(512, len(b))]
		if b[0] == 0 && b[1] == 0 {
			continue
		}
		bh := blockHead{epoch: uint64(b[8]), flushed: uint64(b[16]), released: uint64(b[24] & 1), previous: uint64(b[32])}
		bh.encode(b, base, uint64(n))
		salt := saltOf(base, uint64(n), bh.epoch)
		for off := blockHeader; off+fragHeader < len(b); {
			size := fragHeader + int(le.Uint16(b[off+4:])&511)
			if size == fragHeader || off+size > len(b) || b[off+7] != 0 {
				break
			}
			typ := b[off+6]&3 + 1
			if (typ == fragFull || typ == fragFirst) && size >= minStart {
				p := b[off+fragHeader:]
				clear(p[1:8])
				clear(p[9:16])
				clear(p[17:24])
				if typ == fragFull {
					le.PutUint32(p[24:], uint32(size-minStart))
				}
			}
			sealFragment(b[off:off+size], typ, salt)
			off += size
		}
	}
}
