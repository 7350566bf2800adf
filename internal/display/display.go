// Package display shows the names of keys, buckets and tags. They may be any bytes, and a terminal obeys some of them.
package display

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Name returns a name as it can be shown: as it is where it is plain printable text, else quoted as Go quotes it. Two
// names are never shown alike.
func Name(name string) string {
	if name == "" || name[0] == '"' || name[0] == ' ' || name[len(name)-1] == ' ' || !utf8.ValidString(name) {
		return strconv.Quote(name)
	}
	for _, r := range name {
		if !strconv.IsPrint(r) {
			return strconv.Quote(name)
		}
	}
	return name
}

// Text returns the words of others, such as an error's message, as they can be shown: what a terminal might obey is
// escaped as Go escapes it, and what is beyond most bytes left out. A line end becomes a space.
func Text(text string, most int) string {
	var b strings.Builder
	for i, r := range text {
		if i >= most {
			b.WriteString(" …")
			break
		}
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			b.WriteByte(' ')
		case r == utf8.RuneError || !strconv.IsPrint(r):
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
