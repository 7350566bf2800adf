package jsonpack

import (
	"bytes"
	"io"
	"math"
	"slices"
)

// Encoded is a value as Append wrote it or Scan accepted it.
type Encoded []byte

// Text is a value in the form of JSON text, for Append: what AppendFromJSON makes of it, but for numbers that are
// written as a float without a fraction, 1.0, which become the floats that they look like.
type Text struct {
	JSON []byte // UTF-8
	// ascending: numbers, counted from 0 over the whole text, that stay text although they look like floats
	Literals []int
}

// Part is what a Reader returns of a value: a value that is no container, the start of a container, or its end.
type Part struct {
	Kind  byte   // '"', '0' for a number, 'n' for null, true and false, 'b' for bytes; '{' and '['; '}' and ']' at the end
	Named bool   // it is a member of an object
	Key   []byte // its name. A part of the data, or valid until the next call, as Text is
	Text  []byte // of a string what it says, of bytes the bytes, of a number or a word how it is written
	Kept  bool   // of a number: it is stored as its literal
	Count int    // of a container: how many elements or members it has
}

var wordNull, wordTrue, wordFalse = []byte("null"), []byte("true"), []byte("false")

// Bounds of the work that a Reader does to bring members into order.
const (
	mostSorted = 1 << 18 // members, of all objects that are open at once
	mostPasses = 4       // times that the data may be read for it, on average
)

// Reader reads an encoded value part by part, and builds nothing of it. Members of objects come in the byte order of
// their names; those of an object that is not stored in that order, and has more than 262,144 members or lies
// within so many objects that ordering them would take too long, come as they are stored.
type Reader struct {
	data  []byte
	off   int
	begun bool
	stack []level
	index []uint32 // where the members begin of the objects on the stack that are not stored in order
	spent int      // bytes read to find that out
	text  []byte   // of a number
}

// level is a container that is open.
type level struct {
	object, sorted bool // sorted: the members are at index[base:]
	count, left    int
	start, end     int // of the content; the end is known only if sorted
	base           int
}

// NewReader returns a Reader of data. Bytes that Scan would refuse give ErrCorrupt.
func NewReader(data []byte) *Reader { return &Reader{data: data} }

// Next returns the next part, and io.EOF behind the value.
func (r *Reader) Next() (p Part, err error) {
	if len(r.stack) == 0 {
		if r.begun {
			return p, io.EOF
		}
		r.begun = true
	} else {
		l := &r.stack[len(r.stack)-1]
		if l.left == 0 {
			p.Kind = ']'
			if l.object {
				p.Kind = '}'
			}
			r.pop()
			return p, nil
		}
		if l.sorted {
			r.off = int(r.index[l.base+l.count-l.left])
		}
		l.left--
		if l.object {
			h, next := readHead(r.data, r.off)
			if h.kind != kindStr {
				return p, corrupt("map key is no string", r.off)
			}
			p.Named, p.Key = true, r.data[next:next+h.n]
			r.off = next + h.n
		}
	}
	return p, r.value(&p)
}

// value fills in what the value at the offset is.
func (r *Reader) value(p *Part) error {
	h, next := readHead(r.data, r.off)
	switch h.kind {
	case kindBad:
		return corrupt("unknown or impossible value", r.off)
	case kindArray, kindMap:
		if len(r.stack) == MaxDepth {
			return corrupt("nested too deeply", r.off)
		}
		p.Kind, p.Count = '[', h.n
		l := level{object: h.kind == kindMap, count: h.n, left: h.n, start: next, base: len(r.index)}
		if l.object {
			p.Kind = '{'
			r.arrange(&l)
		}
		r.stack = append(r.stack, l)
		r.off = next
		return nil
	case kindNil:
		p.Kind, p.Text = 'n', wordNull
	case kindBool:
		p.Kind, p.Text = 'n', wordFalse
		if h.bits != 0 {
			p.Text = wordTrue
		}
	case kindStr:
		p.Kind, p.Text = '"', r.data[next:next+h.n]
	case kindBin:
		p.Kind, p.Text = 'b', r.data[next:next+h.n]
	case kindNum:
		p.Kind, p.Kept, p.Text = '0', true, r.data[next:next+h.n]
	default:
		p.Kind = '0'
		r.text = h.appendText(r.text[:0], nil)
		if h.kind != kindInt && h.kind != kindUint && isInteger(r.text) {
			r.text = append(r.text, ".0"...)
		}
		p.Text = r.text
	}
	r.off = next + h.n
	return nil
}

// Leave goes to the end of the innermost container that is open, whose end Next then does not return.
func (r *Reader) Leave() error {
	l := &r.stack[len(r.stack)-1]
	if !l.sorted {
		left := l.left
		if l.object {
			left *= 2
		}
		for ; left > 0; left-- {
			if r.off = skipValue(r.data, r.off); r.off < 0 {
				return corrupt("value cut short", len(r.data))
			}
		}
	}
	r.pop()
	return nil
}

func (r *Reader) pop() {
	l := &r.stack[len(r.stack)-1]
	if l.sorted {
		r.off = l.end
	}
	r.index = r.index[:l.base]
	r.stack = r.stack[:len(r.stack)-1]
}

// arrange finds the order of an object's members, unless they are stored in it or it would take too much.
func (r *Reader) arrange(l *level) {
	if l.count < 2 || l.count > mostSorted-len(r.index) || int64(len(r.data)) > math.MaxUint32 {
		return
	}
	sorted, off := true, l.start
	var last []byte
	for i := range l.count {
		h, next := readHead(r.data, off)
		if h.kind != kindStr {
			break // Next says what is wrong
		}
		key := r.data[next : next+h.n]
		if i > 0 && bytes.Compare(last, key) > 0 {
			sorted = false
		}
		last = key
		r.index = append(r.index, uint32(off))
		if i == l.count-1 && sorted {
			break
		}
		end := skipValue(r.data, next+h.n)
		if end < 0 {
			break
		}
		if r.spent += end - off; r.spent > mostPasses*len(r.data) {
			break
		}
		if off = end; i == l.count-1 {
			l.sorted, l.end = true, end
		}
	}
	if !l.sorted {
		r.index = r.index[:l.base]
		return
	}
	name := func(off uint32) []byte {
		h, next := readHead(r.data, int(off))
		return r.data[next : next+h.n]
	}
	slices.SortStableFunc(r.index[l.base:], func(a, b uint32) int { return bytes.Compare(name(a), name(b)) })
}
