package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/keepcache/keepcache"
)

// node is a JSON text taken apart, with its numbers as they are written and its members in their order.
type node struct {
	kind    byte     // '{', '[', '"', '0' for a number, and 'n' for null, true and false
	text    string   // what a string says; how anything else that is no container is written
	keys    []string // of an object
	elems   []node   // of an object or an array
	literal bool     // of a number: it looks like a float and was stored as the text it is
	tooDeep bool     // of the whole text: the library will not store it
}

// parseJSON takes one JSON text apart.
func parseJSON(text []byte) (node, error) {
	if !utf8.Valid(text) {
		return node{}, errors.New("it is not UTF-8 text")
	}
	var raw json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) && syntax.Offset > 0 && syntax.Offset < int64(len(text)) {
			return node{}, fmt.Errorf("%w at byte %d", err, syntax.Offset)
		}
		return node{}, err
	}
	p := parser{text: string(raw)}
	n := p.value()
	n.tooDeep = p.deepest > maxDepth
	return n, nil
}

// maxDepth is how many lists and objects can lie within each other in a stored value.
const maxDepth = 1000

// parser walks a text that encoding/json found valid, which also bounds its depth.
type parser struct {
	text           string
	off            int
	depth, deepest int
}

func (p *parser) space() byte {
	for strings.IndexByte(" \t\r\n", p.text[p.off]) >= 0 {
		p.off++
	}
	return p.text[p.off]
}

func (p *parser) value() node {
	switch c := p.space(); c {
	case '{', '[':
		n := node{kind: c}
		p.off++
		p.depth++
		p.deepest = max(p.deepest, p.depth)
		for end := c + 2; p.space() != end; { // '{'+2 is '}', '['+2 is ']'
			if p.text[p.off] == ',' {
				p.off++
				p.space()
			}
			if c == '{' {
				n.keys = append(n.keys, p.string())
				p.space()
				p.off++ // the colon
			}
			n.elems = append(n.elems, p.value())
		}
		p.off++
		p.depth--
		return n
	case '"':
		return node{kind: c, text: p.string()}
	default:
		start := p.off
		for p.off < len(p.text) && strings.IndexByte(" \t\r\n,]}", p.text[p.off]) < 0 {
			p.off++
		}
		kind := byte('0')
		if c == 'n' || c == 't' || c == 'f' {
			kind = 'n'
		}
		return node{kind: kind, text: p.text[start:p.off]}
	}
}

func (p *parser) string() string {
	start, escaped := p.off, false
	for p.off++; p.text[p.off] != '"'; p.off++ {
		if p.text[p.off] == '\\' {
			escaped = true
			p.off++
		}
	}
	p.off++
	if !escaped {
		return p.text[start+1 : p.off-1]
	}
	var s string
	if err := json.Unmarshal([]byte(p.text[start:p.off]), &s); err != nil {
		panic(err) // the text is valid
	}
	return s
}

// nodeOf returns the value of an entry, with floats that look like floats. What json.Marshal writes, and
// Decode into a RawMessage returns, has 1 for a float of 1.0; Decode into an any knows the difference.
func nodeOf(e keepcache.Entry) (node, error) {
	var raw json.RawMessage
	if err := e.Decode(&raw); err != nil {
		return node{}, err
	}
	n, err := parseJSON(raw)
	if err != nil || !n.numbers() {
		return n, err
	}
	var typed any
	var mismatch *json.UnmarshalTypeError // for a number beyond float64, which stays a nil in typed
	if err := e.Decode(&typed); err != nil && !errors.As(err, &mismatch) {
		return n, err
	}
	n.mark(typed)
	return n, nil
}

// numbers reports whether there is a number in n.
func (n *node) numbers() bool {
	if n.kind == '0' {
		return true
	}
	return slices.ContainsFunc(n.elems, func(e node) bool { return e.numbers() })
}

// mark tells floats and literals apart in n, whose value typed is.
func (n *node) mark(typed any) {
	switch n.kind {
	case '0':
		if looksFloat(n.text) {
			n.literal = isFloatForm(n.text)
		} else if _, ok := typed.(float64); ok {
			n.text += ".0"
		}
	case '[':
		list, _ := typed.([]any)
		for i := range min(len(list), len(n.elems)) {
			n.elems[i].mark(list[i])
		}
	case '{':
		// Of members with one name, which only a RawMessage can bring, typed has the last.
		members, _ := typed.(map[string]any)
		last := make(map[string]int, len(n.keys))
		for i, key := range n.keys {
			last[key] = i
		}
		for i, key := range n.keys {
			if last[key] == i {
				n.elems[i].mark(members[key])
			} else {
				n.elems[i].mark(nil)
			}
		}
	}
}

func looksFloat(number string) bool { return strings.ContainsAny(number, ".eE") }

// isFloatForm reports whether number is how a float without a fraction is written here: 1.0, -0.0.
func isFloatForm(number string) bool {
	if !strings.HasSuffix(number, ".0") {
		return false
	}
	f, err := strconv.ParseFloat(number, 64)
	return err == nil && math.Abs(f) < 1e21 && strconv.FormatFloat(f, 'f', -1, 64)+".0" == number
}

// appendJSON appends n as compact JSON with the members of objects sorted. It adds the places of literals,
// counted over all numbers of the text from 0, to those of l.
func (n *node) appendJSON(dst []byte, l *literals) []byte {
	switch n.kind {
	case '"':
		return appendString(dst, n.text)
	case '[':
		dst = append(dst, '[')
		for i := range n.elems {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = n.elems[i].appendJSON(dst, l)
		}
		return append(dst, ']')
	case '{':
		order := make([]int, len(n.keys))
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(n.keys[a], n.keys[b]) })
		dst = append(dst, '{')
		for i, at := range order {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, n.keys[at]), ':')
			dst = n.elems[at].appendJSON(dst, l)
		}
		return append(dst, '}')
	case '0':
		if n.literal {
			l.places = append(l.places, l.seen)
		}
		l.seen++
	}
	return append(dst, n.text...)
}

// literals are the places of the numbers in a text that look like floats but were stored as text, as a
// json.Number or a RawMessage brings them. To most readers of the cache that is one and the same.
type literals struct {
	seen   int
	places []int
}

// stored returns what to give to Set for the JSON text n, so that 1.0 is stored as the float that it is
// shown for, except at the places of l.
func (n *node) stored(text []byte, l *literals) any {
	if n.tooDeep {
		return json.RawMessage(text) // to be refused
	}
	if v, floats := n.goValue(l); floats {
		return v
	}
	return json.RawMessage(text)
}

// goValue returns n as a Go value, and whether that differs from n as text. An object that names a member
// twice is no Go value and stays text.
func (n *node) goValue(l *literals) (v any, floats bool) {
	switch n.kind {
	case '"':
		return n.text, false
	case '0':
		place := l.seen
		l.seen++
		if isFloatForm(n.text) && !slices.Contains(l.places, place) {
			f, _ := strconv.ParseFloat(n.text, 64)
			return f, true
		}
		return json.Number(n.text), false
	case '[':
		list := make([]any, len(n.elems))
		for i := range n.elems {
			var found bool
			list[i], found = n.elems[i].goValue(l)
			floats = floats || found
		}
		return list, floats
	case '{':
		object := make(map[string]any, len(n.elems))
		for i := range n.elems {
			v, found := n.elems[i].goValue(l)
			object[n.keys[i]] = v
			floats = floats || found
		}
		if len(object) < len(n.keys) {
			return json.RawMessage(n.appendJSON(nil, &literals{})), false
		}
		return object, floats
	}
	switch n.text {
	case "true":
		return true, false
	case "false":
		return false, false
	}
	return nil, false
}

// appendString appends s, which is UTF-8, as a JSON string that is safe to show on a terminal.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, '\\', 'n')
		case r == '\r':
			dst = append(dst, '\\', 'r')
		case r == '\t':
			dst = append(dst, '\\', 't')
		case obeyed(r): // all of them within 16 bits
			dst = append(dst, '\\', 'u', hex[r>>12&0xf], hex[r>>8&0xf], hex[r>>4&0xf], hex[r&0xf])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}

// object builds a JSON object. Its members are written in the order of the calls, which is to be the
// order of their names.
type object struct{ buf []byte }

func (o *object) member(name string) {
	if len(o.buf) == 0 {
		o.buf = append(o.buf, '{')
	} else {
		o.buf = append(o.buf, ',')
	}
	o.buf = append(appendString(o.buf, name), ':')
}

func (o *object) raw(name string, text []byte) {
	o.member(name)
	o.buf = append(o.buf, text...)
}

func (o *object) text(name, s string) {
	o.member(name)
	o.buf = appendString(o.buf, strings.ToValidUTF8(s, "\ufffd"))
}

// name writes a key's or a bucket's name exactly: what is not UTF-8 as base64, under another member's name.
func (o *object) name(member, name string) {
	if !utf8.ValidString(name) {
		member, name = member+"_base64", base64.StdEncoding.EncodeToString([]byte(name))
	}
	o.text(member, name)
}

func (o *object) int(name string, n int64) {
	o.member(name)
	o.buf = strconv.AppendInt(o.buf, n, 10)
}

func (o *object) bool(name string, b bool) {
	o.member(name)
	o.buf = strconv.AppendBool(o.buf, b)
}

func (o *object) null(name string) { o.raw(name, []byte("null")) }

// bytes returns the object and ends it.
func (o *object) bytes() []byte {
	if len(o.buf) == 0 {
		o.buf = append(o.buf, '{')
	}
	return append(o.buf, '}')
}

// line returns the object as a line.
func (o *object) line() []byte { return append(o.bytes(), '\n') }
