package jsontext

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/keepcache/keepcache/internal/jsonpack"
)

const (
	// bufferBytes is what a value's text gathers in before it is written.
	bufferBytes = 16 << 10

	// pieceBytes is how much of a string is read at a time, a multiple of three for base64.
	pieceBytes = 3 << 10

	// ctxEvery is how many parts of a value are read between two looks at the context.
	ctxEvery = 4096
)

// Write writes an encoded value as the text that Node.Append makes of it. It holds some 16 KiB of it in memory,
// whatever the size of the value, and ends with ctx. It returns how many literals there are.
func Write(ctx context.Context, w io.Writer, encoded []byte) (literals int, err error) {
	p := printer{ctx: ctx, r: jsonpack.NewReader(encoded), buf: make([]byte, 0, bufferBytes+pieceBytes)}
	p.full = func() error {
		_, err := w.Write(p.buf)
		p.buf = p.buf[:0]
		return err
	}
	if err := p.print(0); err != nil {
		return 0, err
	}
	return p.kept, p.full()
}

// AppendSome appends the text of an encoded value to dst, as far as most bytes, and reports whether that is all of it.
// Places are those of literals, as Literals has them.
func AppendSome(ctx context.Context, dst, encoded []byte, most int) (text []byte, places []int, whole bool, err error) {
	p := printer{ctx: ctx, r: jsonpack.NewReader(encoded), buf: dst, places: true}
	return p.some(len(dst)+most, 0)
}

// AppendElement appends the text of the container that r has just opened and leaves it, as AppendSome does.
func AppendElement(
	ctx context.Context, dst []byte, r *jsonpack.Reader, first jsonpack.Part, most int,
) (text []byte, whole bool, err error) {
	p := printer{ctx: ctx, r: r, buf: append(dst, first.Kind)}
	text, _, whole, err = p.some(len(dst)+most, 1)
	for ; err == nil && p.depth > 0; p.depth-- {
		err = r.Leave()
	}
	return text, whole, err
}

// EachLiteral calls fn with the place of each literal of an encoded value, in their order.
func EachLiteral(ctx context.Context, encoded []byte, fn func(place int) error) error {
	r := jsonpack.NewReader(encoded)
	for n, place := 1, 0; ; n++ {
		if n%ctxEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		part, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if part.Kind != '0' {
			continue
		}
		if isLiteral(part) {
			if err := fn(place); err != nil {
				return err
			}
		}
		place++
	}
}

func isLiteral(part jsonpack.Part) bool {
	_, ok := jsonpack.FloatForm(part.Text)
	return part.Kept && ok
}

var errEnough = errors.New("that is enough")

// printer writes the parts of a value as compact text.
type printer struct {
	ctx  context.Context
	r    *jsonpack.Reader
	buf  []byte
	full func() error // called whenever buf may have bufferBytes

	depth    int   // containers that are open
	numbers  int   // seen so far
	kept     int   // of them literals
	literals []int // their places, if they are wanted
	places   bool
}

// some prints until the text has most bytes.
func (p *printer) some(most, depth int) (text []byte, places []int, whole bool, err error) {
	p.full = func() error {
		if len(p.buf) > most {
			return errEnough
		}
		return nil
	}
	if err = p.print(depth); err == nil {
		err = p.full()
	}
	if errors.Is(err, errEnough) {
		for most > 0 && !utf8.RuneStart(p.buf[most]) {
			most--
		}
		return p.buf[:most], nil, false, nil
	}
	return p.buf, p.literals, err == nil, err
}

// print prints what follows in the reader until as many containers are closed as are open, and one value at least.
func (p *printer) print(depth int) error {
	p.depth = depth
	first := true // of its container
	for n := 1; ; n++ {
		if n%ctxEvery == 0 && p.ctx.Err() != nil {
			return p.ctx.Err()
		}
		part, err := p.r.Next()
		if err != nil {
			return err
		}
		end := part.Kind == '}' || part.Kind == ']'
		if !first && !end {
			p.buf = append(p.buf, ',')
		}
		first = false
		if part.Named {
			if err := p.string(part.Key); err != nil {
				return err
			}
			p.buf = append(p.buf, ':')
		}
		switch part.Kind {
		case '{', '[':
			p.buf = append(p.buf, part.Kind)
			p.depth++
			first = true
		case '}', ']':
			p.buf = append(p.buf, part.Kind)
			p.depth--
		case '"':
			err = p.string(part.Text)
		case 'b':
			err = p.bytes(part.Text)
		case '0':
			if part.Kept && isLiteral(part) {
				if p.kept++; p.places {
					p.literals = append(p.literals, p.numbers)
				}
			}
			p.numbers++
			p.buf = append(p.buf, part.Text...) // 1 MiB at most
		default:
			p.buf = append(p.buf, part.Text...)
		}
		if err != nil || p.depth == 0 {
			return err
		}
		if err := p.room(); err != nil {
			return err
		}
	}
}

func (p *printer) room() error {
	if len(p.buf) >= bufferBytes {
		return p.full()
	}
	return nil
}

// string prints a string piece by piece.
func (p *printer) string(s []byte) error {
	p.buf = append(p.buf, '"')
	for len(s) > 0 {
		n := min(len(s), pieceBytes)
		for n < len(s) && !utf8.RuneStart(s[n]) {
			n-- // a rune has four bytes at most, and s is UTF-8
		}
		p.buf = appendChars(p.buf, string(s[:n]))
		s = s[n:]
		if err := p.room(); err != nil {
			return err
		}
	}
	p.buf = append(p.buf, '"')
	return nil
}

// bytes prints bytes as their base64 text.
func (p *printer) bytes(b []byte) error {
	p.buf = append(p.buf, '"')
	for len(b) > 0 {
		n := min(len(b), pieceBytes)
		p.buf = base64.StdEncoding.AppendEncode(p.buf, b[:n])
		b = b[n:]
		if err := p.room(); err != nil {
			return err
		}
	}
	p.buf = append(p.buf, '"')
	return nil
}
