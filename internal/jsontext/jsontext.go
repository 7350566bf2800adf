// Package jsontext writes the value of an entry as JSON text and reads it back, without losing what makes an
// integer differ from a float, or a number from its literal.
package jsontext

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/jsonpack"
)

// Node is a JSON text taken apart, with its numbers as they are written and its members in their order.
type Node struct {
	Kind  byte     // '{', '[', '"', '0' for a number, and 'n' for null, true and false
	Text  string   // what a string says; how anything else that is no container is written
	Keys  []string // of an object, in the order of the text
	Elems []Node   // of an object or an array

	literal bool // of a number: it looks like a float and was stored as the text it is
	tooDeep bool // of the whole text: the library will not store it
}

// Parse takes one JSON text apart.
func Parse(text []byte) (Node, error) {
	if !utf8.Valid(text) {
		return Node{}, errors.New("it is not UTF-8 text")
	}
	var raw json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) && syntax.Offset > 0 && syntax.Offset < int64(len(text)) {
			return Node{}, fmt.Errorf("%w at byte %d", err, syntax.Offset)
		}
		return Node{}, err
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

func (p *parser) value() Node {
	switch c := p.space(); c {
	case '{', '[':
		n := Node{Kind: c}
		p.off++
		p.depth++
		p.deepest = max(p.deepest, p.depth)
		for end := c + 2; p.space() != end; { // '{'+2 is '}', '['+2 is ']'
			if p.text[p.off] == ',' {
				p.off++
				p.space()
			}
			if c == '{' {
				n.Keys = append(n.Keys, p.string())
				p.space()
				p.off++ // the colon
			}
			n.Elems = append(n.Elems, p.value())
		}
		p.off++
		p.depth--
		return n
	case '"':
		return Node{Kind: c, Text: p.string()}
	default:
		start := p.off
		for p.off < len(p.text) && strings.IndexByte(" \t\r\n,]}", p.text[p.off]) < 0 {
			p.off++
		}
		kind := byte('0')
		if c == 'n' || c == 't' || c == 'f' {
			kind = 'n'
		}
		return Node{Kind: kind, Text: p.text[start:p.off]}
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

// Of returns the value of an entry, with floats that look like floats. What json.Marshal writes, and
// Decode into a RawMessage returns, has 1 for a float of 1.0; Decode into an any knows the difference.
func Of(e keepcache.Entry) (Node, error) {
	text, err := e.AppendJSON(nil)
	if err != nil {
		return Node{}, err
	}
	if !bytes.Contains(text, []byte(".0")) && !bytes.Contains(text, []byte("-0")) {
		return Parse(text) // no number of it can be taken for another kind
	}
	var raw json.RawMessage
	if err := e.Decode(&raw); err != nil {
		return Node{}, err
	}
	n, err := Parse(raw)
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
func (n *Node) numbers() bool {
	if n.Kind == '0' {
		return true
	}
	return slices.ContainsFunc(n.Elems, func(e Node) bool { return e.numbers() })
}

// mark tells floats and literals apart in n, whose value typed is.
func (n *Node) mark(typed any) {
	switch n.Kind {
	case '0':
		if looksFloat(n.Text) {
			n.literal = isFloatForm(n.Text)
		} else if _, ok := typed.(float64); ok {
			n.Text += ".0"
		}
	case '[':
		list, _ := typed.([]any)
		for i := range min(len(list), len(n.Elems)) {
			n.Elems[i].mark(list[i])
		}
	case '{':
		// Of members with one name, which only a RawMessage can bring, typed has the last.
		members, _ := typed.(map[string]any)
		last := make(map[string]int, len(n.Keys))
		for i, key := range n.Keys {
			last[key] = i
		}
		for i, key := range n.Keys {
			if last[key] == i {
				n.Elems[i].mark(members[key])
			} else {
				n.Elems[i].mark(nil)
			}
		}
	}
}

func looksFloat(number string) bool { return strings.ContainsAny(number, ".eE") }

// isFloatForm reports whether number is how a float without a fraction is written here: 1.0, -0.0.
func isFloatForm(number string) bool {
	_, ok := jsonpack.FloatForm([]byte(number))
	return ok
}

// Append appends n as compact JSON with the members of objects sorted. It adds the places of literals,
// counted over all numbers of the text from 0, to those of l.
func (n *Node) Append(dst []byte, l *Literals) []byte {
	switch n.Kind {
	case '"':
		return AppendString(dst, n.Text)
	case '[':
		dst = append(dst, '[')
		for i := range n.Elems {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = n.Elems[i].Append(dst, l)
		}
		return append(dst, ']')
	case '{':
		order := make([]int, len(n.Keys))
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(n.Keys[a], n.Keys[b]) })
		dst = append(dst, '{')
		for i, at := range order {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(AppendString(dst, n.Keys[at]), ':')
			dst = n.Elems[at].Append(dst, l)
		}
		return append(dst, '}')
	case '0':
		if n.literal {
			l.Places = append(l.Places, l.seen)
		}
		l.seen++
	}
	return append(dst, n.Text...)
}

// Literals are the places of the numbers in a text that look like floats but were stored as text, as a
// json.Number or a RawMessage brings them. To most readers of the cache that is one and the same.
type Literals struct {
	Places []int // ascending
	seen   int
}

func (l *Literals) has(place int) bool {
	_, found := slices.BinarySearch(l.Places, place)
	return found
}

// Stored returns what to give to Set for the JSON text n, so that 1.0 is stored as the float that it is
// shown for, except at the places of l.
func (n *Node) Stored(text []byte, l *Literals) any {
	if n.tooDeep {
		return json.RawMessage(text) // to be refused
	}
	if !slices.IsSorted(l.Places) {
		l.Places = slices.Sorted(slices.Values(l.Places))
	}
	if v, floats := n.goValue(l); floats {
		return v
	}
	return json.RawMessage(text)
}

// goValue returns n as a Go value, and whether that differs from n as text. An object that names a member
// twice is no Go value and stays text.
func (n *Node) goValue(l *Literals) (v any, floats bool) {
	switch n.Kind {
	case '"':
		return n.Text, false
	case '0':
		place := l.seen
		l.seen++
		if isFloatForm(n.Text) && !l.has(place) {
			f, _ := strconv.ParseFloat(n.Text, 64)
			return f, true
		}
		return json.Number(n.Text), false
	case '[':
		list := make([]any, len(n.Elems))
		for i := range n.Elems {
			var found bool
			list[i], found = n.Elems[i].goValue(l)
			floats = floats || found
		}
		return list, floats
	case '{':
		object := make(map[string]any, len(n.Elems))
		for i := range n.Elems {
			v, found := n.Elems[i].goValue(l)
			object[n.Keys[i]] = v
			floats = floats || found
		}
		if len(object) < len(n.Keys) {
			return json.RawMessage(n.Append(nil, &Literals{})), false
		}
		return object, floats
	}
	switch n.Text {
	case "true":
		return true, false
	case "false":
		return false, false
	}
	return nil, false
}

// AppendString appends s, which is UTF-8, as a JSON string that is safe to show on a terminal.
func AppendString(dst []byte, s string) []byte {
	return append(appendChars(append(dst, '"'), s), '"')
}

// appendChars appends what stands between the quotes of a JSON string.
func appendChars(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
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
		case Obeyed(r): // all of them within 16 bits
			dst = append(dst, '\\', 'u', hex[r>>12&0xf], hex[r>>8&0xf], hex[r>>4&0xf], hex[r&0xf])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return dst
}

// Obeyed reports whether a terminal may do something else with r than show it: control characters, and
// marks that turn the direction of the text around them.
func Obeyed(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' || r == '\ufeff'
}

// Mark makes the numbers at the given places of n literals, as Append has counted them.
func (n *Node) Mark(places []int) {
	if len(places) > 0 {
		n.markAt(&Literals{Places: slices.Sorted(slices.Values(places))})
	}
}

func (n *Node) markAt(l *Literals) {
	if n.Kind == '0' {
		n.literal = l.has(l.seen)
		l.seen++
	}
	for i := range n.Elems {
		n.Elems[i].markAt(l)
	}
}
