package jsonpack

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Scan proves that data is exactly one value of the subset of msgpack that
// Append writes: null, booleans, integers of any width, finite floats, strings
// of UTF-8, binaries, arrays, maps with string keys, and the number extension, with every
// length within the rest of data, at most MaxDepth levels of nesting and no
// byte behind the value. It returns ErrCorrupt otherwise.
//
// Scan neither recurses nor allocates, except a few KiB for deep nesting.
func Scan(data []byte) error {
	// A level is the number of values that are still to come in it, doubled,
	// plus one for a map. In a map a key is next when that number is even.
	var shallow [32]uint64
	stack := shallow[:0]
	level := uint64(1) << 1
	off := 0
	for {
		for level < 2 {
			if len(stack) == 0 {
				if off < len(data) {
					return corrupt("bytes behind the value", off)
				}
				if off > len(data) {
					return corrupt("value cut short", len(data))
				}
				return nil
			}
			level = stack[len(stack)-1]
			stack = stack[:len(stack)-1]
		}
		if off >= len(data) {
			return corrupt("value cut short", len(data))
		}
		c := codes[data[off]]
		if level&3 == 1 && (c.class < classFixStr || c.class > classStr32) {
			return corrupt("map key is no string", off)
		}
		level -= 2
		if c.size != 0 {
			end := off + int(c.size)
			if c.class == classFixStr && end <= len(data) && !isASCII(data[off+1:end]) && !utf8.Valid(data[off+1:end]) {
				return corrupt("string is no UTF-8", off)
			}
			off = end
			continue
		}
		h, next := readHead(data, off)
		switch h.kind {
		case kindBad:
			return corrupt("unknown or impossible value", off)
		case kindArray, kindMap:
			if len(stack) == MaxDepth {
				return corrupt("nested too deeply", off)
			}
			stack = append(stack, level)
			level = uint64(h.n) << 1
			if h.kind == kindMap {
				level = uint64(h.n)<<2 | 1
			}
		case kindNum:
			if !validNumber(data[next : next+h.n]) {
				return corrupt("malformed number", off)
			}
			next += h.n
		case kindStr:
			if !utf8.Valid(data[next : next+h.n]) {
				return corrupt("string is no UTF-8", off)
			}
			next += h.n
		default:
			next += h.n
		}
		off = next
	}
}

func corrupt(cause string, off int) error {
	return fmt.Errorf("%w: %s at byte %d", ErrCorrupt, cause, off)
}

// isASCII reports whether no byte of s has its highest bit set. It is made for
// short strings, at which utf8.Valid is slow.
func isASCII(s []byte) bool {
	const high = 0x8080808080808080
	for len(s) >= 8 {
		if binary.LittleEndian.Uint64(s)&high != 0 {
			return false
		}
		s = s[8:]
	}
	var all byte
	for _, c := range s {
		all |= c
	}
	return all < utf8.RuneSelf
}
