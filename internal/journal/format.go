package journal

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	plainVersion  = 1 // without a window
	windowVersion = 2

	headBytes  = 16 << 10 // a multiple of the page size on most systems, so that segments can be mapped
	headerSize = 64
	headerCopy = 8 << 10 // in another page than the first: one bad page does not take both

	blockHeader  = 40
	fragHeader   = 8
	recordHeader = 28
	minStart     = fragHeader + recordHeader // room without which no log record begins in a block

	minBlock   = 512 // one sector
	maxBlock   = 32 << 10
	maxSegment = 1 << 30

	blockMagic = 0x31424a4b // "KJB1"
)

const (
	fragFull   = 1
	fragFirst  = 2
	fragMiddle = 3
	fragLast   = 4
)

var (
	fileMagic  = [8]byte{'K', 'C', 'J', 'R', 'N', 'L', '\r', '\n'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// head is the content of the file's head.
type head struct {
	version      uint32
	blockBytes   uint32
	identity     [16]byte
	segmentBytes uint32
	window       uint32 // bytes between the head and the first segment; 0 in version 1
	start        uint64
	nonce        uint64
}

// front is where the segments begin.
func (h *head) front() int64 { return headBytes + int64(h.window) }

func (h *head) encode(b *[headerSize]byte) {
	*b = [headerSize]byte{}
	copy(b[:], fileMagic[:])
	le.PutUint32(b[8:], h.version)
	le.PutUint32(b[12:], h.blockBytes)
	copy(b[16:], h.identity[:])
	le.PutUint32(b[32:], h.segmentBytes)
	le.PutUint32(b[36:], h.window)
	le.PutUint64(b[40:], h.start)
	le.PutUint64(b[48:], h.nonce)
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
}

// decodeHead reports false unless magic and checksum are right. The other fields are of use only if the
// version is ours.
func decodeHead(b []byte) (h head, ok bool) {
	if len(b) < headerSize || [8]byte(b) != fileMagic || le.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return head{}, false
	}
	return head{
		version:      le.Uint32(b[8:]),
		blockBytes:   le.Uint32(b[12:]),
		identity:     [16]byte(b[16:]),
		segmentBytes: le.Uint32(b[32:]),
		window:       le.Uint32(b[36:]),
		start:        le.Uint64(b[40:]),
		nonce:        le.Uint64(b[48:]),
	}, true
}

// sane reports whether the sizes are ones that its version has.
func (h *head) sane() bool {
	b, s, w := h.blockBytes, h.segmentBytes, uint32(0)
	if h.version == windowVersion {
		w = windowBytes(int(b))
	}
	return b >= minBlock && b <= maxBlock && b&(b-1) == 0 && s >= b && s <= maxSegment && s%b == 0 && h.window == w
}

// windowBytes is what a window of one block takes of the file: whole pages.
func windowBytes(block int) uint32 { return uint32(max(block, segmentStep)) }

// base is the beginning of every salt of one file.
func (h *head) base() uint32 {
	var b [24]byte
	copy(b[:], h.identity[:])
	le.PutUint64(b[16:], h.nonce)
	return crc32.Checksum(b[:], castagnoli)
}

// saltOf is S(block, epoch) of the format.
func saltOf(base uint32, block, epoch uint64) uint32 {
	var b [16]byte
	le.PutUint64(b[:], block)
	le.PutUint64(b[8:], epoch)
	return crc32.Update(base, castagnoli, b[:])
}

// blockHead is the content of a block's header.
type blockHead struct {
	epoch    uint64
	flushed  uint64
	released uint64
	previous uint64
}

func (h *blockHead) encode(b []byte, base uint32, block uint64) {
	b = b[:blockHeader]
	le.PutUint32(b[4:], blockMagic)
	le.PutUint64(b[8:], h.epoch)
	le.PutUint64(b[16:], h.flushed)
	le.PutUint64(b[24:], h.released)
	le.PutUint64(b[32:], h.previous)
	le.PutUint32(b, crc32.Update(saltOf(base, block, 0), castagnoli, b[4:]))
}

func decodeBlockHead(b []byte, base uint32, block uint64) (h blockHead, ok bool) {
	if len(b) < blockHeader || le.Uint32(b[4:]) != blockMagic {
		return blockHead{}, false
	}
	b = b[:blockHeader]
	if le.Uint32(b) != crc32.Update(saltOf(base, block, 0), castagnoli, b[4:]) {
		return blockHead{}, false
	}
	return blockHead{
		epoch:    le.Uint64(b[8:]),
		flushed:  le.Uint64(b[16:]),
		released: le.Uint64(b[24:]),
		previous: le.Uint64(b[32:]),
	}, true
}

// recordHead is what the first fragment of a log record begins with.
type recordHead struct {
	first, last, flushed uint64
	length               uint32
}

func (h *recordHead) encode(b []byte) {
	b = b[:recordHeader]
	le.PutUint64(b, h.first)
	le.PutUint64(b[8:], h.last)
	le.PutUint64(b[16:], h.flushed)
	le.PutUint32(b[24:], h.length)
}

func decodeRecordHead(b []byte) recordHead {
	b = b[:recordHeader]
	return recordHead{first: le.Uint64(b), last: le.Uint64(b[8:]), flushed: le.Uint64(b[16:]), length: le.Uint32(b[24:])}
}

// sealFragment fills in the header of the fragment f, whose content is in place.
func sealFragment(f []byte, typ byte, salt uint32) {
	le.PutUint16(f[4:], uint16(len(f)-fragHeader))
	f[6], f[7] = typ, 0
	le.PutUint32(f, crc32.Update(salt, castagnoli, f[4:]))
}

// openFragment takes the fragment at the beginning of b. It reports false if there is none, or a bad one.
func openFragment(b []byte, salt uint32) (typ byte, content []byte, ok bool) {
	if len(b) < fragHeader {
		return 0, nil, false
	}
	n := fragHeader + int(le.Uint16(b[4:]))
	typ = b[6]
	if n > len(b) || n == fragHeader || typ < fragFull || typ > fragLast || b[7] != 0 {
		return 0, nil, false
	}
	if (typ == fragFull || typ == fragFirst) && n < minStart {
		return 0, nil, false
	}
	if le.Uint32(b) != crc32.Update(salt, castagnoli, b[4:n]) {
		return 0, nil, false
	}
	return typ, b[fragHeader:n], true
}
