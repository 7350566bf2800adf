package jsonpack

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// transcoder turns one JSON text into msgpack in one pass, without recursion.
// A container's count is known only at its end: its head is one byte at first,
// and those that need a longer one are mended at the end, all in one go.
type transcoder struct {
	open   []container
	long   []container // closed ones with more than 15 members
	extra  int         // bytes that the long heads will add
	plain  []byte      // scratch for strings with escapes
	floats *Text       // says which numbers are floats by their look; nil: none
	number int         // numbers seen so far, where that matters
}

// container is an array or an object whose head is at out[pos].
type container struct {
	pos    int
	count  int
	object bool
}

var transcoders = sync.Pool{New: func() any { return new(transcoder) }}

// errSyntax stands for a syntax error until explain finds its cause.
var errSyntax = errors.New("syntax error")

// transcode appends the msgpack of text, which lies within depth containers, as
// long as the result has at most most bytes. On an error it returns dst. See
// Text for floats, which may be nil.
func transcode(dst, text []byte, depth, most int, floats *Text) ([]byte, error) {
	t := transcoders.Get().(*transcoder)
	t.open, t.long, t.extra = t.open[:0], t.long[:0], 0
	t.floats, t.number = floats, 0
	out, err := t.run(dst, text, depth, most)
	if err == nil {
		out = t.mend(out)
	}
	t.floats = nil
	if cap(t.plain) <= maxPooled {
		transcoders.Put(t)
	}
	if err == errSyntax {
		err = explain(text)
	}
	if err != nil {
		return dst, err
	}
	return out, nil
}

// explain returns the error that encoding/json has for text.
func explain(text []byte) error {
	var raw json.RawMessage
	err := json.Unmarshal(text, &raw)
	if err == nil {
		err = errSyntax
	}
	return fmt.Errorf("%w: %w", ErrUnsupported, err)
}

func (t *transcoder) run(out, text []byte, depth, most int) ([]byte, error) {
	i := skipSpace(text, 0)
	for {
		if len(out)+t.extra > most {
			return out, errLimit
		}
		// A value starts at text[i].
		if i >= len(text) {
			return out, errSyntax
		}
		switch c := text[i]; c {
		case '"':
			s, next := t.str(text, i)
			if next < 0 {
				return out, errSyntax
			}
			i = next
			var err error
			if out, err = appendStringBytes(out, s, most); err != nil {
				return out, err
			}
		case '{', '[':
			if depth+len(t.open) >= MaxDepth {
				return out, errDepth
			}
			t.open = append(t.open, container{pos: len(out), object: c == '{'})
			out = append(out, 0)
			i = skipSpace(text, i+1)
			if i < len(text) && text[i] == c+2 { // '{'+2 is '}', '['+2 is ']'
				t.open[len(t.open)-1].count = -1
				break
			}
			if c == '{' {
				if out, i = t.key(out, text, i); i < 0 {
					return out, errSyntax
				}
			}
			continue
		case 't', 'f', 'n':
			word, b := "null", msgpcode.Nil
			switch c {
			case 't':
				word, b = "true", msgpcode.True
			case 'f':
				word, b = "false", msgpcode.False
			}
			if len(text)-i < len(word) || string(text[i:i+len(word)]) != word {
				return out, errSyntax
			}
			out = append(out, b)
			i += len(word)
		default:
			end := numberEnd(text, i)
			if end < 0 {
				return out, errSyntax
			}
			if end-i > maxNumberBytes {
				return out, errNumber
			}
			out = t.literal(out, text[i:end])
			i = end
		}
		// A value ends at text[i], or a container that is empty.
		for more := false; !more; {
			i = skipSpace(text, i)
			if len(t.open) == 0 {
				if i < len(text) {
					return out, errSyntax
				}
				if len(out)+t.extra > most {
					return out, errLimit
				}
				return out, nil
			}
			if i >= len(text) {
				return out, errSyntax
			}
			top := &t.open[len(t.open)-1]
			top.count++
			switch c := text[i]; {
			case c == ',':
				i = skipSpace(text, i+1)
				if top.object {
					if out, i = t.key(out, text, i); i < 0 {
						return out, errSyntax
					}
				}
				more = true
			case top.object && c == '}', !top.object && c == ']':
				if err := t.close(out, *top); err != nil {
					return out, err
				}
				i++
			default:
				return out, errSyntax
			}
		}
	}
}

// literal appends a number.
func (t *transcoder) literal(out, lit []byte) []byte {
	if t.floats != nil {
		place := t.number
		t.number++
		if f, ok := FloatForm(lit); ok {
			if _, kept := slices.BinarySearch(t.floats.Literals, place); !kept {
				return appendFloat64(out, f)
			}
		}
	}
	return appendLiteral(out, lit)
}

// key appends the object key at text[i:] and returns the offset of the value
// behind its colon, or -1.
func (t *transcoder) key(out, text []byte, i int) ([]byte, int) {
	if i >= len(text) || text[i] != '"' {
		return out, -1
	}
	s, i := t.str(text, i)
	if i < 0 {
		return out, -1
	}
	if i = skipSpace(text, i); i >= len(text) || text[i] != ':' {
		return out, -1
	}
	out, err := appendStringBytes(out, s, math.MaxInt) // the limit is checked at the value
	if err != nil {
		return out, -1
	}
	return out, skipSpace(text, i+1)
}

// close pops the container c off the stack and writes its head, or leaves that
// to mend.
func (t *transcoder) close(out []byte, c container) error {
	t.open = t.open[:len(t.open)-1]
	switch {
	case c.count < 16 && c.object:
		out[c.pos] = msgpcode.FixedMapLow | byte(c.count)
	case c.count < 16:
		out[c.pos] = msgpcode.FixedArrayLow | byte(c.count)
	case uint64(c.count) > math.MaxUint32:
		return errLength
	default:
		t.long = append(t.long, c)
		t.extra += c.headSize() - 1
	}
	return nil
}

// headSize returns the size of the head of a container of 16 members or more.
func (c container) headSize() int {
	if c.count <= math.MaxUint16 {
		return 3
	}
	return 5
}

// mend makes room for the long heads and writes them.
func (t *transcoder) mend(out []byte) []byte {
	if len(t.long) == 0 {
		return out
	}
	slices.SortFunc(t.long, func(a, b container) int { return b.pos - a.pos })
	end := len(out) // out[:end] is still to be moved
	out = slices.Grow(out, t.extra)[:len(out)+t.extra]
	to := len(out)
	for _, c := range t.long {
		to -= end - c.pos - 1
		copy(out[to:], out[c.pos+1:end])
		end = c.pos
		to -= c.headSize()
		if c.object {
			appendMapHead(out[:to], c.count)
		} else {
			appendArrayHead(out[:to], c.count)
		}
	}
	return out
}

// str returns the content of the JSON string at text[i:], which may be in
// t.plain, and the offset behind it, or -1.
func (t *transcoder) str(text []byte, i int) ([]byte, int) {
	i++
	start := i
	for i < len(text) && text[i] != '"' && text[i] != '\\' && text[i] >= ' ' {
		i++
	}
	if i < len(text) && text[i] == '"' {
		return text[start:i], i + 1
	}
	t.plain = append(t.plain[:0], text[start:i]...)
	for i < len(text) {
		switch c := text[i]; {
		case c == '"':
			return t.plain, i + 1
		case c < ' ':
			return nil, -1
		case c != '\\':
			t.plain = append(t.plain, c)
			i++
		case i+1 >= len(text):
			return nil, -1
		case text[i+1] == 'u':
			r := hex4(text, i)
			if r < 0 {
				return nil, -1
			}
			i += 6
			if utf16.IsSurrogate(r) {
				// A half without its other half becomes U+FFFD.
				if r = utf16.DecodeRune(r, hex4(text, i)); r != utf8.RuneError {
					i += 6
				}
			}
			t.plain = utf8.AppendRune(t.plain, r)
		default:
			c := unescaped[text[i+1]]
			if c == 0 {
				return nil, -1
			}
			t.plain = append(t.plain, c)
			i += 2
		}
	}
	return nil, -1
}

// unescaped maps what follows a backslash to what both stand for.
var unescaped = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// hex4 returns the code unit of the escape \uXXXX at text[i:], or -1.
func hex4(text []byte, i int) rune {
	if len(text)-i < 6 || text[i] != '\\' || text[i+1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range text[i+2 : i+6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

func skipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r' || text[i] == '\n') {
		i++
	}
	return i
}
