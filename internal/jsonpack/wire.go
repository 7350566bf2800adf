package jsonpack

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// kind is what a msgpack value is to JSON.
type kind uint8

const (
	kindBad     kind = iota // truncated, or outside the strict subset
	kindNil                 // null
	kindBool                // bits is 0 or 1
	kindInt                 // bits is an int64 in two's complement
	kindUint                // bits is a uint64 above MaxInt64
	kindFloat32             // bits is a finite IEEE 754 single
	kindFloat64             // bits is a finite IEEE 754 double
	kindStr                 // n bytes of text follow
	kindBin                 // n raw bytes follow; JSON sees their base64 text
	kindNum                 // n bytes of a JSON number literal follow
	kindArray               // n values follow
	kindMap                 // n pairs follow
)

// class tells how the bytes behind a format code are laid out.
type class uint8

const (
	classBad class = iota
	classPosFix
	classNegFix
	classNil
	classFalse
	classTrue
	classUint8
	classUint16
	classUint32
	classUint64
	classInt8
	classInt16
	classInt32
	classInt64
	classFloat32
	classFloat64
	classFixStr
	classStr8
	classStr16
	classStr32
	classBin8
	classBin16
	classBin32
	classFixExt
	classExt8
	classExt16
	classExt32
	classFixArray
	classArray16
	classArray32
	classFixMap
	classMap16
	classMap32
)

// code describes one format code.
type code struct {
	class class
	arg   uint8 // the length or count that is part of the code itself
	size  uint8 // the whole value's bytes where the code alone decides it and any content is valid, else 0
}

// codes has an entry for each of the 256 first bytes a value can have.
var codes = func() (t [256]code) {
	for c := range 256 {
		b := byte(c)
		switch {
		case b <= msgpcode.PosFixedNumHigh:
			t[c] = code{classPosFix, b, 1}
		case b >= msgpcode.NegFixedNumLow:
			t[c] = code{classNegFix, b, 1}
		case msgpcode.IsFixedString(b):
			n := b & msgpcode.FixedStrMask
			t[c] = code{classFixStr, n, n + 1}
		case msgpcode.IsFixedArray(b):
			t[c] = code{classFixArray, b & msgpcode.FixedArrayMask, 0}
		case msgpcode.IsFixedMap(b):
			t[c] = code{classFixMap, b & msgpcode.FixedMapMask, 0}
		}
	}
	t[msgpcode.Nil] = code{classNil, 0, 1}
	t[msgpcode.False] = code{classFalse, 0, 1}
	t[msgpcode.True] = code{classTrue, 0, 1}
	t[msgpcode.Uint8] = code{classUint8, 0, 2}
	t[msgpcode.Uint16] = code{classUint16, 0, 3}
	t[msgpcode.Uint32] = code{classUint32, 0, 5}
	t[msgpcode.Uint64] = code{classUint64, 0, 9}
	t[msgpcode.Int8] = code{classInt8, 0, 2}
	t[msgpcode.Int16] = code{classInt16, 0, 3}
	t[msgpcode.Int32] = code{classInt32, 0, 5}
	t[msgpcode.Int64] = code{classInt64, 0, 9}
	t[msgpcode.Float] = code{classFloat32, 0, 0}
	t[msgpcode.Double] = code{classFloat64, 0, 0}
	t[msgpcode.Str8] = code{classStr8, 0, 0}
	t[msgpcode.Str16] = code{classStr16, 0, 0}
	t[msgpcode.Str32] = code{classStr32, 0, 0}
	t[msgpcode.Bin8] = code{classBin8, 0, 0}
	t[msgpcode.Bin16] = code{classBin16, 0, 0}
	t[msgpcode.Bin32] = code{classBin32, 0, 0}
	t[msgpcode.FixExt1] = code{classFixExt, 1, 0}
	t[msgpcode.FixExt2] = code{classFixExt, 2, 0}
	t[msgpcode.FixExt4] = code{classFixExt, 4, 0}
	t[msgpcode.FixExt8] = code{classFixExt, 8, 0}
	t[msgpcode.FixExt16] = code{classFixExt, 16, 0}
	t[msgpcode.Ext8] = code{classExt8, 0, 0}
	t[msgpcode.Ext16] = code{classExt16, 0, 0}
	t[msgpcode.Ext32] = code{classExt32, 0, 0}
	t[msgpcode.Array16] = code{classArray16, 0, 0}
	t[msgpcode.Array32] = code{classArray32, 0, 0}
	t[msgpcode.Map16] = code{classMap16, 0, 0}
	t[msgpcode.Map32] = code{classMap32, 0, 0}
	return t
}()

// head is the start of a value: its kind and what its first bytes say.
type head struct {
	bits uint64
	n    int
	kind kind
}

// readHead reads the start of the value at data[off:]. The content of a
// string, a binary or a number starts at next and is known to lie within data;
// of a container only that its count is possible in the bytes that are left.
// A bad value gives kindBad.
func readHead(data []byte, off int) (h head, next int) {
	if uint(off) >= uint(len(data)) {
		return head{}, off
	}
	c := codes[data[off]]
	off++
	rest := data[off:]
	switch c.class {
	case classPosFix:
		return head{kind: kindInt, bits: uint64(c.arg)}, off
	case classNegFix:
		return head{kind: kindInt, bits: uint64(int64(int8(c.arg)))}, off
	case classFixStr:
		return sized(kindStr, uint64(c.arg), rest, off)
	case classFixArray:
		return counted(kindArray, uint64(c.arg), rest, off)
	case classFixMap:
		return counted(kindMap, uint64(c.arg), rest, off)
	case classNil:
		return head{kind: kindNil}, off
	case classFalse:
		return head{kind: kindBool}, off
	case classTrue:
		return head{kind: kindBool, bits: 1}, off
	case classUint8, classInt8, classStr8, classBin8, classExt8:
		if len(rest) >= 1 {
			return wideHead(c.class, uint64(rest[0]), rest[1:], off+1)
		}
	case classUint16, classInt16, classStr16, classBin16, classExt16, classArray16, classMap16:
		if len(rest) >= 2 {
			return wideHead(c.class, uint64(binary.BigEndian.Uint16(rest)), rest[2:], off+2)
		}
	case classUint32, classInt32, classStr32, classBin32, classExt32, classArray32, classMap32, classFloat32:
		if len(rest) >= 4 {
			return wideHead(c.class, uint64(binary.BigEndian.Uint32(rest)), rest[4:], off+4)
		}
	case classUint64, classInt64, classFloat64:
		if len(rest) >= 8 {
			return wideHead(c.class, binary.BigEndian.Uint64(rest), rest[8:], off+8)
		}
	case classFixExt:
		return ext(uint64(c.arg), rest, off)
	}
	return head{}, off
}

// wideHead finishes readHead where x, a number or a length, followed the code.
func wideHead(c class, x uint64, rest []byte, off int) (head, int) {
	switch c {
	case classUint8, classUint16, classUint32:
		return head{kind: kindInt, bits: x}, off
	case classUint64:
		if x > math.MaxInt64 {
			return head{kind: kindUint, bits: x}, off
		}
		return head{kind: kindInt, bits: x}, off
	case classInt8:
		return head{kind: kindInt, bits: uint64(int64(int8(x)))}, off
	case classInt16:
		return head{kind: kindInt, bits: uint64(int64(int16(x)))}, off
	case classInt32:
		return head{kind: kindInt, bits: uint64(int64(int32(x)))}, off
	case classInt64:
		return head{kind: kindInt, bits: x}, off
	case classFloat32:
		if x&0x7f800000 != 0x7f800000 {
			return head{kind: kindFloat32, bits: x}, off
		}
	case classFloat64:
		if x&0x7ff0000000000000 != 0x7ff0000000000000 {
			return head{kind: kindFloat64, bits: x}, off
		}
	case classStr8, classStr16, classStr32:
		return sized(kindStr, x, rest, off)
	case classBin8, classBin16, classBin32:
		return sized(kindBin, x, rest, off)
	case classExt8, classExt16, classExt32:
		return ext(x, rest, off)
	case classArray16, classArray32:
		return counted(kindArray, x, rest, off)
	case classMap16, classMap32:
		return counted(kindMap, x, rest, off)
	}
	return head{}, off
}

func sized(k kind, n uint64, rest []byte, off int) (head, int) {
	if n > uint64(len(rest)) {
		return head{}, off
	}
	return head{kind: k, n: int(n)}, off
}

func counted(k kind, n uint64, rest []byte, off int) (head, int) {
	least := n
	if k == kindMap {
		least = 2 * n // a key and a value have a byte each
	}
	if least > uint64(len(rest)) {
		return head{}, off
	}
	return head{kind: k, n: int(n)}, off
}

func ext(n uint64, rest []byte, off int) (head, int) {
	if len(rest) < 1 || rest[0] != numberExt || n > maxNumberBytes {
		return head{}, off
	}
	return sized(kindNum, n, rest[1:], off+1)
}

// skipValue returns the offset behind the value at data[off:], or -1 if it is
// damaged. It does not recurse and needs no depth bound.
func skipValue(data []byte, off int) int {
	for pending := uint64(1); pending > 0; pending-- {
		if uint(off) >= uint(len(data)) {
			return -1
		}
		if size := codes[data[off]].size; size != 0 {
			off += int(size)
			continue
		}
		h, next := readHead(data, off)
		switch h.kind {
		case kindBad:
			return -1
		case kindArray:
			pending += uint64(h.n)
		case kindMap:
			pending += 2 * uint64(h.n)
		default:
			next += h.n
		}
		off = next
	}
	if off > len(data) {
		return -1
	}
	return off
}

// appendInt appends n in the fewest bytes.
func appendInt(dst []byte, n int64) []byte {
	switch {
	case n >= 0:
		return appendUint(dst, uint64(n))
	case n >= -32:
		return append(dst, byte(n))
	case n >= math.MinInt8:
		return append(dst, msgpcode.Int8, byte(n))
	case n >= math.MinInt16:
		return append(dst, msgpcode.Int16, byte(n>>8), byte(n))
	case n >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(dst, msgpcode.Int32), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, msgpcode.Int64), uint64(n))
}

// appendUint appends n in the fewest bytes.
func appendUint(dst []byte, n uint64) []byte {
	switch {
	case n <= math.MaxInt8:
		return append(dst, byte(n))
	case n <= math.MaxUint8:
		return append(dst, msgpcode.Uint8, byte(n))
	case n <= math.MaxUint16:
		return append(dst, msgpcode.Uint16, byte(n>>8), byte(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, msgpcode.Uint32), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, msgpcode.Uint64), n)
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, msgpcode.True)
	}
	return append(dst, msgpcode.False)
}

// appendFloat64 appends f, which is finite.
func appendFloat64(dst []byte, f float64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, msgpcode.Double), math.Float64bits(f))
}

// appendFloat32 appends f, which is finite.
func appendFloat32(dst []byte, f float32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, msgpcode.Float), math.Float32bits(f))
}

// appendStrHead appends the head of a string of n bytes, at most MaxUint32.
func appendStrHead(dst []byte, n int) []byte {
	switch {
	case n < 32:
		return append(dst, msgpcode.FixedStrLow|byte(n))
	case n <= math.MaxUint8:
		return append(dst, msgpcode.Str8, byte(n))
	case n <= math.MaxUint16:
		return append(dst, msgpcode.Str16, byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, msgpcode.Str32), uint32(n))
}

// appendBinHead appends the head of n raw bytes, at most MaxUint32.
func appendBinHead(dst []byte, n int) []byte {
	switch {
	case n <= math.MaxUint8:
		return append(dst, msgpcode.Bin8, byte(n))
	case n <= math.MaxUint16:
		return append(dst, msgpcode.Bin16, byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, msgpcode.Bin32), uint32(n))
}

// appendArrayHead appends the head of an array of n values, at most MaxUint32.
func appendArrayHead(dst []byte, n int) []byte {
	switch {
	case n < 16:
		return append(dst, msgpcode.FixedArrayLow|byte(n))
	case n <= math.MaxUint16:
		return append(dst, msgpcode.Array16, byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, msgpcode.Array32), uint32(n))
}

// appendMapHead appends the head of a map of n pairs, at most MaxUint32.
func appendMapHead(dst []byte, n int) []byte {
	switch {
	case n < 16:
		return append(dst, msgpcode.FixedMapLow|byte(n))
	case n <= math.MaxUint16:
		return append(dst, msgpcode.Map16, byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, msgpcode.Map32), uint32(n))
}

// appendNumber appends a number literal of at most maxNumberBytes.
func appendNumber[T string | []byte](dst []byte, lit T) []byte {
	switch n := len(lit); {
	case n <= math.MaxUint8:
		dst = append(dst, msgpcode.Ext8, byte(n))
	case n <= math.MaxUint16:
		dst = append(dst, msgpcode.Ext16, byte(n>>8), byte(n))
	default:
		dst = binary.BigEndian.AppendUint32(append(dst, msgpcode.Ext32), uint32(n))
	}
	dst = append(dst, numberExt)
	return append(dst, lit...)
}

// coercedLen returns the length of s with each byte that is not UTF-8 replaced
// by U+FFFD.
func coercedLen[T string | []byte](s T) int {
	n := 0
	for i := 0; i < len(s); {
		r, size := decodeRune(s, i)
		if r == utf8.RuneError && size == 1 {
			n += len("\ufffd")
		} else {
			n += size
		}
		i += size
	}
	return n
}

// appendCoerced appends s with each byte that is not UTF-8 replaced by U+FFFD.
func appendCoerced[T string | []byte](dst []byte, s T) []byte {
	for i := 0; i < len(s); {
		r, size := decodeRune(s, i)
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, "\ufffd"...)
		} else {
			dst = append(dst, s[i:i+size]...)
		}
		i += size
	}
	return dst
}

func decodeRune[T string | []byte](s T, i int) (rune, int) {
	// At most four bytes are copied, so the conversion stays on the stack.
	return utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
}
