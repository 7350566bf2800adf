package inspect

import (
	"fmt"
	"strconv"

	"github.com/keepcache/keepcache/internal/jsontext"
)

// Bounds of what a page shows of a value: the rest is for the protocol and the command.
const (
	mostNodes  = 5000
	mostDepth  = 60 // of nested elements; what is deeper is shown as text
	mostString = 4096
	openNodes  = 120 // values up to that are unfolded whole, others on their first two levels
)

// node is a part of a JSON value as a page shows it.
type node struct {
	Named            bool // it is a member of an object
	Name             string
	Class, Text      string // of a leaf
	Opening, Closing string
	Count            string
	Kids             []*node
	More             string
	Open             bool
}

// tree makes a page's picture of a JSON text, and says what it leaves out.
func tree(text []byte) (n *node, cut string, err error) {
	j, err := jsontext.Parse(text)
	if err != nil {
		return nil, "", err
	}
	b := &builder{left: mostNodes, open: 2}
	if nodes(&j, openNodes) <= openNodes {
		b.open = mostDepth
	}
	n = b.node(&j, 0)
	if b.cut {
		cut = fmt.Sprintf("The value is long: a part of it is shown, of %s of JSON. The command and the protocol have all of it.", size(int64(len(text))))
	}
	return n, cut, nil
}

// nodes counts the nodes of a value, up to a few more than most.
func nodes(j *jsontext.Node, most int) (n int) {
	n = 1
	for i := range j.Elems {
		if n > most {
			break
		}
		n += nodes(&j.Elems[i], most-n)
	}
	return n
}

type builder struct {
	left int // nodes
	open int // levels
	cut  bool
}

func (b *builder) node(j *jsontext.Node, depth int) *node {
	b.left--
	n := &node{Opening: "[", Closing: "]"}
	switch j.Kind {
	case '"':
		n.Class, n.Text = "string", b.text(string(jsontext.AppendString(nil, j.Text)))
		return n
	case '0':
		n.Class, n.Text = "number", b.text(j.Text)
		return n
	case 'n':
		n.Class, n.Text = "word", j.Text
		return n
	case '{':
		n.Opening, n.Closing = "{", "}"
	}
	if len(j.Elems) == 0 {
		n.Class, n.Text = "fold", n.Opening+n.Closing
		return n
	}
	if depth == mostDepth {
		b.cut = true
		n.Class, n.Text = "fold", b.text(string(j.Append(nil, &jsontext.Literals{})))
		return n
	}
	n.Count, n.Open = strconv.Itoa(len(j.Elems)), depth < b.open
	for i := range j.Elems {
		if b.left <= 0 {
			b.cut = true
			n.More = count(len(j.Elems) - i)
			break
		}
		kid := b.node(&j.Elems[i], depth+1)
		if j.Kind == '{' {
			kid.Named, kid.Name = true, b.text(string(jsontext.AppendString(nil, j.Keys[i])))
		}
		n.Kids = append(n.Kids, kid)
	}
	if n.Kids == nil { // there was room for nothing
		n.Class, n.Text = "fold", n.Opening+" … "+n.Closing
	}
	return n
}

func (b *builder) text(text string) string {
	if len(text) <= mostString {
		return text
	}
	b.cut = true
	return shorten(text, mostString)
}
