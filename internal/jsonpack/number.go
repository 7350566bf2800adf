package jsonpack

import (
	"bytes"
	"math"
	"strconv"
)

// numberExt is the type of the one msgpack extension that is used. Its content
// is a JSON number literal (RFC 8259, section 6) that no int64, uint64 or
// float64 renders as: 1.50, 1e2, 10^40. It keeps a json.Number and a big.Int exact.
const numberExt = 'N'

// maxNumberBytes bounds such a literal, because what reads one may take more
// than linear time.
const maxNumberBytes = 1 << 20

// numberEnd returns the offset behind the JSON number literal at s[i:], or -1
// if there is none.
func numberEnd[T string | []byte](s T, i int) int {
	digits := func() bool {
		start := i
		for i < len(s) && '0' <= s[i] && s[i] <= '9' {
			i++
		}
		return i > start
	}
	if i < len(s) && s[i] == '-' {
		i++
	}
	if i < len(s) && s[i] == '0' {
		i++
	} else if !digits() {
		return -1
	}
	if i < len(s) && s[i] == '.' {
		if i++; !digits() {
			return -1
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		if i++; i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if !digits() {
			return -1
		}
	}
	return i
}

// validNumber reports whether s is exactly one JSON number literal.
func validNumber[T string | []byte](s T) bool {
	return numberEnd(s, 0) == len(s) // -1 for the empty string, whose length is 0
}

// isInteger reports whether the number literal has neither fraction nor exponent.
func isInteger[T string | []byte](lit T) bool {
	for i := range len(lit) {
		if c := lit[i]; c == '.' || c == 'e' || c == 'E' {
			return false
		}
	}
	return true
}

// FloatForm reports whether lit is how a Reader and AppendJSON write a float without a
// fraction, 1.0 or -0.0, and returns it.
func FloatForm(lit []byte) (f float64, ok bool) {
	whole, ok := bytes.CutSuffix(lit, []byte(".0"))
	if !ok || len(whole) > 22 { // a float from 1e21 on has an exponent
		return 0, false
	}
	f, err := strconv.ParseFloat(string(lit), 64)
	if err != nil || math.Abs(f) >= 1e21 {
		return 0, false
	}
	var buf [32]byte
	return f, string(appendJSONFloat(buf[:0], f, 64)) == string(whole)
}

// appendLiteral appends the value of a valid number literal: as an integer or a
// float64 where that renders as the very same literal, else as the literal.
func appendLiteral[T string | []byte](dst []byte, lit T) []byte {
	if isInteger(lit) {
		neg := lit[0] == '-'
		digits := lit
		if neg {
			digits = lit[1:]
		}
		if n, ok := parseDigits(digits); ok {
			switch {
			case !neg:
				return appendUint(dst, n)
			case n == 0:
				return appendFloat64(dst, math.Copysign(0, -1)) // which renders as -0
			case n <= 1<<63:
				return appendInt(dst, -int64(n))
			}
		}
		return appendNumber(dst, lit)
	}
	if len(lit) <= 32 { // no float64 renders as a longer literal with a fraction or an exponent
		var buf [40]byte
		f, err := strconv.ParseFloat(string(lit), 64)
		if err == nil && string(appendJSONFloat(buf[:0], f, 64)) == string(lit) {
			return appendFloat64(dst, f)
		}
	}
	return appendNumber(dst, lit)
}

// parseDigits returns the value of a string of digits, and false if it is
// beyond 64 bits.
func parseDigits[T string | []byte](s T) (n uint64, ok bool) {
	if len(s) > 20 {
		return 0, false
	}
	for i := range len(s) {
		d := uint64(s[i] - '0')
		if n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// appendJSONFloat appends the literal that encoding/json writes for f, which is
// finite and has bits (32 or 64) bits: the shortest that reads back as f, with
// an exponent only below 1e-6 and from 1e21 on.
func appendJSONFloat(dst []byte, f float64, bits int) []byte {
	abs := math.Abs(f)
	small, large := abs < 1e-6, abs >= 1e21
	if bits == 32 {
		small, large = float32(abs) < 1e-6, float32(abs) >= 1e21
	}
	if abs == 0 || !small && !large {
		return strconv.AppendFloat(dst, f, 'f', -1, bits)
	}
	dst = strconv.AppendFloat(dst, f, 'e', -1, bits)
	// An exponent has no leading zero: e-07 is written e-7.
	if n := len(dst); n >= 4 && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
		dst[n-2] = dst[n-1]
		dst = dst[:n-1]
	}
	return dst
}

// appendText appends the literal of the number with head h; lit is the content
// of a kindNum.
func (h head) appendText(dst, lit []byte) []byte {
	switch h.kind {
	case kindInt:
		return strconv.AppendInt(dst, int64(h.bits), 10)
	case kindUint:
		return strconv.AppendUint(dst, h.bits, 10)
	case kindFloat32:
		return appendJSONFloat(dst, float64(math.Float32frombits(uint32(h.bits))), 32)
	case kindFloat64:
		return appendJSONFloat(dst, math.Float64frombits(h.bits), 64)
	}
	return append(dst, lit...)
}

// The conversions below take the direct way where it is provably the same as
// reading the number's literal, and report false where the literal must be read.

// int64 converts h to an integer.
func (h head) int64() (int64, bool) {
	switch h.kind {
	case kindInt:
		return int64(h.bits), true
	case kindFloat64:
		// Below 2^53 the shortest literal of an integral float has all its digits.
		f := math.Float64frombits(h.bits)
		if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return int64(f), true
		}
	case kindFloat32:
		f := math.Float32frombits(uint32(h.bits))
		if n := int64(f); f > -(1<<24) && f < 1<<24 && float32(n) == f {
			return n, true
		}
	}
	return 0, false
}

// uint64 converts h to an unsigned integer. The literal -0 is not one.
func (h head) uint64() (uint64, bool) {
	switch h.kind {
	case kindInt:
		return h.bits, int64(h.bits) >= 0
	case kindUint:
		return h.bits, true
	case kindFloat64:
		n, ok := h.int64()
		return uint64(n), ok && !math.Signbit(math.Float64frombits(h.bits))
	case kindFloat32:
		n, ok := h.int64()
		return uint64(n), ok && !math.Signbit(float64(math.Float32frombits(uint32(h.bits))))
	}
	return 0, false
}

// float64 converts h to a float64.
func (h head) float64() (float64, bool) {
	switch h.kind {
	case kindInt:
		return float64(int64(h.bits)), true
	case kindFloat64:
		return math.Float64frombits(h.bits), true
	case kindFloat32:
		if n, ok := h.int64(); ok && n != 0 {
			return float64(n), true
		}
	}
	return 0, false
}

// float32 converts h to a float32.
func (h head) float32() (float32, bool) {
	switch h.kind {
	case kindInt:
		if n := int64(h.bits); -(1<<24) <= n && n <= 1<<24 {
			return float32(n), true
		}
	case kindFloat64:
		f := math.Float64frombits(h.bits)
		if float64(float32(f)) == f {
			return float32(f), true
		}
	case kindFloat32:
		return math.Float32frombits(uint32(h.bits)), true
	}
	return 0, false
}
