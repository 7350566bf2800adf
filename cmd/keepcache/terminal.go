package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// screen is a terminal on which a command draws the whole screen. Its previous contents come back at the end.
type screen struct {
	in, out *os.File
	before  *term.State
	keys    chan key
}

// key is a pressed key: a character, or one of the names below.
type key string

const (
	keyTab       key = "tab"
	keyEnter     key = "enter"
	keyEscape    key = "escape"
	keyBackspace key = "backspace"
	keyLeft      key = "left"
	keyRight     key = "right"
	keyUp        key = "up"
	keyDown      key = "down"
	keyInterrupt key = "interrupt"
	keyRedraw    key = "redraw"
)

// Sequences of ECMA-48 and xterm, which all current terminals understand.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l" // another screen, no cursor, no wrapping of lines
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	goHome      = "\x1b[H"
	clearLine   = "\x1b[K"
	clearRest   = "\x1b[J"
)

// openScreen takes over the terminal, if in and out are one.
func openScreen(in io.Reader, out io.Writer) (*screen, bool) {
	if o, ok := out.(*output); ok {
		out = o.w
	}
	i, inOK := in.(*os.File)
	o, outOK := out.(*os.File)
	if !inOK || !outOK || !term.IsTerminal(int(i.Fd())) || !term.IsTerminal(int(o.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil, false
	}
	before, err := term.MakeRaw(int(i.Fd()))
	if err != nil {
		return nil, false
	}
	s := &screen{in: i, out: o, before: before, keys: make(chan key, 16)}
	io.WriteString(o, enterScreen)
	go s.read()
	return s, true
}

// close restores the terminal.
func (s *screen) close() {
	io.WriteString(s.out, leaveScreen)
	term.Restore(int(s.in.Fd()), s.before)
}

// size returns the number of columns and lines.
func (s *screen) size() (width, height int) {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width < 1 || height < 1 {
		return 80, 24
	}
	return width, height
}

// draw shows the lines in one write, to avoid flicker.
func (s *screen) draw(lines []string) {
	var b strings.Builder
	b.WriteString(goHome)
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(clearLine + line) // after a full line, the cursor is on its last character
	}
	b.WriteString(clearRest)
	io.WriteString(s.out, b.String())
}

// read sends keys until there are no more. It ends with the process: a read of a terminal cannot be interrupted.
func (s *screen) read() {
	defer close(s.keys)
	buf := make([]byte, 256)
	for {
		n, err := s.in.Read(buf)
		if err != nil || n == 0 {
			return
		}
		for _, k := range parseKeys(string(buf[:n])) {
			s.keys <- k
		}
	}
}

// named are the sequences that the keys without a character send.
var named = []struct {
	sequence string
	key      key
}{
	{"\x1b[A", keyUp}, {"\x1b[B", keyDown}, {"\x1b[C", keyRight}, {"\x1b[D", keyLeft},
	{"\x1bOA", keyUp}, {"\x1bOB", keyDown}, {"\x1bOC", keyRight}, {"\x1bOD", keyLeft}, {"\x1b[Z", keyLeft},
	{"\t", keyTab}, {"\r", keyEnter}, {"\n", keyEnter}, {"\x7f", keyBackspace}, {"\b", keyBackspace},
	{"\x03", keyInterrupt}, {"\x04", keyInterrupt}, {"\x0c", keyRedraw},
}

// parseKeys parses input from a terminal. It ignores unknown sequences.
func parseKeys(text string) (keys []key) {
next:
	for text != "" {
		for _, n := range named {
			if rest, ok := strings.CutPrefix(text, n.sequence); ok {
				keys, text = append(keys, n.key), rest
				continue next
			}
		}
		if text[0] == '\x1b' {
			if len(text) == 1 {
				return append(keys, keyEscape)
			}
			end := strings.IndexFunc(text[2:], func(r rune) bool { return r >= '@' && r <= '~' })
			if text[1] != '[' || end < 0 {
				return keys
			}
			text = text[2+end+1:]
			continue
		}
		r, n := utf8.DecodeRuneInString(text)
		if unicode.IsPrint(r) && !(r == utf8.RuneError && n == 1) {
			keys = append(keys, key(text[:n]))
		}
		text = text[n:]
	}
	return keys
}

// endings returns a context that ends when the process gets a signal to end, so that the terminal can be restored.
func endings(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
}

// cells returns how many columns of a terminal a character takes.
func cells(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r < 0x1100:
		return 1
	case r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3, r >= 0xf900 && r <= 0xfaff,
		r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6,
		r >= 0x1f300 && r <= 0x1faff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}

// widthOf returns how many columns text takes.
func widthOf(text string) (n int) {
	for _, r := range text {
		n += cells(r)
	}
	return n
}

// fit cuts text to a number of columns, and marks the cut with an ellipsis.
func fit(text string, width int) string {
	switch {
	case width < 1:
		return ""
	case widthOf(text) <= width:
		return text
	}
	used := 0
	for i, r := range text {
		if used += cells(r); used > width-1 {
			return text[:i] + "…"
		}
	}
	return text
}

// fitMiddle is fit, with the ellipsis in the middle: names that are alike at their beginning often differ at their end.
func fitMiddle(text string, width int) string {
	if width < 3 || widthOf(text) <= width {
		return fit(text, width)
	}
	runes := []rune(text)
	left, right := 0, len(runes) // the text between them is left out
	for room, ahead := width-1, true; ; ahead = !ahead {
		r := runes[right-1]
		if ahead {
			r = runes[left]
		}
		if room -= cells(r); room < 0 {
			return string(runes[:left]) + "…" + string(runes[right:])
		}
		if ahead {
			left++
		} else {
			right--
		}
	}
}

// pad is fit, with spaces up to the width.
func pad(text string, width int) string {
	text = fit(text, width)
	return text + strings.Repeat(" ", max(width-widthOf(text), 0))
}
