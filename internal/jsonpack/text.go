package jsonpack

import (
	"bytes"
	"encoding/base64"
	"slices"
	"unicode/utf8"
)

// renderer writes msgpack as compact JSON text.
type renderer struct {
	out  []byte
	data []byte

	// forReading selects text for people and tools: sorted keys, plain HTML
	// characters, floats that look like floats. Without it the text is what
	// json.Marshal would have written, which is what Unmarshalers get.
	forReading bool

	members []member // of the objects being sorted, outer ones first
	moved   []byte   // scratch for reordering
}

// member is one member of an object: where its key lies in data, and where its
// text lies in out.
type member struct {
	key        []byte
	start, end int
}

// value appends the value at data[off:], which lies within depth containers,
// and returns the offset behind it.
func (r *renderer) value(off, depth int) (int, error) {
	h, next := readHead(r.data, off)
	content := r.data[next:]
	if h.kind != kindArray && h.kind != kindMap {
		content = content[:h.n]
	}
	switch h.kind {
	case kindBad:
		return off, corrupt("unknown or impossible value", off)
	case kindNil:
		r.out = append(r.out, "null"...)
	case kindBool:
		if h.bits != 0 {
			r.out = append(r.out, "true"...)
		} else {
			r.out = append(r.out, "false"...)
		}
	case kindStr:
		r.out = appendQuoted(r.out, content, !r.forReading)
	case kindBin:
		r.out = append(r.out, '"')
		r.out = base64.StdEncoding.AppendEncode(r.out, content)
		r.out = append(r.out, '"')
	case kindArray, kindMap:
		if depth == MaxDepth {
			return off, corrupt("nested too deeply", off)
		}
		if h.kind == kindArray {
			return r.array(h.n, next, depth+1)
		}
		return r.object(h.n, next, depth+1)
	default:
		if h.kind == kindNum && !validNumber(content) {
			return off, corrupt("malformed number", off)
		}
		start := len(r.out)
		r.out = h.appendText(r.out, content)
		if lit := r.out[start:]; r.forReading && h.kind != kindInt && h.kind != kindUint && h.kind != kindNum &&
			isInteger(lit) && string(lit) != "-0" { // which no integer is written as
			r.out = append(r.out, ".0"...)
		}
	}
	return next + h.n, nil
}

func (r *renderer) array(n, off, depth int) (int, error) {
	r.out = append(r.out, '[')
	for i := range n {
		if i > 0 {
			r.out = append(r.out, ',')
		}
		var err error
		if off, err = r.value(off, depth); err != nil {
			return off, err
		}
	}
	r.out = append(r.out, ']')
	return off, nil
}

func (r *renderer) object(n, off, depth int) (int, error) {
	r.out = append(r.out, '{')
	base, sorted := len(r.members), true
	for i := range n {
		if i > 0 {
			r.out = append(r.out, ',')
		}
		h, next := readHead(r.data, off)
		if h.kind != kindStr {
			return off, corrupt("map key is no string", off)
		}
		key, start := r.data[next:next+h.n], len(r.out)
		r.out = appendQuoted(r.out, key, !r.forReading)
		r.out = append(r.out, ':')
		var err error
		if off, err = r.value(next+h.n, depth); err != nil {
			return off, err
		}
		if r.forReading {
			if m := len(r.members); m > base && bytes.Compare(r.members[m-1].key, key) > 0 {
				sorted = false
			}
			r.members = append(r.members, member{key, start, len(r.out)})
		}
	}
	if !sorted {
		r.sort(r.members[base:])
	}
	r.members = r.members[:base]
	r.out = append(r.out, '}')
	return off, nil
}

// sort reorders the members' text at the end of out.
func (r *renderer) sort(members []member) {
	first := members[0].start
	r.moved = append(r.moved[:0], r.out[first:]...)
	slices.SortStableFunc(members, func(a, b member) int { return bytes.Compare(a.key, b.key) })
	r.out = r.out[:first]
	for i, m := range members {
		if i > 0 {
			r.out = append(r.out, ',')
		}
		r.out = append(r.out, r.moved[m.start-first:m.end-first]...)
	}
}

// Classes of the bytes of a JSON string.
const (
	charPlain  = iota
	charEscape // must be escaped
	charHTML   // <, > and &, which json.Marshal escapes
	charMulti  // part of a longer rune
)

var chars = func() (t [256]uint8) {
	for c := range t {
		switch {
		case c < ' ', c == '"', c == '\\':
			t[c] = charEscape
		case c == '<', c == '>', c == '&':
			t[c] = charHTML
		case c >= utf8.RuneSelf:
			t[c] = charMulti
		}
	}
	return t
}()

const hexDigits = "0123456789abcdef"

// appendQuoted appends s as a JSON string, escaped as encoding/json does it.
func appendQuoted[T string | []byte](dst []byte, s T, html bool) []byte {
	dst = append(dst, '"')
	done := 0 // s[:done] is written
	for i := 0; i < len(s); {
		c := s[i]
		class := chars[c]
		if class == charPlain || class == charHTML && !html {
			i++
			continue
		}
		if class == charMulti {
			r, size := decodeRune(s, i)
			switch {
			case r == utf8.RuneError && size == 1:
				dst = append(append(dst, s[done:i]...), `\ufffd`...)
				done = i + size
			case r == '\u2028' || r == '\u2029': // line ends to JavaScript
				dst = append(append(dst, s[done:i]...), `\u202`...)
				dst = append(dst, hexDigits[r&0xf])
				done = i + size
			}
			i += size
			continue
		}
		dst = append(append(dst, s[done:i]...), '\\')
		switch c {
		case '"', '\\':
			dst = append(dst, c)
		case '\b':
			dst = append(dst, 'b')
		case '\f':
			dst = append(dst, 'f')
		case '\n':
			dst = append(dst, 'n')
		case '\r':
			dst = append(dst, 'r')
		case '\t':
			dst = append(dst, 't')
		default:
			dst = append(dst, 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
		}
		i++
		done = i
	}
	return append(append(dst, s[done:]...), '"')
}
