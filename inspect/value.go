package inspect

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/keepcache/keepcache/internal/jsonpack"
	"github.com/keepcache/keepcache/internal/jsontext"
)

// Bounds of what a page shows of a value. The protocol and the command show all of it.
const (
	mostNodes  = 5000
	mostDepth  = 60 // levels of nesting; deeper ones are shown as text
	mostString = 4096
	mostText   = 256 << 10 // of all strings together
	openNodes  = 120       // values with up to so many nodes are unfolded completely, others in their first two levels
)

// node is a node in the tree that a page shows of a JSON value.
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

// tree makes the tree of a value, and a note about what it leaves out. It decodes only what it shows and skips the
// rest.
func tree(ctx context.Context, encoded []byte) (n *node, cut string, err error) {
	b := &builder{ctx: ctx, r: jsonpack.NewReader(encoded), nodes: mostNodes, bytes: mostText}
	first, err := b.r.Next()
	if err == nil {
		n, err = b.node(first, 0)
	}
	if err != nil {
		return nil, "", err
	}
	open := 2
	if mostNodes-b.nodes <= openNodes && !b.cut {
		open = mostDepth
	}
	unfold(n, open)
	if b.cut {
		cut = fmt.Sprintf("This is a part of the value of %s. The command and the protocol show all of it.",
			size(len(encoded)))
	}
	return n, cut, nil
}

// unfold opens the first levels of the tree.
func unfold(n *node, levels int) {
	if n.Open = levels > 0; n.Open {
		for _, kid := range n.Kids {
			unfold(kid, levels-1)
		}
	}
}

type builder struct {
	ctx   context.Context
	r     *jsonpack.Reader
	nodes int // that are left
	bytes int // of text that are left
	cut   bool
}

// node makes the node of the value that begins with a part, and reads to its end. When there is no room for more, it
// stops reading.
func (b *builder) node(part jsonpack.Part, depth int) (*node, error) {
	b.nodes--
	n := &node{Opening: "[", Closing: "]"}
	switch part.Kind {
	case '"', 'b':
		n.Class, n.Text = "string", b.quoted(part)
		return n, nil
	case '0':
		n.Class, n.Text = "number", b.text(string(part.Text))
		return n, nil
	case 'n':
		n.Class, n.Text = "word", string(part.Text)
		return n, nil
	case '{':
		n.Opening, n.Closing = "{", "}"
	}
	if part.Count == 0 {
		n.Class, n.Text = "fold", n.Opening+n.Closing
		_, err := b.r.Next() // its end
		return n, err
	}
	if depth == mostDepth {
		b.cut = true
		text, _, err := jsontext.AppendElement(b.ctx, nil, b.r, part, mostString)
		n.Class, n.Text = "fold", b.text(string(text)+" …")
		return n, err
	}
	n.Count = strconv.Itoa(part.Count)
	for i := 0; ; i++ {
		if b.nodes <= 0 || b.bytes <= 0 {
			b.cut = true
			n.More = count(part.Count - i)
			break
		}
		kid, err := b.r.Next()
		if err != nil {
			return nil, err
		}
		if kid.Kind == ']' || kid.Kind == '}' {
			break
		}
		name := ""
		if kid.Named {
			name = b.quoted(jsonpack.Part{Kind: '"', Text: kid.Key})
		}
		k, err := b.node(kid, depth+1)
		if err != nil {
			return nil, err
		}
		k.Named, k.Name = kid.Named, name
		n.Kids = append(n.Kids, k)
	}
	if n.Kids == nil { // there was no room for any
		n.Class, n.Text = "fold", n.Opening+" … "+n.Closing
	}
	return n, nil
}

// quoted returns a string as JSON, or bytes as base64, without the middle if it is long.
func (b *builder) quoted(part jsonpack.Part) string {
	text := part.Text
	if len(text) > 2*mostString { // avoid work for the part that is not shown
		b.cut = true
		n := mostString / 4 * 3 // whole groups of base64
		for part.Kind == '"' && !utf8.RuneStart(text[n]) {
			n--
		}
		text = text[:n]
	}
	if part.Kind == 'b' {
		return b.text(strconv.Quote(base64.StdEncoding.EncodeToString(text)))
	}
	return b.text(string(jsontext.AppendString(nil, string(text))))
}

func (b *builder) text(text string) string {
	if len(text) > mostString {
		b.cut = true
		text = shorten(text, mostString)
	}
	b.bytes -= len(text)
	return text
}
